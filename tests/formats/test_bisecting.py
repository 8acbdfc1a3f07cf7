"""An export that fails names the first operator with which it does, and what is known to mend it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler.base.errors import ExportError
from mofa_compiler.export import export
from mofa_compiler.export.making import merged_norms
from mofa_compiler.formats.base import Runner, Source, Written, operator_calls, operator_name
from mofa_compiler.formats.bisecting import culprit
from mofa_compiler.formats.pt2 import Pt2
from mofa_compiler.formats.torch_export import trace
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.numerics.running import run


class Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(x).mean((2, 3), keepdim=True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), Squash()])

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for block in self.blocks:
            y = block(y)
        return x + F.softplus(self.last(y))


class Failing(Pt2):
    """PT2, but for one operator: it fails at `stage`."""

    operator: ClassVar[str] = ""
    stage: ClassVar[str] = ""
    written: ClassVar[int] = 0

    def write(self, source: Source, file: Path) -> Written:
        type(self).written += 1
        assert source.program is not None
        self.meets = any(operator_name(node) == self.operator for node in operator_calls(source.program.graph))
        if self.meets and self.stage == "write":
            raise RuntimeError("not in this engine")
        return super().write(source, file)

    def open(self, file: Path) -> Runner:
        if self.meets and self.stage == "load":
            raise RuntimeError("not in this engine")
        inner = super().open(file)

        def run(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
            outputs = list(inner(inputs))
            if self.meets and self.stage == "run":
                raise RuntimeError("not in this engine")
            return [x * 1.01 for x in outputs] if self.meets and self.stage == "value" else outputs

        return run


CALL = CallSpec((torch.rand(1, 3, 16, 16),))


@pytest.mark.parametrize("stage", ["write", "load", "run", "value"])
@pytest.mark.parametrize(
    ("operator", "path", "kind"),
    [("tanh", "blocks.1", "Squash"), ("softplus", "", "Net"), ("relu", "blocks.0.1", "ReLU")],
)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.sample(4)
def test_the_first_operator_that_fails_is_named(
    stage: str, operator: str, path: str, kind: str, dynamic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    format_ = type("Failing", (Failing,), {"operator": operator, "stage": stage, "written": 0})()
    monkeypatch.setattr("mofa_compiler.export.exporting.find", lambda _: format_)
    with pytest.raises(ExportError) as caught:
        export(Net().eval(), "pt2", tmp_path / "net.pt2", dynamic=dynamic, inputs=CALL)
    assert caught.value.layer == path
    assert kind in str(caught.value) and f"its {operator}" in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert format_.written <= 8  # halving, of 9 operators, and what was written before


def test_what_fails_only_as_a_whole_has_no_culprit() -> None:
    network = Net().eval()
    source = Source(network, CALL, trace(network, CALL.args))
    assert culprit(Pt2(), source, [CALL], "run") is None


def test_without_time_a_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofa_compiler.formats.bisecting._SECONDS", 0.0)
    network = Net().eval()
    source = Source(network, CALL, trace(network, CALL.args))
    format_ = type("Failing", (Failing,), {"operator": "tanh", "stage": "run"})()
    found = culprit(format_, source, [CALL], "run")
    assert found is not None and found.path == "first" and "softplus" not in found.operator
    assert "up to add.Tensor of Net's own forward" in str(found)


class Grouped(nn.Module):
    """XNNPACK's fusion fails on it (pytorch#180995)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 8, 2, stride=2), nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2, bias=False)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.norm(self.up(self.first(x))))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.slow
def test_a_normalization_that_the_exporter_cannot_merge_is_merged_before(tmp_path: Path, dynamic: bool) -> None:
    done = export(Grouped().eval(), "executorch", tmp_path / "net.pte", dynamic=dynamic, inputs=CALL)
    assert done.notes[0].startswith("normalizations were merged")
    assert not any("batch_norm" in kind for kind, _ in done.operators)


def test_merging_is_exact_and_leaves_the_network_alone() -> None:
    network = Grouped().eval()
    merged = merged_norms(network, CALL)
    assert merged is not None and not any(isinstance(one, nn.BatchNorm2d) for one in merged.modules())
    torch.testing.assert_close(run(merged, CALL), run(network, CALL))
    assert isinstance(network.norm, nn.BatchNorm2d)
    assert merged_norms(Net().eval(), CALL) is None


class Thumbnail(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(x, size=(1, 1), mode="bilinear", align_corners=False)


def test_openvino_takes_the_middle_of_an_image_that_becomes_a_pixel(tmp_path: Path) -> None:
    assert export(Thumbnail().eval(), "openvino", tmp_path / "net.xml", inputs=CALL).relative_error < 1e-5
