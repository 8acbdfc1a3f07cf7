"""Residual blocks that go: which are found, which change least, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import PMRID, NAFNet
from mofa_compiler import apply, verify
from mofa_compiler.base.errors import RoadmapError
from mofa_compiler.calibration import Calibration
from mofa_compiler.passes import DropBlock
from tests.calibration.small import Between, conv, distance, images, run, trained_like
from tests.raising import raising
from tests.rewrites import assert_rewrites, network, signatures

SHAPE = (1, 3, 16, 16)


def three(scales: tuple[float, float, float] = (1.0, 0.01, 1.0)) -> nn.Module:
    """Three blocks, the second of which adds least."""

    def forward(m: Between, x: Tensor) -> Tensor:
        x = m.d(F.relu(x))
        x = x + m.b1(F.gelu(m.a1(x)))
        x = x + m.b2(F.gelu(m.a2(x)))
        return m.e(x + m.b3(F.gelu(m.a3(x))))

    blocks = {f"a{i}": conv(8, 16) for i in (1, 2, 3)} | {f"b{i}": conv(16, 8) for i in (1, 2, 3)}
    model = trained_like(Between(forward, d=conv(8, 8), e=conv(8, 8), **blocks))
    with torch.no_grad():
        for index, scale in enumerate(scales, 1):
            for tensor in model.get_submodule(f"b{index}").parameters():
                tensor *= scale
    return model.eval()


def test_the_block_that_adds_least_goes() -> None:
    model = three()
    rewritten, diff = assert_rewrites(DropBlock(), model, {"a2": None, "b2": None}, shape=SHAPE)
    assert {edit.path: edit.fate for edit in diff.edits} == {"a2": "removed", "b2": "removed", "add_1": "inherited"}
    assert {skip.path: skip.code for skip in diff.skips} == {"add": "threshold", "add_2": "threshold"}
    for tensor in (model.b2.weight, model.b2.bias):
        nn.init.zeros_(tensor)
    x = torch.rand(2, 3, 21, 18)
    assert distance(run(rewritten.program.graph_module, x), run(model, x)) < 1e-6
    assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits) < 0
    assert diff.after.parameters - diff.before.parameters == sum(edit.parameters for edit in diff.edits) < 0


@pytest.mark.parametrize(("drop", "gone"), [(2, "12"), (Fraction(1, 3), "2"), ("2/3", "12"), (7, "123")])
def test_as_many_go_as_are_told(drop: int | Fraction, gone: str) -> None:
    after = dict.fromkeys((f"{name}{index}" for index in gone for name in "ab"), None)
    assert_rewrites(DropBlock(drop=drop), three((0.1, 0.01, 1.0)), after, shape=SHAPE)


def test_calibration_chooses_by_what_it_sees_and_fits_what_follows() -> None:
    model, batches = three((0.3, 1.0, 0.3)), images(8)
    with torch.no_grad():
        model.a2.weight *= 0.01  # alive on unit noise alone, so is its bias
    free = apply(model, [DropBlock()], batches[0])
    result = apply(model, [DropBlock()], batches[0], Calibration(batches, tuning=0))
    assert len(result.roadmap.passes[0].blocks) == 1
    kept = apply(model, result.roadmap, batches[0])
    assert signatures(kept.rewritten) == signatures(result.rewritten)
    new = images(12)[8:]
    expected = torch.cat([run(model, x) for x in new])
    errors = [distance(torch.cat([run(one.model, x) for x in new]), expected) for one in (free, kept, result)]
    assert errors[2] < 0.5 * errors[1] <= 0.5 * errors[0]


def test_the_bundle_is_what_the_recipe_makes(tmp_path: object) -> None:
    model, batches = three(), images(8)
    saved = apply(model, [DropBlock(drop=2)], batches[0], Calibration(batches, tuning=0)).save(f"{tmp_path}/bundle")
    assert all(check.ok for check in verify(saved, model).checks)


STAYING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "stride": (
        lambda: Between(
            lambda m, x: F.interpolate(m.b(x) + m.a(x), scale_factor=2),
            a=nn.Conv2d(8, 8, 1, 2),
            b=nn.Conv2d(8, 8, 1, 2),
        ),
        "between",
    ),
    "lower inside": (
        lambda: Between(lambda m, x: x + F.interpolate(m.a(x), scale_factor=2), a=nn.Conv2d(8, 8, 2, 2)),
        "resolution",
    ),
    "read": (lambda: Between(lambda m, x: (y := m.a(x)) * (x + m.b(y)), a=conv(8, 8), b=conv(8, 8)), "read-elsewhere"),
    "twice": (lambda: Between(lambda m, x: x + m.a(m.a(x)), a=conv(8, 8)), "called-twice"),
    "no layer": (lambda: Between(lambda m, x: x + F.relu(x)), "no-convolution"),
    "global": (lambda: nn.Sequential(Whole()), "input"),
}


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 8, 3), nn.ReLU(), conv(8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@pytest.mark.parametrize("name", STAYING)
def test_what_stays_says_why(name: str) -> None:
    make, code = STAYING[name]
    _, diff = assert_rewrites(DropBlock(), make().eval(), {}, shape=SHAPE)
    assert code in {skip.code for skip in diff.skips}


def test_what_is_read_later_is_not_written_over() -> None:
    def forward(m: Between, x: Tensor) -> Tensor:
        y = F.relu_(x + m.b(m.a(x)))
        return torch.cat([x, y], 1)

    model = Between(lambda m, x: m.c(forward(m, x)), a=conv(8, 16), b=conv(16, 8), c=conv(16, 8)).eval()
    for tensor in model.b.parameters():
        nn.init.zeros_(tensor)
    rewritten, _ = assert_rewrites(DropBlock(), model, {"a": None, "b": None}, shape=SHAPE)
    x = torch.rand(2, 3, 21, 18)
    assert distance(run(rewritten.program.graph_module, x), run(model, x)) < 1e-6


@pytest.mark.parametrize("model", [PMRID(), NAFNet(width=8)], ids=["pmrid", "nafnet"])
def test_all_blocks_of_whole_networks_can_go(model: nn.Module) -> None:
    before = network(model.eval(), 1, 3, 32, 32)
    result = apply(model, [DropBlock(drop=100)], torch.rand(1, 3, 32, 32))
    assert 0 < result.after.macs < before.totals.macs
    again = apply(result.model, [DropBlock()], torch.rand(1, 3, 32, 32))
    assert not again.diffs[0].edits
    assert run(result.model, torch.rand(1, 3, 48, 64)).isfinite().all()


def test_blocks_are_named_as_the_graph_has_them() -> None:
    with raising(RoadmapError, "unknown-name", "sum_7"):
        apply(three(), [DropBlock(blocks=("sum_7",))], torch.rand(SHAPE))


def test_every_block_that_could_go_is_offered_with_what_goes_with_it() -> None:
    def forward(m: Between, x: Tensor) -> Tensor:
        x = m.d(x)
        y = x + m.b1(F.gelu(m.a1(x)))
        return m.e(x + m.c(y + m.b2(F.gelu(m.a2(y)))))

    blocks = {f"a{i}": conv(8, 16) for i in (1, 2)} | {f"b{i}": conv(16, 8) for i in (1, 2)}
    nested = network(trained_like(Between(forward, d=conv(8, 8), c=conv(8, 8), e=conv(8, 8), **blocks)), *SHAPE)
    found = {one.path: one for one in DropBlock(drop=7).bypasses(nested)}
    assert {path: set(one.gone) for path, one in found.items()} == {
        "add": {"a1", "b1"},
        "add_1": {"a2", "b2"},
        "add_2": {"a1", "b1", "a2", "b2", "c", "add", "add_1"},
    }
    assert [one.path for one in DropBlock(blocks=("add_1",)).bypasses(nested)] == ["add_1"]
    assert_rewrites(
        replace(found["add"].by, layers=("add", "add_1")),
        three(),
        {"a1": None, "b1": None, "a2": None, "b2": None},
        shape=SHAPE,
    )
