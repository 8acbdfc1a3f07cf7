from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from architectures import NAFNet
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.base.errors import RoadmapError
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.passes import PConvToPDWConv, RestoreKernels, SepConvToPConv, WidenPortion
from mofa_compiler.rewriting.engine import rewrite
from mofa_compiler.rewriting.pass_api import Pass
from tests.raising import raising
from tests.rewrites import assert_rewrites, chain, network, output


def test_by_path():
    model = chain(PConv2d(8, 2), nn.Conv2d(8, 8, 1), PConv2d(8, 2, 5, bias=True))
    _, diff = assert_rewrites(
        WidenPortion(where=("1", "3*")),
        model,
        after={"1": "PConv2d(8, k3, portion=1/2)", "3": "PConv2d(8, k5, bias, portion=1/2)"},
        skips={},
    )
    assert diff.exact
    assert all(edit.error is not None and edit.error < 1e-9 for edit in diff.edits)


def test_named_stage_and_reasons():
    before, _ = rewrite(network(NAFNet(width=8), 1, 3, 64, 64), SepConvToPConv())
    after, diff = rewrite(before, WidenPortion(where=("encoder 3", "middle")))
    assert {edit.path for edit in diff.edits} == {"encoders.2.0.conv2", "decoders.0.0.conv2"}
    skip = next(skip for skip in diff.skips if skip.path == "middle_blks.0.conv2")
    assert skip.code == "place" and "bottleneck" in skip.reason and "encoder 3 and decoder 1" in skip.reason
    x = torch.rand(1, 3, 48, 80)
    torch.testing.assert_close(output(after, x), output(before, x))


def test_already_wide():
    assert_rewrites(WidenPortion(where=("1",)), chain(PConv2d(8, 6)), after={}, skips={"1": "done"})


def test_unknown_stage_names_the_nearest():
    with raising(RoadmapError, "unknown-name", "encodr 3", "'encoder 3'"):
        rewrite(network(NAFNet(width=8), 1, 3, 64, 64), WidenPortion(where=("encodr 3",)))


@pytest.mark.parametrize("where", ["middle", "cheap", ("middle", "cheap")])
def test_no_unet_has_no_cheap_or_middle_stage(where: str | tuple[str, ...]):
    model = chain(PConv2d(8, 2), nn.Conv2d(8, 8, 1))
    before = network(model)
    _, diff = rewrite(before, WidenPortion(where=where))
    assert not diff.edits
    assert [skip.code for skip in diff.skips] == ["no-unet"]


@pytest.mark.parametrize("pass_", [WidenPortion(where=("1",)), RestoreKernels(), PConvToPDWConv(threshold=0)])
def test_subclass_is_refused(pass_: Pass):
    class Own(PConv2d):
        pass

    assert_rewrites(pass_, chain(Own(8, 2)), after={}, skips={"1": "subclass"})


def test_wider_portions_are_tried_in_the_place_of_dense_convolutions_under_a_bound():
    model = chain(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1))
    after, _ = rewrite(network(model), SepConvToPConv())
    (dense, separable), given = (after.layers[path] for path in ("1.pconv", "2")), WidenPortion()

    def portions(layer: Layer, bounded: bool) -> list[Fraction]:
        return [one.portion for one in given.alternatives(layer, after, bounded=bounded)]

    assert portions(dense, True) == [Fraction(1, 2), Fraction(3, 4)]
    assert portions(dense, False) == portions(separable, True) == [Fraction(1, 2)]
