"""Every pass of a result judged: the networks run one after the other on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..base.errors import VerificationError, one_line
from ..graph.call_spec import CallSpec, InputSpec, map_tree, specs, tensor_leaves
from ..numerics.error_sums import Figures
from ..numerics.finite import first_not_finite, not_finite
from ..numerics.running import Basis, rounding, run, run_saved, values
from ..result.verdict import Verdict, WholeCheck
from .whole import check_whole, claims_exact

if TYPE_CHECKING:
    from ..base.progress import Progress
    from ..compiler import Result


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
    result: Result,
    inputs: Iterable[Any] | None = None,
    name: str = "given input",
    progress: Progress | None = None,
    known: Sequence[Verdict] | None = None,
) -> tuple[Verdict, ...]:
    """A verdict on every pass; arguments as for `measure` and `verdicts`."""
    return verdicts(result, measure(result, inputs, name, progress), progress, known)


def measure(
    result: Result,
    inputs: Iterable[Any] | None = None,
    name: str = "given input",
    progress: Progress | None = None,
    shipped: nn.Module | None = None,
) -> Measured:
    """Run the original, the network after each pass, and one more if there is one, on the same inputs.

    Args:
        result: what `apply` returned.
        inputs: batches, tensors or tuples of arguments, of which one is held at a time; by default the result's
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
        inputs, name = result.evaluation, "calibration input"
    if inputs is None:
        inputs, name = [result.example], f"{'generated ' if _is_generated(result.example) else ''}example input"
    steps = tuple(Figures() for _ in result.diffs)
    totals = tuple(Figures() for _ in result.diffs)
    beside = Figures()
    basis = Basis(name)
    blame = ""
    for index, batch in enumerate(inputs):
        call = _fitting(as_call(batch), result)
        if given and not _is_finite(tensor_leaves([*call.args, *call.kwargs.values()])):
            raise VerificationError(f"{name} {index} holds NaN or infinite values: leave it out", code="not-finite")
        outputs = _outputs(result, call, tell)
        first = previous = next(outputs)
        if not blame and not _is_finite([first]):
            blame = first_not_finite(result.original, call) or result.original.program.name
        for step, total, output in zip(steps, totals, outputs, strict=True):
            step.add(previous, output)
            total.add(first, output)
            previous = output
        if shipped is not None:
            beside.add(first, _taken(shipped, call, "the saved network", run_saved))
        basis.add(call)
    if not basis.calls:
        raise VerificationError(f"there is no {name} to compare outputs on", code="no-data")
    tell("done", len(result.networks), len(result.networks))
    comparable = all(figures.is_comparable for figures in (*totals, beside))
    where = not_finite(result.original.program.name, f"the {basis}", blame) if blame and not comparable else ""
    return Measured(steps, totals, beside, str(basis), where)


def verdicts(
    result: Result, measured: Measured, progress: Progress | None = None, known: Sequence[Verdict] | None = None
) -> tuple[Verdict, ...]:
    """Figures and checks of exactness put together.

    Args:
        result: what `apply` returned.
        measured: how far each pass moved the output.
        progress: told about every check in float64.
        known: an earlier answer, whose checks of exactness are not repeated: they depend on no inputs.
    """
    tell = progress or (lambda *_: None)
    checks = [verdict.whole for verdict in known] if known else list(_whole_checks(result, tell))
    tolerance = rounding(result.original.program)
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
        for diff, step, total, whole in zip(result.diffs, measured.steps, measured.totals, checks, strict=True)
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


def _whole_checks(result: Result, tell: Progress) -> Iterator[WholeCheck | None]:
    """The whole network in float64, for each pass that claims to be exact and did something."""
    for index, diff in enumerate(result.diffs):
        if not claims_exact(diff):
            yield None
            continue
        tell(f"checking {diff.pass_name} in float64", index + 1, len(result.networks))
        yield check_whole(result.networks[index], result.networks[index + 1], diff, result.example)


def _fitting(call: CallSpec, result: Result) -> CallSpec:
    """The call where the network is, and in the precision that it was captured with, where there is only one."""
    device = result.original.program.device
    dtypes = {spec.dtype for spec in result.inputs if spec.dtype.is_floating_point}
    dtype = dtypes.pop() if len(dtypes) == 1 else None

    def fit(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, fit)
    return CallSpec(args, kwargs)


def _outputs(result: Result, call: CallSpec, tell: Progress) -> Iterator[Tensor]:
    """What the original returns, and then the network after each pass."""
    output = None
    number = len(result.networks)
    for index, network in enumerate(result.networks):
        step = result.diffs[index - 1].pass_name if index else "original"
        tell(f"running {step}", index, number)
        if output is None or result.diffs[index - 1].edits:
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
