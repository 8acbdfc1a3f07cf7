"""A rewritten network tuned as a whole, by gradient, to return what the original returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from ..base.torch_state import kept_buffers, own_randomness
from ..graph.call_spec import tensor_leaves
from ..numerics.running import evaluating, run
from .batches import Batches
from .lockstep import Shelf
from .orthogonal import SMALLEST_SIDE, Orthogonal

LEARNING_RATE = 2.5e-3
"""Of Adam at its highest, in units of a parameter's root mean square"""

TURNING_RATE = 1.5e-3
"""The same for kernels, whose steps are orthogonal matrices of that root mean square"""

WARMING_UP = 0.1
"""Share of the steps in which the learning rate rises"""

LOOKS = 8
"""How often the held-out images are looked at"""

ASTRAY = 4.0
"""By which factor the held-out squared error may be above the best while the steps are large"""

Tell = Callable[[str, int, int], None]


def tune(
    original: nn.Module,
    rewritten: nn.Module,
    parameters: Sequence[nn.Parameter],
    fitting: Batches,
    held_out: Batches,
    folder: Path,
    steps: int,
    tell: Tell,
) -> None:
    """Change parameters of the rewritten network so that its output comes near the original's.

    A step is taken on one image, at a rate that rises and falls (one cycle). The parameters that did best on what was
    held out are kept, those of the start if none did better; where steps lead away for good it ends early.
    """
    single = fitting.one_by_one()
    with evaluating(rewritten), kept_buffers(rewritten), _trained(rewritten, parameters):
        shelf = Shelf(folder)
        loss = _Loss(original, rewritten, single, shelf, "fitted")
        judged = _Loss(original, rewritten, held_out, shelf, "held out")
        optimizers = list(_optimizers(parameters, steps))
        start = best = judged.total()
        kept = [parameter.detach().clone() for parameter in parameters]
        order, generator, behind = list[int](), torch.Generator().manual_seed(0), 0
        for step in range(1, steps + 1):
            tell("tuning", step - 1, steps)
            order = order or torch.randperm(len(single), generator=generator).tolist()
            _step(loss.of(order.pop()), optimizers)
            if step % math.ceil(steps / LOOKS) and step < steps:
                continue
            error = judged.total()
            if error < best:
                best, behind = error, 0
                kept = [parameter.detach().clone() for parameter in parameters]
            elif step > steps / 2:
                behind += 1
            if behind > 1 or not error < ASTRAY * start:
                break
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


class _Loss:
    """The squared error of the outputs on some calls, each tensor's relative to its mean energy over all of them."""

    def __init__(self, original: nn.Module, rewritten: nn.Module, calls: Batches, shelf: Shelf, name: str):
        self._rewritten, self._calls, self._shelf, self._name = rewritten, calls, shelf, name
        energies: list[float] = []
        for index, call in enumerate(calls):
            wanted = _outputs(run(original, call))
            shelf[index, name] = wanted
            new = [float(tensor.double().square().sum()) for tensor in wanted]
            energies = [a + b for a, b in zip(energies, new, strict=True)] if energies else new
        self._scales = [len(calls) / energy if energy else 0.0 for energy in energies]

    def of(self, index: int) -> Tensor:
        """Of one call."""
        call = self._calls[index]
        with own_randomness(seed=0):
            got = _outputs(self._rewritten(*call.args, **call.kwargs))
        pairs = zip(got, self._shelf[index, self._name], self._scales, strict=True)
        return sum(((one - wanted).square().sum() * scale for one, wanted, scale in pairs), torch.zeros(()))

    def total(self) -> float:
        """The mean over all calls."""
        with torch.no_grad():
            return sum(float(self.of(index)) for index in range(len(self._calls))) / len(self._calls)


def _outputs(value: Any) -> list[Tensor]:
    """The real tensors in what a network returned, in float32."""
    leaves = (torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in tensor_leaves(value))
    return [leaf.float() for leaf in leaves if leaf.is_floating_point()]


@contextmanager
def _trained(module: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """These alone have gradients, and afterwards those that had, and none of them any."""
    needed = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        for parameter in needed:
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter, was in needed.items():
            parameter.grad = None
            parameter.requires_grad_(was)


def _optimizers(parameters: Sequence[nn.Parameter], steps: int) -> Iterator[tuple[Optimizer, LRScheduler]]:
    """Of kernels that are matrices, and of the other parameters, each with its cycle."""
    kernels = [p for p in parameters if p.dim() > 1 and min(p.flatten(1).shape) >= SMALLEST_SIDE]
    others = [p for p in parameters if all(p is not kernel for kernel in kernels)]
    total = max(steps, 4) + 1
    for kind, some, rate in ((Orthogonal, kernels, TURNING_RATE), (torch.optim.Adam, others, LEARNING_RATE)):
        if some:
            rates = [rate * max(float(p.detach().float().square().mean().sqrt()), 1e-8) for p in some]
            optimizer = kind([{"params": [p], "lr": one} for p, one in zip(some, rates, strict=True)])
            rising = max(WARMING_UP, 2 / total)  # torch divides by one step less
            yield optimizer, OneCycleLR(optimizer, rates, total, pct_start=rising, cycle_momentum=False)


def _step(loss: Tensor, optimizers: Sequence[tuple[Optimizer, LRScheduler]]) -> None:
    """One step downwards, unless there is no way or the loss is no number."""
    usable = loss.requires_grad and bool(torch.isfinite(loss))
    if usable:
        loss.backward()  # type: ignore[no-untyped-call]
    for optimizer, schedule in optimizers:
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
