from __future__ import annotations

import pytest
import torch
from torch import nn

from architectures import PMRID, NAFNet
from mofa_compiler.base.errors import RoadmapError
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.passes import NarrowPortion, PConvToPDWConv, RestoreKernels, SepConvToPConv, WidenPortion
from mofa_compiler.rewriting.engine import rewrite
from mofa_compiler.rewriting.roadmap import Roadmap
from tests.raising import raising
from tests.rewrites import assert_rewrites, chain, network, output

SIZE = (2, 8, 40, 48)


def scattered(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def smooth() -> torch.Tensor:
    """An input with the correlation that the closed forms assume."""
    torch.manual_seed(1)
    rows, columns = (0.7 ** (torch.arange(n)[:, None] - torch.arange(n)).abs().double() for n in SIZE[2:])
    white = torch.randn(SIZE, dtype=torch.float64)
    return torch.linalg.cholesky(rows) @ white @ torch.linalg.cholesky(columns).T


def error(before, after) -> float:
    """Of the network behind an input convolution, relative."""
    x = smooth()
    expected = output(before, x)
    return float((output(after, x) - expected).norm() / expected.norm())


def test_by_path():
    model = chain(PConv2d(8, 4), nn.Conv2d(8, 8, 1), PConv2d(8, 8, 5, bias=True))
    _, diff = assert_rewrites(
        NarrowPortion(where=("1", "3*")),
        model,
        after={"1": "PConv2d(8, k3, portion=1/4)", "3": "PConv2d(8, k5, bias, portion=1/4)"},
        skips={},
    )
    assert not diff.exact
    assert [(edit.path, edit.fate) for edit in diff.edits] == [
        ("1", "inherited"),
        ("2", "compensated"),
        ("3", "inherited"),
    ]


def test_default_is_where_widening_does_not_pay():
    before, _ = rewrite(network(PMRID(), 1, 3, 256, 256), SepConvToPConv(portion="1/2"))
    widened = {edit.path for edit in rewrite(before, WidenPortion(portion=1))[1].edits}  # type: ignore[arg-type]
    _, diff = rewrite(before, NarrowPortion())
    narrowed = {edit.path for edit in diff.rewritten}
    assert narrowed
    assert not narrowed & widened
    assert {path.partition(".")[0] for path in narrowed} == {"enc1", "enc2", "enc4", "out0"}
    assert "enc1.0.conv2.depthwise" in narrowed, "the transition into a stage that costs much"
    skips = {skip.path: skip for skip in diff.skips}
    for path, named in {"enc3.1.conv1.depthwise": "encoder 3", "dec3.decode_conv.conv0.depthwise": "decoder 3"}.items():
        assert skips[path].code == "place" and skips[path].reason.startswith(named)


def test_widening_is_undone():
    """The channels that widening added start as identity: without them, the network is what it was."""
    before, _ = rewrite(network(NAFNet(width=8).double(), 1, 3, 32, 32), SepConvToPConv())
    wide, _ = rewrite(before, WidenPortion(where=("*",)))
    after, diff = rewrite(wide, NarrowPortion(where=("*",)))
    assert len(diff.rewritten) == 7
    assert diff.after.parameters == before.totals.parameters
    x = torch.rand(1, 3, 24, 40, dtype=torch.float64)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_the_pointwise_layer_takes_up_what_was_mixed(bias: bool):
    """That is nearer than to leave the pointwise layer as it is."""
    model = scattered(chain(PConv2d(8, 4, bias=bias), nn.Conv2d(8, 6, 1, bias=False))).double()
    before = network(model, *SIZE)
    after, diff = rewrite(before, NarrowPortion(where=("1",)))
    kept = before.program.modules["1"].conv.weight[:2, :2]
    assert torch.equal(after.program.modules["1"].conv.weight, kept)
    assert (after.program.modules["2"].bias is not None) == bias
    with torch.no_grad():
        plain = PConv2d(8, 2, bias=bias).double()
        plain.conv.weight.copy_(kept)
        if bias:
            plain.conv.bias.copy_(model[1].conv.bias[:2])
        model[1] = plain
    assert error(before, after) < 0.9 * error(before, network(model, *SIZE))
    assert diff.edits[0].note == ""


def test_no_other_pointwise_layer_is_nearer():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), PConv2d(8, 4), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 1))
    with torch.no_grad():
        for end in (model[0], model[3]):
            end.weight.copy_(torch.eye(len(end.weight))[:, :, None, None])
            end.bias.zero_()
    scattered(model[1])
    before = network(model.double(), *SIZE)
    after, _ = rewrite(before, NarrowPortion(where=("1",)))
    best = error(before, after)
    for index in range(8):
        for step in (-0.3, 0.3):
            other, _ = rewrite(before, NarrowPortion(where=("1",)))
            with torch.no_grad():
                other.program.modules["2"].weight[:, index] += step
            assert error(before, other) > best


def test_restored_channels_keep_what_they_stand_for():
    """A separable convolution, partial, wide, restored and narrow again, can be made what it was once more."""
    model = scattered(chain(nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 8, 1))).double()
    original = network(model, *SIZE)
    everywhere = ("*",)
    found = original
    for pass_ in Roadmap(
        [
            SepConvToPConv(portion="1/2", kinds=("depthwise",)),
            RestoreKernels(),
            NarrowPortion(where=everywhere),
        ]
    ):
        found, _ = rewrite(found, pass_)
    assert 1e-3 < error(original, found) < 1
    wide, _ = rewrite(found, WidenPortion(where=everywhere, portion=1))  # type: ignore[arg-type]
    restored, _ = rewrite(wide, RestoreKernels())
    assert error(original, restored) < 1e-9


def test_already_narrow():
    assert_rewrites(NarrowPortion(where=("1",)), chain(PConv2d(8, 2)), after={}, skips={"1": "done"})


def test_no_centre():
    partial = PConv2d(8, 4, 4, dilation=2)
    assert_rewrites(NarrowPortion(where=("1",)), chain(partial), after={}, skips={"1": "kernel"})


def test_no_unet_has_no_stages_elsewhere():
    before = network(chain(PConv2d(8, 4), nn.Conv2d(8, 8, 1)))
    _, diff = rewrite(before, NarrowPortion())
    assert not diff.edits
    assert [skip.code for skip in diff.skips] == ["no-unet"]


def test_unknown_stage_names_the_nearest():
    with raising(RoadmapError, "unknown-name", "narrow-portion", "elsewere", "'elsewhere'"):
        rewrite(network(NAFNet(width=8), 1, 3, 64, 64), NarrowPortion(where=("elsewere",)))


def test_widening_knows_no_elsewhere():
    with raising(RoadmapError, "unknown-name", "widen-portion", "elsewhere"):
        rewrite(network(NAFNet(width=8), 1, 3, 64, 64), WidenPortion(where=("elsewhere",)))


def test_comes_before_what_depends_on_the_portion():
    with raising(RoadmapError, "order", "pconv-to-pdwconv", "narrow-portion"):
        Roadmap([PConvToPDWConv(), NarrowPortion()])


def test_subclass_is_refused():
    class Own(PConv2d):
        pass

    assert_rewrites(NarrowPortion(where=("1",)), chain(Own(8, 4)), after={}, skips={"1": "subclass"})
