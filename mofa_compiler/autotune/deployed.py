"""Networks as the target's engine computes them, in its precision: what they are worth there, what stays in float."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor, nn

from ..analysis.network import Network
from ..base.progress import Progress
from ..formats.quantizing import examples
from ..graph.call_spec import CallSpec, tensors_by_position
from ..numerics.fake_quantized import in_eight_bits, quantizable
from ..result.quality import Bound, Quality
from ..runtime import Compiled, Engine
from .held_out import HeldOut, surely

SAFE = 0.8
"""Part of the bound that layers in eight bits may take by the losses of each"""


@dataclass(frozen=True)
class Deployed:
    """A network on an engine.

    Attributes:
        engine: the one that compiles it, with what is quantized and what is not.
        quality: what it is worth as that computes it.
        error: what it adds to the original's, and a standard error.
        bound: on that.
    """

    engine: Engine
    quality: Quality
    error: float
    bound: Bound

    @property
    def holds(self) -> bool:
        """Whether it is within the bound."""
        return self.error <= self.bound.allowed

    @property
    def floating(self) -> tuple[str, ...]:
        """Layers that stay in float."""
        return self.engine.quantization.floating if self.engine.quantization else ()


class Deployment:
    """Judges networks by what an engine computes in another precision than theirs.

    Args:
        engine: in that precision.
        threads: that it may use.
        network: the original, at the size of what is judged on.
        held_out: what is judged on; what is fitted to tells the ranges.
        inputs: of the shapes that networks are timed on.
        tell: told before every step.

    Raises:
        CalibrationError: in int8, no input that is fitted to has those shapes or can be put together to have them.
    """

    def __init__(
        self,
        engine: Engine,
        threads: int,
        network: Network,
        held_out: HeldOut,
        inputs: Sequence[Tensor],
        tell: Progress,
    ):
        self.network = network
        self._engine, self._threads, self._held_out, self._inputs, self._tell = engine, threads, held_out, inputs, tell
        self._examples: dict[tuple[tuple[int, ...], ...], list[tuple[Tensor, ...]]] = {}

    def left(self, bound: Bound) -> Bound:
        """What the precision alone leaves of a bound: half of it at least, for layers can stay in float."""
        lost = self._tried(self.network, (), bound).error
        return Bound(bound.measure, bound.value([max(bound.allowed - lost, bound.allowed / 2)]))

    def settled(self, network: Network, bound: Bound) -> Deployed:
        """A network with about as few layers in float as the bound allows; with none where no number is enough.

        Layers go back to float in the order of what the output loses by each alone. How many is first taken from these
        losses, as if they added up to what all cost together; then there are twice as many, and so on.

        Raises:
            EngineError: the engine does not take the network.
        """
        all_of_it = self._tried(network, (), bound)
        if all_of_it.holds or self._engine.precision != "int8":
            return all_of_it
        losses = self._losses(network)
        ranked, number = sorted(losses, key=lambda path: -losses[path]), 0
        left = [math.fsum(losses[path] for path in ranked[start:]) for start in range(len(ranked) + 1)]
        share = SAFE * bound.allowed / all_of_it.error
        while number < len(ranked):
            enough = next(start for start, rest in enumerate(left) if rest <= share * left[0])
            number = min(max(enough, 2 * number, 1), len(ranked))
            tried = self._tried(network, ranked[:number], bound)
            if tried.holds:
                return tried
        return all_of_it

    def engine_for(self, module: nn.Module, floating: Sequence[str] = ()) -> Engine:
        """The engine that compiles a network for the inputs that it is timed on."""
        return self._for(module, self._inputs, floating)

    def quality(self, module: nn.Module, floating: Sequence[str] = ()) -> Quality:
        """What a network is worth as the engine computes it."""
        return self._judged(module, floating, None)[0]

    def _tried(self, network: Network, floating: Sequence[str], bound: Bound) -> Deployed:
        module = network.program.graph_module
        quality, errors = self._judged(module, floating, bound)
        return Deployed(self.engine_for(module, floating), quality, surely(errors), bound)

    def _judged(
        self, module: nn.Module, floating: Sequence[str], bound: Bound | None
    ) -> tuple[Quality, Sequence[float]]:
        self._tell(f"judging in {self._engine.precision}, {len(floating)} layers in float", 0, 1)
        given = tensors_by_position(module, self._held_out.calls[0])
        compiled = self._for(module, given, floating).compile(module, given, self._threads)
        return self._held_out.judged(_OnEngine(module, compiled), bound=bound)

    def _for(self, module: nn.Module, inputs: Sequence[Tensor], floating: Sequence[str]) -> Engine:
        """The engine, to compile a network for these inputs."""
        if self._engine.precision != "int8":
            return self._engine
        shapes = tuple(tuple(x.shape) for x in inputs)
        if shapes not in self._examples:
            self._examples[shapes] = examples(module, self._held_out.calibration.batches, inputs)
        return self._engine.calibrated(self._examples[shapes], floating)

    def _losses(self, network: Network) -> dict[str, float]:
        """What the quantization of each layer alone costs, simulated."""
        module = copy.deepcopy(network.program.graph_module)
        losses = {}
        paths = quantizable(module)
        for index, path in enumerate(paths):
            self._tell(f"quantizing {path} alone", index, len(paths))
            with in_eight_bits(module, path):
                losses[path] = max(fmean(self._held_out.errors(module, few=True)), 0.0)
        return losses


class _OnEngine(nn.Module):
    """What was compiled, as a module that is called as the network is."""

    def __init__(self, network: nn.Module, compiled: Compiled):
        super().__init__()
        self._call, self._compiled = [network], compiled  # in a list: its weights are none of this one's

    def forward(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        (network,) = self._call
        return self._compiled.outputs(tensors_by_position(network, CallSpec(args, kwargs)))
