"""Every pass of a result judged: the networks run one after the other on the same inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import VerificationError, one_line
from ..inputs import CallSpec, InputSpec, map_tree, specs, tensor_leaves
from .figures import Figures
from .running import Basis, rounding, run, values
from .verdict import Verdict, WholeCheck
from .whole import check_whole, claims_exact

if TYPE_CHECKING:
    from ..compiler import Progress, Result


def judge(
    result: Result,
    inputs: Iterable[Any] | None = None,
    name: str = "given input",
    progress: Progress | None = None,
    known: Sequence[Verdict] | None = None,
) -> tuple[Verdict, ...]:
    """A verdict on every pass.

    Args:
        result: what `apply` returned.
        inputs: batches, tensors or tuples of arguments, of which one is held at a time; by default the result's
            evaluation inputs, without them its example input.
        name: what a reader calls them, in the singular.
        progress: told about every network that is run.
        known: an earlier answer, whose checks of exactness are not repeated: they depend on no inputs.

    Raises:
        VerificationError: there are no inputs, or a network does not take them.
    """
    tell = progress or (lambda *_: None)
    diffs = result.diffs
    if inputs is None:
        inputs, name = result.evaluation, "evaluation input"
    if inputs is None:
        inputs, name = [result.example], f"{'generated ' if _is_generated(result.example) else ''}example input"
    steps = [Figures() for _ in diffs]
    totals = [Figures() for _ in diffs]
    basis = Basis(name)
    for batch in inputs:
        call = _fitting(as_call(batch), result)
        outputs = _outputs(result, call, tell)
        first = previous = next(outputs)
        for step, total, output in zip(steps, totals, outputs, strict=True):
            step.add(previous, output)
            total.add(first, output)
            previous = output
        basis.add(call)
    if not basis.calls:
        raise VerificationError(f"there is no {name} to compare outputs on")
    checks = [verdict.whole for verdict in known] if known else list(_whole_checks(result, tell))
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
            layers=max((edit.error for edit in diff.edits if edit.error is not None), default=None),
            whole=whole,
        )
        for diff, step, total, whole in zip(diffs, steps, totals, checks, strict=True)
    )


def as_call(inputs: Any) -> CallSpec:
    """One batch as a call: a tensor, a tuple or list of arguments, keyword arguments by name, or a call already."""
    if isinstance(inputs, CallSpec):
        return inputs
    if isinstance(inputs, Mapping):
        return CallSpec((), dict(inputs))
    return CallSpec(tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,))


def _is_generated(call: CallSpec) -> bool:
    """Whether the example inputs are those that we make for want of others, which say little."""
    tensors = list(tensor_leaves([*call.args, *call.kwargs.values()]))
    return bool(tensors) and all(
        any(torch.equal(t.cpu(), InputSpec(tuple(t.shape), t.dtype).example(seed=seed)) for seed in {0, index})
        for index, t in enumerate(tensors)
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
            name = network.program.name
            try:
                output = values(name, run(network.program.graph_module, call))
            except (RuntimeError, ValueError, TypeError) as error:
                raise VerificationError(
                    f"{name} ({step}) does not take an input of shape {specs(call)}: {one_line(error)}"
                ) from error
        yield output
