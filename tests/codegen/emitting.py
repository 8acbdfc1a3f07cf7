"""Source of a model, and what it builds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.codegen.source import emit
from tests.emitted import run


def round_trip(model: nn.Module, *inputs: Tensor) -> tuple[str, nn.Module]:
    """Source of `model` and what it builds, after checking keys and outputs."""
    inputs = inputs or (torch.rand(2, 4, 8, 12),)
    model.eval()
    program = capture(model, inputs)
    source = emit(program, program.graph_module)
    assert source == emit(program, program.graph_module), "emitting is not deterministic"
    built = run(source).eval()
    state = program.graph_module.state_dict()
    built.load_state_dict({key: tensor.clone() for key, tensor in state.items()}, assign=True)
    with torch.no_grad():
        expected, got = (network(*(x.clone() for x in inputs)) for network in (model, built))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert set(built.state_dict()) == set(state)
    return source, built


def body(source: str, name: str) -> str:
    """The text of one class."""
    return next(part for part in source.split("\n\n\n") if part.startswith(f"class {name}("))


class Residual(nn.Module):
    def __init__(self, channels: int, inner: nn.Module | None = None):
        super().__init__()
        self.conv = inner or nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) * self.scale
