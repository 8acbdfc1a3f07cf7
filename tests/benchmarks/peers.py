"""What one would take instead of a rewrite: structured pruning, a compiler, an optimizer of ONNX graphs.

None of them is needed by this project: `pip install torch-pruning onnxslim`, the extra `peers`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
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
    """Torch-Pruning's structured magnitude pruning (L2), uniform over the layers, nearest to `target` MACs.

    Returns:
        The network, and the layers before a pixel shuffle, which had to be left alone.

    Raises:
        UnmetError: no pruning ratio gives a network that runs, for this reason.
    """
    import torch_pruning

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
    small = x[..., :64, :64]
    found: dict[int, nn.Module] = {}
    failure = ""
    for step in range(1, STEPS):
        module = copy.deepcopy(original)
        try:
            with quiet():
                torch_pruning.pruner.MetaPruner(
                    module,
                    small,
                    importance=torch_pruning.importance.MagnitudeImportance(p=2),
                    pruning_ratio=step / STEPS,
                    ignored_layers=[module.get_submodule(path) for path in (*shuffled, called[-1])],
                    round_to=MULTIPLE,
                ).step()
                with torch.no_grad():
                    module(small)
                found.setdefault(macs(module, x), module)
        except Exception as error:
            failure = one_line(error)
    if not found:
        raise UnmetError(f"no pruning ratio gives a network that runs: {failure}")
    return found[min(found, key=lambda count: abs(count - target))], shuffled
