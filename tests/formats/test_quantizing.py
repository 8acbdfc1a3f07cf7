"""What stays in float of what is quantized, and the inputs that tell the ranges."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mofa_compiler.base.errors import CalibrationError
from mofa_compiler.formats.base import Quantization
from mofa_compiler.formats.quantizing import EXAMPLES, examples, under_roots
from tests.raising import raising


def test_variances_are_what_goes_into_roots_from_the_squares_on() -> None:
    graph = nx.DiGraph(["conv.0 sub.0", "mean.0 sub.0", "conv.0 mean.0"][i].split() for i in range(3))
    nx.add_path(graph, ["sub.0", "pow.0", "mean.1", "add.0", "sqrt.0", "div.0", "add.1"])
    graph.add_edge("sub.0", "div.0")
    found = under_roots(graph.nodes, lambda name: name.partition(".")[0], lambda name: [*graph.predecessors(name)])
    assert found == {"pow.0", "mean.1", "add.0"}


def test_layers_within_one_that_stays_stay() -> None:
    quantization = Quantization([], ("body.norm",))
    assert [quantization.stays(path) for path in ("body.norm", "body.norm.mean", "body.norm2", "body", None)] == [
        *(True, True, False, False, False)
    ]


class Two(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x + t[:, None, None, None]


@given(
    st.integers(1, 5),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 2),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_images_are_put_together_of_crops(
    number: int, side: tuple[int, int], batch: int, wanted: tuple[int, int]
) -> None:
    crops = torch.rand(number, 3, *side)
    found = examples(nn.Identity(), [crops], [torch.empty(batch, 3, *wanted)])
    assert 1 <= len(found) <= EXAMPLES
    for (image,) in found:
        assert image.shape == (batch, 3, *wanted)
        assert set(image.flatten().tolist()) <= set(crops.flatten().tolist())
    (first,), height, width = found[0], min(side[0], wanted[0]), min(side[1], wanted[1])
    assert torch.equal(first[0, :, :height, :width], crops[0, :, :height, :width])


def test_other_inputs_are_taken_row_by_row() -> None:
    batch = torch.rand(3, 1, 4, 4), torch.arange(3.0)
    found = examples(Two(), [batch], [torch.empty(1, 1, 4, 4), torch.empty(1)])
    assert [float(t) for _, t in found] == [0, 1, 2]


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 8)])
def test_inputs_of_another_kind(shape: tuple[int, ...]) -> None:
    with raising(CalibrationError, "wrong-input", "x".join(map(str, shape))):
        examples(nn.Identity(), [torch.rand(2, 3, 8, 8)], [torch.empty(shape)])
