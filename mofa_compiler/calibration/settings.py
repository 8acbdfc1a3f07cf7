"""What a calibration is done with: example inputs, and which steps are taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..data import CalibrationImages, Sample
from ..data.calibration import HELD_OUT
from ..graph.call_spec import CallSpec, tensor_leaves

SHOWN = 3
"""How many images a result keeps for people to look at"""


@dataclass(frozen=True)
class Calibration:
    """Example inputs, and what is done with them.

    Attributes:
        batches: an iterable of input tensors, or of tuples, lists or dicts of arguments.
        order: whether the channels that matter most are moved to where they are convolved.
        fit: whether layers are fitted in closed form.
        tuning: steps of gradient descent on the whole network afterwards, one image each, and before on every block,
            where the output is far from the original's; 0 for none.
    """

    batches: Iterable[Any]
    order: bool = True
    fit: bool = True
    tuning: int = 200

    @property
    def description(self) -> dict[str, Any]:
        """Plain data for reports: where the inputs come from, and the settings."""
        source = getattr(self.batches, "description", None)
        given = dict(source) if isinstance(source, Mapping) else {"source": "given"}
        return {**given, "order": self.order, "fit": self.fit, "tuning": self.tuning}

    def more(self) -> Calibration | None:
        """The same with more inputs, where further ones can be drawn; else None."""
        more = self.batches.more() if isinstance(self.batches, CalibrationImages) else None
        return None if more is None else replace(self, batches=more)

    def samples(self, evaluation: Sequence[CallSpec]) -> list[Sample]:
        """Images for people to look at: further ones like those of the inputs, or else some of `evaluation`."""
        if isinstance(self.batches, CalibrationImages):
            return self.batches.samples(SHOWN)
        first = [list(tensor_leaves((call.args, dict(call.kwargs)))) for call in evaluation[:SHOWN]]
        images = [leaves[0][0] for leaves in first if len(leaves) == 1 and leaves[0].dim() == 4]
        return [Sample(f"input {index}", image.float(), source=HELD_OUT) for index, image in enumerate(images, 1)]
