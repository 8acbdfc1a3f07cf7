"""Rehearsals: passes carried out on a network and fitted shortly, one list of passes after another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, fx

from ..analysis.channels import Channels
from ..analysis.hidden import Hidden, hidden_channels
from ..analysis.network import Network
from ..numerics.running import evaluating
from ..weights import ChannelMoments
from .batches import gather
from .calibrate import in_new_order
from .candidate import Candidate
from .hidden_ranks import moments_of, ranks
from .ordering import channel_orders
from .sensitivity import sensitivities
from .settings import Calibration
from .watching import watch


class Rehearsal:
    """A network and inputs, on which passes are tried.

    What a calibration does is done but for what takes long: channels are chosen, and the layers alone that passes
    replace are fitted in closed form, without a comparison after each step. A context manager: inputs that do not fit
    into memory lie in files until it is left.

    Args:
        original: the network.
        calibration: the inputs; no layer is tuned.

    Raises:
        CalibrationError: there are no inputs, or the network does not take them.
    """

    def __init__(self, original: Network, calibration: Calibration):
        self._original, self._calibration, self._stack = original, calibration, ExitStack()
        self._channels = Channels(original.program)
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mofa-rehearsal-")))
        self._stack.enter_context(evaluating(original.program.graph_module))
        like = next((t for t in original.program.state().values() if t.is_floating_point()), torch.empty(0))
        self._batches = gather(calibration.batches, original, self._folder, like, original.program.inputs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def watch(self, names: Collection[str], told: Callable[[str, Sequence[Any]], None]) -> None:
        """What these nodes of the network read on the inputs (see `mofa_compiler.rewriting.Watch`)."""
        watch(self._original, self._batches, names, told, lambda *_: None)

    def fitted(self, carry_out: Callable[[Network], Sequence[Network]]) -> Network:
        """What passes make of the network: `carry_out` returns what it is after each."""
        start, made, orders = self._original, carry_out(self._original), {}
        if self._calibration.order:
            hidden = ranks(start, made[-1], self._batches, self._moments)
            orders = channel_orders(self._channels, start, made[-1], self._batches, hidden.kept, lambda: self._felt)
            if orders or hidden.kept:
                start = in_new_order(start, self._channels, orders, hidden)
                made = carry_out(start)
        if not self._calibration.fit:
            return made[-1]
        before, after = start.program.modules, made[-1].program.modules
        replaced = {path for path, module in after.items() if before.get(path) is not module}
        with ExitStack() as stack:
            stack.enter_context(self._batches.threads())
            stack.enter_context(evaluating(start.program.graph_module))
            candidate = Candidate(start, made, made[-1], orders).changed(stack)
            return candidate.fitted(self._batches, self._folder, lambda *_: None, only=replaced).final

    @cached_property
    def _moments(self) -> Mapping[fx.Node, ChannelMoments]:
        """Of all hidden channels: measured once, whichever of them passes take away."""
        found = [one for one in hidden_channels(self._original).values() if isinstance(one, Hidden)]
        return moments_of(self._original, found, self._batches)

    @cached_property
    def _felt(self) -> Mapping[fx.Node, Tensor]:
        return sensitivities(self._original, self._batches)
