"""What comes of frozen weights alone is frozen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply
from mofa_compiler.graph.frozen import freeze
from mofa_compiler.passes import LowerPConv, MergeLinear, PointwiseFirst, SepConvToPConv
from mofa_compiler.rewriting.pass_api import Pass


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.depth, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.mix, self.act = nn.Conv2d(8, 8, 1), nn.ReLU()
        self.wide, self.narrow = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1)
        self.back = nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.mix(self.norm(self.depth(self.stem(x)))))
        return x + self.head(self.back(self.act(self.narrow(self.wide(y)))))  # type: ignore[no-any-return]


def trained(passes: list[Pass], *frozen: str) -> dict[str, bool]:
    torch.manual_seed(0)
    net = Net().eval()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not any(name.startswith(path) for path in frozen))
    result = apply(net, passes, torch.rand(1, 3, 16, 16))
    assert any(diff.edits for diff in result.diffs)
    return {name: parameter.requires_grad for name, parameter in result.model.named_parameters()}


def test_weights_and_biases_each_for_themselves() -> None:
    found = trained([SepConvToPConv()], "depth.weight")
    assert not found["depth.conv.weight"]
    assert found["depth.conv.bias"]
    assert found["mix.weight"]


def test_a_neighbour_that_takes_something_up_stays_as_it_was() -> None:
    found = trained([SepConvToPConv()], "mix", "norm")
    assert not any(found[name] for name in found if name.startswith(("mix", "norm")))
    assert found["depth.conv.weight"]


@pytest.mark.parametrize(("frozen", "still"), [(["wide", "narrow"], True), (["wide"], False), (["narrow"], False)])
def test_what_two_layers_become_is_frozen_if_both_were(frozen: list[str], still: bool) -> None:
    found = trained([PointwiseFirst()], *frozen)
    new = {name: needed for name, needed in found.items() if name.startswith("wide.")}
    assert new
    assert set(new.values()) == {not still}


@pytest.mark.parametrize(("frozen", "still"), [(["depth", "norm"], True), (["norm"], False), (["depth"], False)])
def test_what_is_folded_has_a_say(frozen: list[str], still: bool) -> None:
    found = trained([MergeLinear()], *frozen)
    assert "norm.weight" not in found
    assert found["depth.weight"] is not still
    assert found["depth.bias"] is not still


def test_forms_of_partial_convolutions() -> None:
    passes = [SepConvToPConv(), LowerPConv(form="merged")]
    found = trained(passes, "wide", "narrow", "depth")
    assert not any(needed for name, needed in found.items() if name.startswith(("wide", "narrow")))
    assert found["stem.weight"]


def test_nothing_to_go_by_leaves_all_as_it_is() -> None:
    new = nn.Conv2d(3, 4, 1)
    freeze(new, [])
    assert new.weight.requires_grad
    freeze(new, [("weight", torch.ones(1))])
    assert not new.weight.requires_grad
    assert not new.bias.requires_grad  # type: ignore[union-attr]
