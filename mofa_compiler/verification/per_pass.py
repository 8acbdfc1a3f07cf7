"""Every step of a rewrite judged: the networks run one after the other on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import VerificationError, one_line
from ..base.progress import Progress
from ..graph.call_spec import CallSpec, InputSpec, map_tree, specs, tensor_leaves
from ..numerics.error_sums import Figures
from ..numerics.finite import first_not_finite, not_finite
from ..numerics.running import Basis, rounding, run, run_saved, values
from ..result.rewrite import Rewrite
from ..result.verdict import Verdict, WholeCheck
from .whole import check_whole, claims_exact


@dataclass(frozen=True)
class Measured:
    """How far networks' outputs are apart on the same inputs.

    Attributes:
        steps: of each pass, against the network before it.
        totals: of each pass, against the original.
        shipped: of one more network, against the original.
        measured_on: the inputs, as a reader calls them.
        not_finite: a sentence on the original, where its own output is not finite, so that nothing can be compared.
    """

    steps: tuple[Figures, ...]
    totals: tuple[Figures, ...]
    shipped: Figures
    measured_on: str
    not_finite: str = ""


def judge(
    rewrite: Rewrite,
    inputs: Iterable[Any] | None = None,
    name: str = "given input",
    progress: Progress | None = None,
) -> tuple[Verdict, ...]:
    """A verdict on every step; arguments as for `measure`."""
    return verdicts(rewrite, measure(rewrite, inputs, name, progress), progress)


def measure(
    rewrite: Rewrite,
    inputs: Iterable[Any] | None = None,
    name: str = "given input",
    progress: Progress | None = None,
    shipped: nn.Module | None = None,
) -> Measured:
    """Run the original, the network after each pass, and one more if there is one, on the same inputs.

    Args:
        rewrite: what was done.
        inputs: batches, tensors or tuples of arguments, of which one is held at a time; by default the rewrite's
            evaluation inputs, without them its example input.
        name: what a reader calls one of them, perhaps with where they come from in parentheses.
        progress: told about every network that is run.
        shipped: takes what the original takes.

    Raises:
        VerificationError: there are no inputs, or a network does not take them.
    """
    tell = progress or (lambda *_: None)
    given = inputs is not None
    if inputs is None:
        inputs, name = rewrite.evaluation, "held-out input"
    if inputs is None:
        inputs, name = [rewrite.example], f"{'random ' if _is_generated(rewrite.example) else ''}example input"
    steps = tuple(Figures() for _ in rewrite.diffs)
    totals = tuple(Figures() for _ in rewrite.diffs)
    beside = Figures()
    basis = Basis(name)
    blame = ""
    for index, batch in enumerate(inputs):
        call = _fitting(as_call(batch), rewrite)
        if given and not _is_finite(tensor_leaves([*call.args, *call.kwargs.values()])):
            raise VerificationError(f"{name} {index} holds NaN or infinite values: leave it out", code="not-finite")
        outputs = _outputs(rewrite, call, tell)
        first = previous = next(outputs)
        if not blame and not _is_finite([first]):
            blame = first_not_finite(rewrite.original, call) or rewrite.original.program.name
        for step, total, output in zip(steps, totals, outputs, strict=True):
            step.add(previous, output)
            total.add(first, output)
            previous = output
        if shipped is not None:
            beside.add(first, _taken(shipped, call, "the saved network", run_saved))
        basis.add(call)
    if not basis.calls:
        raise VerificationError(f"there is no {name} to compare outputs on", code="no-data")
    tell("done", len(rewrite.networks), len(rewrite.networks))
    comparable = all(figures.is_comparable for figures in (*totals, beside))
    where = not_finite(rewrite.original.program.name, f"the {basis}", blame) if blame and not comparable else ""
    return Measured(steps, totals, beside, str(basis), where)


def verdicts(rewrite: Rewrite, measured: Measured, progress: Progress | None = None) -> tuple[Verdict, ...]:
    """Figures and checks of exactness put together; checks that the rewrite has already depend on no inputs, and stay.

    Args:
        rewrite: what was done.
        measured: how far each pass moved the output.
        progress: told about every check in float64.
    """
    tell = progress or (lambda *_: None)
    known = rewrite.verdicts
    checks = [verdict.whole for verdict in known] if known is not None else list(_whole_checks(rewrite, tell))
    tolerance = rounding(rewrite.original.program)
    return tuple(
        Verdict(
            pass_name=diff.pass_name,
            exact=diff.exact,
            tolerance=tolerance,
            relative_error=step.relative_error,
            accumulated=total.relative_error,
            psnr=total.psnr(total.peak),
            step_psnr=step.psnr(total.peak),
            measured_on=measured.measured_on,
            layers=max((edit.error for edit in diff.edits if edit.error is not None), default=None),
            whole=whole,
            not_finite=measured.not_finite,
        )
        for diff, step, total, whole in zip(rewrite.diffs, measured.steps, measured.totals, checks, strict=True)
    )


def as_call(inputs: Any) -> CallSpec:
    """One batch as a call: a tensor, a tuple or list of arguments, keyword arguments by name, or a call already."""
    if isinstance(inputs, CallSpec):
        return inputs
    if isinstance(inputs, Mapping):
        return CallSpec((), dict(inputs))
    return CallSpec(tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,))


def _is_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _is_generated(call: CallSpec) -> bool:
    """Whether the example inputs are those that we make for want of others, which say little."""
    tensors = list(tensor_leaves([*call.args, *call.kwargs.values()]))
    return bool(tensors) and all(
        torch.equal(t.cpu(), InputSpec(tuple(t.shape), t.dtype).example(seed=index)) for index, t in enumerate(tensors)
    )


def _whole_checks(rewrite: Rewrite, tell: Progress) -> Iterator[WholeCheck | None]:
    """The whole network in float64, for each pass that claims to be exact and did something."""
    for index, diff in enumerate(rewrite.diffs):
        if not claims_exact(diff):
            yield None
            continue
        tell(f"checking {diff.pass_name} in float64", index + 1, len(rewrite.networks))
        yield check_whole(rewrite.networks[index], rewrite.networks[index + 1], diff, rewrite.example)


def _fitting(call: CallSpec, rewrite: Rewrite) -> CallSpec:
    """The call where the network is, and in the precision that it was captured with, where there is only one."""
    device = rewrite.original.program.device
    dtypes = {spec.dtype for spec in rewrite.inputs if spec.dtype.is_floating_point}
    dtype = dtypes.pop() if len(dtypes) == 1 else None

    def fit(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, fit)
    return CallSpec(args, kwargs)


def _outputs(rewrite: Rewrite, call: CallSpec, tell: Progress) -> Iterator[Tensor]:
    """What the original returns, and then the network after each pass."""
    output = None
    number = len(rewrite.networks)
    for index, network in enumerate(rewrite.networks):
        step = rewrite.diffs[index - 1].pass_name if index else "original"
        tell(f"running {step}", index, number)
        if output is None or rewrite.diffs[index - 1].edits:
            output = _taken(network.program.graph_module, call, f"{network.program.name} ({step})")
        yield output


def _taken(module: nn.Module, call: CallSpec, name: str, running: Callable[[nn.Module, CallSpec], Any] = run) -> Tensor:
    """What a network returns, flattened; what it raises, as an error that names it."""
    try:
        return values(name, running(module, call))
    except (RuntimeError, ValueError, TypeError) as error:
        raise VerificationError(
            f"{name} does not take an input of shape {specs(call)}: {one_line(error)}", code="wrong-input"
        ) from error
