"""What one would take instead of a rewrite: structured pruning, a compiler, an optimizer of ONNX graphs.

None of them is needed by this project: `pip install torch-pruning onnxslim`, the extra `peers`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.base.errors import one_line
from mofa_compiler.base.words import quantity
from mofa_compiler.runtime import Compiled, Engine, engine
from mofa_compiler.runtime.quiet import quiet

from .variants import macs

PRUNED = "Torch-Pruning to our MACs"
INDUCTOR = "Inductor on the original"
SLIMMED = "onnxslim on the original"
STEPS = 32
"""How many pruning ratios are tried to meet the MACs"""
MULTIPLE = 4
"""Channels are pruned to multiples of this: other widths would be slow for no reason of the method's"""
RATE = 1e-3
"""At which a pruned network begins to learn"""


@dataclass(frozen=True)
class Context:
    """What a peer starts from.

    Attributes:
        engine: where it has to run.
        threads: that it may use.
        original: the network as it was, in eval mode.
        x: the input that it is timed on.
        macs: of the original; `ours`: of our network, None where there is none.
    """

    engine: Engine
    threads: int
    original: nn.Module
    x: Tensor
    macs: int
    ours: int | None


@dataclass(frozen=True)
class Peer:
    """A peer's network as the engine runs it, or why there is none; `note` says what the table cannot."""

    name: str
    compiled: Compiled | None = None
    note: str = ""
    problem: str = ""


def peers(context: Context) -> list[Peer]:
    """All that can be had on this engine. What is not installed or fails is there with its reason."""
    known: dict[str, tuple[str | None, Callable[[Context], tuple[Compiled, str]]]] = {PRUNED: ("torch-pruning", _prune)}
    if context.engine.name in ("eager", "channels-last"):
        known[INDUCTOR] = (None, _inductor)
    if context.engine.name == "onnxruntime":
        known[SLIMMED] = ("onnxslim", _slim)
    return [_tried(name, package, make, context) for name, (package, make) in known.items()]


def _tried(name: str, package: str | None, make: Callable[[Context], tuple[Compiled, str]], context: Context) -> Peer:
    if package and find_spec(package.replace("-", "_")) is None:
        return Peer(name, problem=f"not installed: pip install {package}")
    try:
        compiled, note = make(context)
    except Exception as error:  # another project's code may raise anything; it is reported
        return Peer(name, problem=str(error) if isinstance(error, UnmetError) else one_line(error))
    return Peer(name, compiled, note)


class UnmetError(Exception):
    """A peer has nothing to do here; the message says why."""


def _inductor(context: Context) -> tuple[Compiled, str]:
    return engine("inductor").compile(context.original, [context.x], context.threads), ""


def _slim(context: Context) -> tuple[Compiled, str]:
    import onnx
    import onnxslim

    packed = context.engine.pack(context.original, [context.x])
    with quiet():
        slimmed = onnxslim.slim(onnx.load_from_string(packed))
    counts = [len(model.graph.node) for model in (onnx.load_from_string(packed), slimmed)]
    compiled = context.engine.load(slimmed.SerializeToString(), [context.x], context.threads)
    return compiled, f"{counts[0]} nodes became {counts[1]}, before ONNX Runtime's own optimization of both"


def _prune(context: Context) -> tuple[Compiled, str]:
    if context.ours is None:
        raise UnmetError("there is no network of ours to match")
    if context.ours > 0.98 * context.macs:
        raise UnmetError(
            f"nothing to prune: our network has {quantity(context.ours)} MACs, the original {quantity(context.macs)}"
        )
    module, left_alone = pruned(context.original, context.x, context.ours)
    note = f"{quantity(macs(module, context.x))} MACs, ours {quantity(context.ours)}"
    if left_alone:
        note += f"; with {', '.join(left_alone)} left alone, in front of a pixel shuffle, which it cannot prune through"
    return context.engine.compile(module, [context.x], context.threads), note


def pruned(original: nn.Module, x: Tensor, target: int) -> tuple[nn.Module, list[str]]:
    """Torch-Pruning's network nearest to `target` MACs, see `pruned_by`.

    Returns:
        The network, and the layers before a pixel shuffle, which had to be left alone.

    Raises:
        UnmetError: no pruning ratio gives a network that runs, for this reason.
    """
    kept = unprunable(original, x)
    found: dict[int, nn.Module] = {}
    failure = ""
    for step in range(1, STEPS):
        try:
            module = pruned_by(original, x, step / STEPS, kept)
        except UnmetError as error:
            failure = str(error)
        else:
            found.setdefault(macs(module, x), module)
    if not found:
        raise UnmetError(f"no pruning ratio gives a network that runs: {failure}")
    return found[min(found, key=lambda count: abs(count - target))], kept[:-1]


def pruned_by(original: nn.Module, x: Tensor, ratio: float, kept: Sequence[str]) -> nn.Module:
    """Torch-Pruning's structured magnitude pruning (L2), uniform over the layers but for those of `unprunable`.

    Raises:
        UnmetError: it does not prune the network by this ratio to one that runs, for this reason.
    """
    import torch_pruning

    small, module = x[..., :64, :64], copy.deepcopy(original)
    try:
        with quiet():
            torch_pruning.pruner.MetaPruner(
                module,
                small,
                importance=torch_pruning.importance.MagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=[module.get_submodule(path) for path in kept],
                round_to=MULTIPLE,
            ).step()
            with torch.no_grad():
                module(small)
    except Exception as error:  # another project's code may raise anything; it is reported
        raise UnmetError(one_line(error)) from error
    return module


def unprunable(original: nn.Module, x: Tensor) -> list[str]:
    """Convolutions before a pixel shuffle, which it cannot prune through, and the last one, which makes the output."""
    program = capture(original, x)
    convolutions = [path for path, module in original.named_modules() if isinstance(module, nn.Conv2d)]
    called = [str(node.target) for node in program.graph.nodes if str(node.target) in convolutions]
    shuffled = [
        str(source.target)
        for node in program.graph.nodes
        if node.op == "call_module" and isinstance(program.modules[str(node.target)], nn.PixelShuffle)
        for source in node.all_input_nodes
        if str(source.target) in convolutions
    ]
    return [*shuffled, called[-1]]


def distilled(student: nn.Module, teacher: nn.Module, batches: Sequence[Tensor], seconds: float) -> int:
    """Train a network to return what its teacher does (MSE of the output) for so many CPU seconds.

    Adam with a cosine schedule over that time; it is in eval mode meanwhile. Returns the number of steps.
    """
    with torch.no_grad():
        wanted = [teacher(batch) for batch in batches]
    optimizer, steps, begun = torch.optim.Adam(student.parameters(), RATE), 0, time.process_time()
    order = torch.Generator().manual_seed(0)
    while (spent := (time.process_time() - begun) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * spent)) / 2
        index = int(torch.randint(len(batches), (1,), generator=order))
        optimizer.zero_grad()
        nn.functional.mse_loss(student(batches[index]), wanted[index]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
    return steps
