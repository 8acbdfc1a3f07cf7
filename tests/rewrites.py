"""Before and after as layer signatures, the way passes are tested."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler import Result, Roadmap, apply, load
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.layers import signature
from mofa_compiler.analysis.network import Network
from mofa_compiler.frontend import capture
from mofa_compiler.frontend.state import copied
from mofa_compiler.rewriting.diff import Diff
from mofa_compiler.rewriting.engine import rewrite
from mofa_compiler.rewriting.pass_api import Pass

WHOLE: dict[str, Callable[[], nn.Module]] = {
    "pmrid": lambda: PMRID(),
    "nafnet": lambda: NAFNet(width=8),
    "unet": lambda: UNet(width=4, depth=2),
    "unet-bilinear": lambda: UNet(width=4, depth=2, bilinear=True),
}
"""Whole networks, small, for what holds for every pass"""


def tiny(width: int = 8) -> NAFNet:
    """A NAFNet of two levels, one block each."""
    return NAFNet(width=width, enc_blk_nums=(1,), dec_blk_nums=(1,))


class Net(nn.Module):
    """A small net whose forward is given."""

    def __init__(self, forward: Any, **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.steps = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self, x)


def network(model: nn.Module, *shape: int) -> Network:
    """A captured model on a (1, C, H, W) input, (1, 8, 32, 32) unless told."""
    dtype = next(model.parameters()).dtype
    program = capture(model, torch.rand(shape or (1, 8, 32, 32), dtype=dtype))
    return Network(program, infer(program))


def signatures(network: Network) -> dict[str, str]:
    """Every module that the graph calls, by path."""
    modules = network.program.modules
    called = [str(node.target) for node in network.program.graph.nodes if node.op == "call_module"]
    return {path: signature(modules[path]) for path in called}


def assert_rewrites(
    pass_: Pass,
    model: nn.Module,
    after: Mapping[str, str | None],
    skips: Mapping[str, str] | None = None,
    shape: tuple[int, ...] = (),
) -> tuple[Network, Diff]:
    """Carry out one pass and compare what stands there with `after`; None for what has to be gone.

    Whatever `after` does not name has to stay as it was. `skips` are the codes of what was left alone.
    """
    before = network(model, *shape)
    was = signatures(before)
    rewritten, diff = rewrite(before, pass_)
    assert signatures(before) == was, "the input program was modified"
    expected = {path: text for path, text in {**was, **after}.items() if text is not None}
    assert signatures(rewritten) == expected
    if skips is not None:
        assert {skip.path: skip.code for skip in diff.skips} == dict(skips)
    return rewritten, diff


def assert_sound(model: nn.Module, roadmap: str | Roadmap, *inputs: torch.Tensor, folder: Path | None = None) -> Result:
    """Carry out a roadmap and check what has to hold whatever it did; the first input is the example.

    With a folder, the rewritten network also comes back from a bundle and from torch.compile as it was.
    """
    result = apply(model, roadmap, inputs[0])
    original, rewritten = copied(model).eval(), copy.deepcopy(result.model).eval()
    others = []
    if folder is not None:
        result.save(folder)
        others = [torch.compile(copy.deepcopy(rewritten), backend="eager"), load(folder).eval()]
    for x in inputs:
        with torch.no_grad():
            expected, got = original(x), rewritten(x)
            assert got.shape == expected.shape
            assert got.isfinite().all()
            assert all(torch.equal(module(x), got) for module in others)
    for diff, verdict in zip(result.diffs, result.verdicts, strict=True):
        assert verdict.holds
        assert diff.after.parameters - diff.before.parameters == sum(edit.parameters for edit in diff.edits)
        assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits)
    without = [_without_gradient(module, inputs[0]) for module in (original, rewritten)]
    assert without[1] <= without[0]
    return result


def _without_gradient(module: nn.Module, x: torch.Tensor) -> set[str]:
    module.train()(x).square().mean().backward()
    return {name for name, parameter in module.named_parameters() if parameter.grad is None}


def output(network: Network, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = network.program.graph_module.eval()(x)
    return result


def chain(*layers: nn.Module, channels: int = 8) -> nn.Sequential:
    """Layers between an input and an output convolution, which passes leave alone."""
    last = next((m for m in reversed(layers) if hasattr(m, "out_channels")), None)
    end = last.out_channels if last is not None else channels
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), *layers, nn.Conv2d(end, channels, 3, padding=1))


def assert_lowers(
    pass_: Pass,
    model: nn.Module,
    after: Mapping[str, str | None],
    skips: Mapping[str, str] | None = None,
    shape: tuple[int, ...] = (1, 8, 12, 10),
) -> tuple[Network, Diff]:
    """`assert_rewrites`, in float64 and with random weights, and the outputs are the same at two sizes."""
    model = scattered(model).double()
    rewritten, diff = assert_rewrites(pass_, model, after, {} if skips is None else skips, shape)
    assert all(edit.error is not None and edit.error < 1e-9 for edit in diff.edits if edit.fate != "removed")
    assert_same_outputs(model, rewritten, shape)
    return rewritten, diff


def assert_same_outputs(model: nn.Module, rewritten: Network, shape: tuple[int, ...]) -> None:
    """Outputs agree in float64 at this shape and at a larger, odd one."""
    for size in (shape, (2, shape[1], shape[2] + 5, shape[3] + 3)):
        x = torch.randn(size, dtype=torch.float64)
        with torch.no_grad():
            expected = model.eval()(x.clone())
        got = output(rewritten, x)
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-9 * expected.abs().max()


def scattered(model: nn.Module) -> nn.Module:
    """The model with weights and running statistics that are neither zero nor one, in eval mode."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.copy_(torch.randn_like(tensor) / 3 + 0.1)
    return model.eval()
