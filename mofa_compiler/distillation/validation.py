"""Validation: PSNR of examples that nothing is trained on, shared by all processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..graph.call_spec import tensor_leaves
from ..numerics.psnr import psnrs, range_of
from .batches import Batch, Stream
from .features import Tapped

if TYPE_CHECKING:
    from accelerate import Accelerator


class Validation:
    """PSNR of a network's first output against the ground truth or, where it is unknown, the original's output.

    Args:
        examples: to validate on.
        original: as `Tapped`.
        accelerator: every process takes a share of the examples, `rows` at a time.
        dtype: precision of the networks.
    """

    def __init__(
        self, examples: Stream, original: Tapped, accelerator: Accelerator, rows: int, dtype: torch.dtype
    ) -> None:
        self.examples, self.original, self.accelerator = examples, original, accelerator
        self.rows, self.dtype = rows, dtype
        self.peak = self._peak()

    @torch.no_grad()
    def psnr(self, model: nn.Module | None) -> float:
        """Mean over the examples in dB, the same in every process; of the original for None."""
        if model is not None:
            model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in self._batches(self.accelerator.process_index, self.accelerator.num_processes):
            wanted = self._original(batch) if model is None or not batch.targets else None
            output = wanted if model is None else next(tensor_leaves(model(*batch.args, **batch.kwargs)))
            truth = batch.targets[0] if batch.targets else wanted
            assert output is not None and truth is not None
            values = psnrs(output.cpu(), truth.cpu(), batch.levels, self.peak)  # not every device has float64
            sums += torch.stack([values.sum(), values.new_tensor(float(len(values)))])
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums.to(self.accelerator.device), "sum")
        total, count = sums.tolist()
        return float(total / count)

    @torch.no_grad()
    def _peak(self) -> float:
        """Of all examples, so that it is the same in every process; 1 where they know black and white."""
        images = []
        for batch in self._batches(0, 1):
            if batch.levels is not None and batch.targets:
                return 1.0
            images.append(batch.targets[0] if batch.targets else self._original(batch))
        return range_of(images)

    def _original(self, batch: Batch) -> Tensor:
        output: Tensor = self.original(*batch.args, **batch.kwargs)[0][0]
        return output

    def _batches(self, share: int, shares: int) -> Iterator[Batch]:
        """Every `shares`-th example, from number `share` on."""
        mine = range(share, self.examples.length, shares)
        for start in range(0, len(mine), self.rows):
            batch = self.examples.batch(mine[start : start + self.rows])
            moved = batch.to(self.accelerator.device, self.dtype)
            # Black and white are brought back on the CPU.
            yield Batch(moved.args, moved.kwargs, moved.targets, batch.levels)
