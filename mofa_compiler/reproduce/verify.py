"""`verify`: whether a bundle, or a result, still is what it says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..base.errors import VerificationError, one_line
from ..base.plain import plain_data
from ..base.precision import Half
from ..base.progress import Progress
from ..base.words import error_text, off
from ..bundle import load
from ..bundle.files import check_complete
from ..bundle.recipe import FILE, read_recipe
from ..compiler import Result
from ..frontend import capture
from ..frontend.state import copied
from ..graph.call_spec import example_call, specs
from ..numerics.running import run_saved, values
from ..numerics.sizes import another_size
from ..result.rewrite import Rewrite
from ..result.verdict import Check, Verdict, verdict_data
from ..verification.half_storage import in_half_storage
from ..verification.per_pass import Measured, measure, verdicts
from .bundle_checks import check_bundle
from .replay import replayed
from .written_again import write_again

SCHEMA = "mofa-verification/1"


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        verdicts: on every pass of the recipe, carried out anew on the original.
        relative_error, psnr: of the network as it is now, against the original; PSNR in dB, with the range of the
            original's output as peak.
        measured_on: the inputs of all figures.
        checks: everything that was looked at, in order.
    """

    verdicts: tuple[Verdict, ...]
    relative_error: float
    psnr: float
    measured_on: str
    checks: tuple[Check, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence on each thing that is not as it should be."""
        return tuple(check.detail for check in self.checks if not check.ok)

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return not self.problems

    def to_data(self) -> dict[str, Any]:
        """Plain data, schema `mofa-verification/1`, with the fields by name; a verdict as in a report."""
        document = {
            "schema": SCHEMA,
            "ok": self.ok,
            "problems": self.problems,
            "measured_on": self.measured_on,
            "output": {"relative_error": self.relative_error, "psnr": self.psnr},
            "passes": [
                {"name": verdict.pass_name, "exact": verdict.exact, "verdict": verdict_data(verdict)}
                for verdict in self.verdicts
            ],
            "checks": [vars(check) for check in self.checks],
        }
        plain: dict[str, Any] = plain_data(document)
        return plain


def verify(
    bundle_or_result: str | Path | Result,
    original: nn.Module | None = None,
    inputs: Iterable[Any] | None = None,
    *,
    name: str = "given input",
    trained: bool = False,
    precision: Half | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check that passes are as exact as they say, and measure how far the network is from the original.

    Args:
        bundle_or_result: a bundle's folder, whose recipe is carried out anew and compared with what is saved; its
            `model.py` is run where it is, line by line, what the recipe makes. Or what `apply` returned.
        original: the network that a bundle was made from, with its weights; a result has it.
        inputs: batches to measure on, tensors or tuples of arguments; by default the evaluation inputs, without them
            the example input.
        name: what to call one of them, perhaps with where they come from in parentheses.
        trained: the saved weights were trained by another program since, so that they cannot be those of the recipe.
        precision: also run the network with everything stored in it, and name the first layer that overflows, or that
            is further off than `verification.half_storage.ALLOWED`.
        progress: told about every network that is run.

    Raises:
        BundleError: there is no bundle, it is damaged, or was made from another architecture.
        VerificationError: no original for a bundle, or inputs that a network does not take.
    """
    if precision is not None and inputs is not None:
        inputs = list(inputs)  # they are gone through twice
    if not isinstance(bundle_or_result, (str, Path)):
        rewrite, checks = bundle_or_result.record, []
        shipped: nn.Module = rewrite.model
        measured = measure(rewrite, inputs, name, progress, shipped)
        found = verdicts(rewrite, measured, progress)
    else:
        if original is None:
            raise VerificationError(
                f"{bundle_or_result} does not hold the original, to compare with: pass original", code="no-data"
            )
        folder = Path(bundle_or_result).expanduser()
        document = read_recipe(folder)
        check_complete(folder)
        rewrite = replayed(document, original, str(folder / FILE), other_weights=True).record
        written = write_again(folder, document, original, rewrite)
        shipped = load(folder) if written.source.ok else written.twin
        shipped.to(rewrite.original.program.device)
        measured = measure(rewrite, inputs, name, progress, shipped)
        found = verdicts(rewrite, measured, progress)
        rewrite = rewrite.with_verdicts(found)
        checks = check_bundle(folder, document, rewrite, shipped, found, written, trained=trained)
    checks = [*checks, _exactness(found), _output(measured), _another_size(rewrite, shipped)]
    if precision is not None:
        checks.append(_in_half(shipped, rewrite, inputs, precision))
    figures = measured.shipped
    return Verification(found, figures.relative_error, figures.psnr(figures.peak), measured.measured_on, tuple(checks))


def _in_half(shipped: nn.Module, rewrite: Rewrite, inputs: Iterable[Any] | None, precision: Half) -> Check:
    """The network as it is now, with everything stored in half precision."""
    given = [rewrite.example] if inputs is None else inputs
    calls = [example_call(shipped, one) for one in (rewrite.evaluation or given if inputs is None else given)]
    network = capture(copied(shipped), calls[0], compare=False).graph_module
    found = in_half_storage(network.eval(), calls, precision)
    return Check(precision, found.ok, found.sentence)


def _exactness(found: Sequence[Verdict]) -> Check:
    """What was declared exact."""
    if problem := "; ".join(v.problem for v in found if v.problem and not v.not_finite):
        return Check("exactness", False, problem)
    whole = [verdict.whole for verdict in found if verdict.whole]
    if not whole:
        return Check("exactness", True, "no pass that did something claims to be exact")
    layers = max((verdict.layers for verdict in found if verdict.layers is not None), default=0.0)
    sizes = " and ".join(dict.fromkeys(size.shape for check in whole for size in check.sizes))
    precision = ", ".join(dict.fromkeys(check.precision for check in whole))
    notes = "".join(f"; {note}" for note in dict.fromkeys(check.note for check in whole) if note)
    return Check(
        "exactness",
        True,
        f"{len(whole)} {'pass is' if len(whole) == 1 else 'passes are'} exact in {precision}: layer by layer (off by "
        f"{off(layers)}), and whole networks (off by {off(max(check.error for check in whole))}) at {sizes}{notes}",
    )


def _output(measured: Measured) -> Check:
    """The network as it is now, against the original."""
    figures = measured.shipped
    if measured.not_finite:
        return Check("output", False, measured.not_finite)
    if not math.isfinite(figures.error):
        return Check("output", False, f"the network's output on the {measured.measured_on} is not finite")
    if figures.relative_error == 0:
        return Check("output", True, f"exactly the original's, on the {measured.measured_on}")
    psnr = figures.psnr(figures.peak)
    decibels = "" if math.isinf(psnr) else f", PSNR {psnr:.2f} dB"
    return Check(
        "output",
        True,
        f"{error_text(figures.relative_error)} off the original's{decibels}, on the {measured.measured_on}",
    )


def _another_size(rewrite: Rewrite, shipped: nn.Module) -> Check:
    """The network as it is now, at a size that the original takes, too."""
    call, expected, reason = another_size(rewrite.original, rewrite.example)
    if call is None or expected is None:
        return Check("another size", True, f"the original takes no other ({reason})")
    shape = specs(call)
    try:
        got = values("the network", run_saved(shipped, call))
    except Exception as error:  # whatever a network raises at a size that it does not take
        return Check("another size", False, f"the original takes {shape}, the network does not: {one_line(error)}")
    if got.shape != expected.shape:
        return Check("another size", False, f"at {shape} the network's output is of another size than the original's")
    if bool(expected.isfinite().all()) and not bool(got.isfinite().all()):
        return Check("another size", False, f"at {shape} the network's output is not finite")
    return Check("another size", True, f"{shape} is taken, the output is finite")
