"""Features: where stages end in both graphs, and networks that return what is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from architectures import PMRID, NAFNet
from mofa_compiler import Result, Roadmap, apply
from mofa_compiler.distillation.features import Tapped, stage_ends
from tests.distillation.small import SIZE, network, rewritten


def tapped(result: Result) -> tuple[Tapped, Tapped]:
    """The original and the rewritten network."""
    ends = stage_ends(result.original, result.rewritten)
    graphs = result.original.program.graph, result.rewritten.program.graph
    original = Tapped(result.original.program.graph_module, graphs[0], [end.original for end in ends])
    return original, Tapped(result.model, graphs[1], [end.rewritten for end in ends])


@pytest.mark.parametrize(
    ("make", "channels"),
    [(lambda: network(depth=2), 3), (lambda: NAFNet(width=8), 3), (lambda: PMRID(channels=4), 4)],
    ids=["unet", "nafnet", "pmrid"],
)
@pytest.mark.sample(1)
def test_every_stage_but_the_output_has_features_of_the_same_shape(make: Any, channels: int) -> None:
    model, x = make().eval(), torch.rand(1, channels, 32, 32)
    result = apply(model, "mofa", x)
    stages = [stage.name for stage in result.original.anatomy.stages]
    found = [end.stage for end in stage_ends(result.original, result.rewritten)]
    assert found in (stages, stages[:-1])
    original, student = tapped(result)
    (theirs,), wanted = original(x)
    (ours,), features = student(x)
    assert torch.equal(ours, result.model(x)) and torch.equal(theirs, model(x))
    assert [f.shape for f in features] == [f.shape for f in wanted]


def test_without_edits_features_are_equal() -> None:
    x = torch.rand(2, 3, SIZE, SIZE)
    one, other = (network(x)[1] for network in tapped(apply(network(depth=2), Roadmap([]), x)))
    assert len(one) == 5 and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_features_are_what_the_stages_last_modules_return() -> None:
    model, x = network(depth=2), torch.rand(1, 3, SIZE, SIZE)
    original, _ = tapped(rewritten(model))
    seen: list[Tensor] = []
    for path in ("inc", "downs.0", "downs.1", "ups.0", "ups.1"):
        model.get_submodule(path).register_forward_hook(lambda _module, _args, output: seen.append(output))
    model(x)
    assert all(torch.equal(*pair) for pair in zip(original(x)[1], seen, strict=True))


def test_a_tapped_network_shares_its_parameters() -> None:
    result = rewritten(network())
    _, student = tapped(result)
    assert {id(p) for p in student.parameters()} == {id(p) for p in result.model.parameters()}


class Several(nn.Module):
    """Returns two images and a number, in a dict and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> dict[str, Any]:
        image = self.body(x)
        return {"image": image, "half": [image[..., ::2, ::2]], "index": torch.zeros(1, dtype=torch.long)}


def test_outputs_are_the_floating_point_tensors_in_what_is_returned() -> None:
    _, student = tapped(apply(Several().eval(), "mofa", torch.rand(1, 3, SIZE, SIZE)))
    outputs, features = student(torch.rand(2, 3, SIZE, SIZE))
    assert [tuple(output.shape) for output in outputs] == [(2, 3, SIZE, SIZE), (2, 3, SIZE // 2, SIZE // 2)]
    assert features
