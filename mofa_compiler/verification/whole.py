"""The whole network before and after a pass that claims to be exact, in float64 and at two input sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..analysis.network import Network
from ..base.errors import one_line
from ..graph.call_spec import CallSpec, specs, tensor_leaves
from ..graph.node_names import describe, path_of
from ..numerics.equivalence import EXACT_TOLERANCE
from ..numerics.interpreting import Interpreted
from ..numerics.running import rounding, rounding_of
from ..numerics.sizes import another_size
from ..result.verdict import AtSize, WholeCheck
from ..rewriting.diff import Diff
from ..rewriting.fate import Fate
from ..rewriting.layer_surgery import origin

_SAMPLES = 65536
"""How many values of a node's are kept to compare, so that memory does not grow with the depth"""


def claims_exact(diff: Diff) -> bool:
    """Whether every layer that a pass put in place is said to compute what the old one did, neighbours adjusted."""
    put = [edit for edit in diff.edits if edit.fate is not Fate.REMOVED and (edit.exact or edit in diff.rewritten)]
    return bool(put) and all(edit.exact for edit in put)


def check_whole(before: Network, after: Network, diff: Diff, example: CallSpec) -> WholeCheck:
    """Compare the networks before and after a pass on the example input and at another size.

    Only one copy is held at a time. A network that cannot run in float64 is compared in its own precision.
    """
    reference = _Reference.of(before, example)
    twin = Interpreted(after, double=reference.double)
    errors: list[float] = []
    departs = ""
    for call, expected in reference.outputs:
        try:
            errors.append(_difference(expected, twin.outputs(call)))
        except Exception as error:  # whatever a network raises where the one before the pass did not
            errors.append(math.inf)
            departs = f"{describe(twin.node) if twin.node else after.program.name} ({one_line(error)})"
    lowest = max((reference.lowest, twin.lowest), key=lambda dtype: torch.finfo(dtype).eps)
    notes = [reference.note]
    tolerance = EXACT_TOLERANCE
    if lowest != torch.float64:
        tolerance = rounding_of(lowest)
        name = str(lowest).removeprefix("torch.")
        where = reference.lowered or twin.lowered
        notes.append(f"{where} computes in {name}" if reference.double else "")
    if any(edit.fate in (Fate.COMPENSATED, Fate.MERGED) for edit in diff.edits):
        tolerance = max(tolerance, rounding(before.program))
        notes.append("adjusted weights are rounded to the model's precision")
    failed = [call for (call, _), error in zip(reference.outputs, errors, strict=True) if not error <= tolerance]
    if failed and not departs:
        del twin
        departs = _first_departure(before, after, failed[-1], tolerance, double=reference.double)
    return WholeCheck(
        sizes=tuple(
            AtSize(str(specs(call)), error) for (call, _), error in zip(reference.outputs, errors, strict=True)
        ),
        tolerance=tolerance,
        precision=str(lowest).removeprefix("torch."),
        note="; ".join(filter(None, notes)),
        departs=departs,
    )


@dataclass(frozen=True)
class _Reference:
    """What the network before a pass returns, by input."""

    outputs: tuple[tuple[CallSpec, Tensor], ...]
    double: bool
    lowest: torch.dtype
    lowered: str
    note: str

    @classmethod
    def of(cls, network: Network, example: CallSpec) -> _Reference:
        note = ""
        try:
            twin = Interpreted(network, double=True)
            outputs = [(example, twin.outputs(example))]
        except Exception as error:  # whatever a network raises that was not made for float64
            note = f"cannot run in float64 ({one_line(error)})"
            twin = Interpreted(network, double=False)
            outputs = [(example, twin.outputs(example))]
        other, output, reason = another_size(network, example, twin.outputs)
        if other is not None and output is not None:
            outputs.append((other, output))
        else:
            note = "; ".join(filter(None, (note, f"checked at one size only, as it takes no other ({reason})")))
        return cls(tuple(outputs), twin.double, twin.lowest, twin.lowered, note)


def _difference(expected: Tensor, got: Tensor) -> float:
    """Largest difference, relative to the largest expected value; what is not finite has to be so in both."""
    if expected.shape != got.shape or not torch.equal(expected.isfinite(), got.isfinite()):
        return math.inf
    if not expected.numel():
        return 0.0
    expected, got = (t.double().nan_to_num(0, 0, 0) for t in (expected, got))
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float((expected - got).abs().max() / scale)


def _first_departure(before: Network, after: Network, call: CallSpec, tolerance: float, *, double: bool) -> str:
    """The first node after a pass whose value is another than that of the node before it that it stands for."""
    kept: dict[str, Tensor] = {}

    def keep(node: fx.Node, value: Any) -> None:
        if (name := origin(node)) is not None:
            kept[name] = _sample(value)

    Interpreted(before, double=double).outputs(call, keep)

    def compare(node: fx.Node, value: Any) -> None:
        expected = kept.get(origin(node) or "")
        if expected is not None and not _difference(expected, _sample(value)) <= tolerance:
            raise _DepartureError(node)

    try:
        Interpreted(after, double=double).outputs(call, compare)
    except _DepartureError as departed:
        return _place(departed.node, after)
    return ""


class _DepartureError(Exception):
    """Ends a run at the node where values depart."""

    def __init__(self, node: fx.Node):
        super().__init__(node)
        self.node = node


def _place(node: fx.Node, network: Network) -> str:
    path = str(node.target) if node.op == "call_module" else path_of(node)
    stage = network.anatomy.stage_of(path)
    return f"{describe(node)}{f' ({stage.name})' if stage else ''}"


def _sample(value: Any) -> Tensor:
    """Values of what a node returns: all, or as many as are kept, at random places, and the mean of all."""
    parts = []
    for leaf in tensor_leaves(value):
        flat = (torch.view_as_real(leaf) if leaf.is_complex() else leaf).detach().flatten().double()
        if flat.numel() > _SAMPLES:
            places = torch.randint(flat.numel(), (_SAMPLES,), generator=torch.Generator().manual_seed(0))
            flat = torch.cat([flat[places.to(flat.device)], flat.mean().view(1)])
        parts.append(flat.cpu().clone())
    return torch.cat(parts) if parts else torch.empty(0)
