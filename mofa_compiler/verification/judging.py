"""Every pass of a result judged: the networks run one after the other on the same inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import VerificationError, one_line
from ..inputs import CallSpec, map_tree, specs
from .figures import Figures
from .running import Basis, rounding, run, values
from .verdict import Verdict

if TYPE_CHECKING:
    from ..compiler import Progress, Result


def judge(
    result: Result, inputs: Iterable[Any] | None = None, name: str = "given input", progress: Progress | None = None
) -> tuple[Verdict, ...]:
    """A verdict on every pass.

    Args:
        result: what `apply` returned.
        inputs: batches, tensors or tuples of arguments, of which one is held at a time; by default the result's
            evaluation inputs, without them its example input.
        name: what a reader calls them, in the singular.
        progress: told about every network that is run.

    Raises:
        VerificationError: there are no inputs, or a network does not take them.
    """
    tell = progress or (lambda *_: None)
    diffs = result.diffs
    calls: Iterable[CallSpec]
    if inputs is not None:
        calls = (as_call(batch) for batch in inputs)
    elif result.evaluation is not None:
        calls, name = result.evaluation, "evaluation input"
    else:
        calls, name = [result.example], "example input"
    steps = [Figures() for _ in diffs]
    totals = [Figures() for _ in diffs]
    basis = Basis(name)
    for given in calls:
        call = _fitting(given, result)
        outputs = _outputs(result, call, tell)
        first = previous = next(outputs)
        for step, total, output in zip(steps, totals, outputs, strict=True):
            step.add(previous, output)
            total.add(first, output)
            previous = output
        basis.add(call)
    if not basis.calls:
        raise VerificationError(f"there is no {name} to compare outputs on")
    tell("done", len(result.networks), len(result.networks))
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
            measured_on=str(basis),
        )
        for diff, step, total in zip(diffs, steps, totals, strict=True)
    )


def as_call(inputs: Any) -> CallSpec:
    """One batch as a call: a tensor, a tuple or list of arguments, keyword arguments by name, or a call already."""
    if isinstance(inputs, CallSpec):
        return inputs
    if isinstance(inputs, Mapping):
        return CallSpec((), dict(inputs))
    return CallSpec(tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,))


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
            name = network.program.name
            try:
                output = values(name, run(network.program.graph_module, call))
            except (RuntimeError, ValueError, TypeError) as error:
                raise VerificationError(
                    f"{name} ({step}) does not take an input of shape {specs(call)}: {one_line(error)}"
                ) from error
        yield output
