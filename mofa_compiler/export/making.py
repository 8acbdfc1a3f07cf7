"""A network on its way into a file format: traced, written, compared; what fails is mended, or its layer named."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from ..base.errors import ExportError, MofaError, source_line
from ..base.precision import Precision
from ..formats.base import Format, Quantization, Source, Written, reason, tensors
from ..formats.bisecting import Culprit, Fault, culprit, locate
from ..formats.comparing import Comparison, DifferenceError, compare
from ..formats.dynamic_shapes import Images, Sizes, candidates, example_sizes, second_size
from ..formats.observing import observe
from ..formats.torch_export import any_size, calm, trace
from ..graph.call_spec import CallSpec, specs
from ..numerics.half import HALVES, in_half
from .guards import hold

STEPS = ("running the bundle", "tracing", "writing", "comparing")


def place(step: str) -> int:
    """Which of `STEPS` a step is or belongs to."""
    return STEPS.index(step) if step in STEPS else STEPS.index("writing")


class Maker:
    """A network on its way into one format; what exporters raise becomes an `ExportError` that names the layer."""

    def __init__(
        self,
        module: nn.Module,
        call: CallSpec,
        kind: Format,
        decided: Sequence[Mapping[str, str]],
        tell: Callable[[str], None],
        precision: Precision = "fp32",
        quantization: Quantization | None = None,
    ):
        self.module, self.call, self.kind, self.decided, self.tell = module, call, kind, decided, tell
        self.precision, self.quantization = precision, quantization
        self.written = in_half(copy.deepcopy(module).eval(), precision) if precision in HALVES else module
        """The network in the file's precision"""
        self.name = type(module).__name__
        self.taken = 1
        """Multiples of which the network itself takes, where sizes may differ"""

    def observed(self) -> Any:
        """The network run once as it is."""
        try:
            return observe(self.module, self.call)
        except Exception as error:  # whatever a network raises for what it does not take
            raise ExportError(
                f"{self.name} cannot be run on {specs(self.call)}: {reason(error)}: pass inputs (--input) that it "
                "takes",
                code="wrong-input",
            ) from error

    def traced(self, dynamic: bool) -> tuple[Source, Sizes | None, Images | None]:
        """The network as its format starts from, and the sizes that it takes then."""
        if not dynamic:
            try:
                program = trace(self.written, self.call.args, self.call.kwargs) if self.kind.traced else None
            except Exception as error:
                raise self._refusal(error, only_trace=True) from error
            return self._source(self.written, self.call, program), None, None
        images = Images(specs(self.call))
        options = list(candidates(self.module, images, self.kind.bounded, self.decided))
        self.taken = options[0].multiple
        if not self.kind.traced:
            return self._source(self.written, self.call, None, dynamic=True), options[0], images
        errors: list[Exception] = []
        for sizes in options:
            example = example_sizes(sizes, images).example()
            # What is made smaller and yet takes sizes that are no multiples of that pads or crops: beyond proof.
            for free in (True, False) if sizes.multiple < options[-1].multiple else (False, True):
                try:
                    program = self._traced_for(example, sizes, images, free)
                except Exception as error:
                    errors.append(error)
                    continue
                if not free or hold(program, self.module, images, sizes):
                    return self._source(self.written, example, program, dynamic=True, free=free), sizes, images
        assert errors
        raise self._refusal(errors[0], only_trace=True, images=images, sizes=options[0]) from errors[0]

    def _traced_for(
        self, example: CallSpec, sizes: Sizes, images: Images, free: bool, module: nn.Module | None = None
    ) -> ExportedProgram:
        """The network for all of `sizes`, proven to be alike; `free`: with what was taken for granted left to see."""
        module, describe = module or self.written, images.free_dimensions if free else images.dimensions
        with any_size() if free else nullcontext():
            shapes = describe(example, module, sizes)
            return trace(module, example.args, example.kwargs, shapes)

    def made(
        self, source: Source, file: Path, calls: list[CallSpec], sizes: Sizes | None, images: Images | None
    ) -> tuple[Source, Written, tuple[Comparison, ...]]:
        """What was written in the end, what the format says of it, and how it compares with the network."""
        try:
            return self._tried(source, file, calls)
        except MofaError as error:
            if not isinstance(error, DifferenceError):
                raise
            first: Exception = error
        except Exception as error:  # whatever an exporter raises
            first = error
        stage = first.stage if isinstance(first, DifferenceError) else "write"
        if (other := self._otherwise(source, sizes, images, stage)) is not None:
            try:
                return self._tried(other, file, calls)
            except Exception as second:
                self.tell(f"that failed, too: {reason(second)}")
        found = self._culprit(source, calls, stage)
        if isinstance(first, DifferenceError):
            raise ExportError(
                f"{first}{f'. It comes from {found}' if found else ''}", found.path if found else "", code=first.code
            )
        if found is not None:
            raise self._refused(first, found, found.path, dynamic=source.dynamic, only_trace=False) from first
        raise self._refusal(first, only_trace=False, images=images, sizes=sizes) from first

    def _tried(
        self, source: Source, file: Path, calls: list[CallSpec]
    ) -> tuple[Source, Written, tuple[Comparison, ...]]:
        with calm(), any_size() if source.free else nullcontext():
            written = self.kind.write(source, file)
        self.tell(STEPS[3])
        return source, written, compare(self.kind, file, self.module, calls, precision=self.precision)

    def _source(self, module: nn.Module, call: CallSpec, program: ExportedProgram | None, **options: Any) -> Source:
        return Source(module, call, program, quantization=self.quantization, **options)

    def _culprit(self, source: Source, calls: list[CallSpec], stage: str) -> Culprit | None:
        if source.program is None:
            return None
        return culprit(self.kind, source, calls, stage, lambda place: self.tell(f"looking for the fault: {place}"))

    def _otherwise(self, source: Source, sizes: Sizes | None, images: Images | None, stage: str) -> Source | None:
        """The same network otherwise, where that is known to mend such an error; None where it is not.

        What torch.export proved of sizes can be more than its file format reads again. And what a format merges wrongly
        is merged before, by the pass `merge-linear`, which is exact.
        """
        module, free, note = source.module, source.free, ""
        if sizes is not None and not free and stage == "load":
            free = True
        elif self.kind.merges and module is self.module and (merged := merged_norms(module, self.call)) is not None:
            module, note = merged, f"normalizations were merged into convolutions first: {self.kind.title} could not"
        else:
            return None
        try:
            if sizes is None or images is None:
                return self._source(module, source.call, trace(module, self.call.args, self.call.kwargs), note=note)
            program = self._traced_for(source.call, sizes, images, free, module)
        except Exception:  # then the first error is what is told
            return None
        if free and not hold(program, module, images, sizes):
            return None
        return self._source(module, source.call, program, dynamic=True, free=free, note=note)

    def _refusal(
        self, error: Exception, *, only_trace: bool, images: Images | None = None, sizes: Sizes | None = None
    ) -> ExportError:
        """What to say about an error: the layer at fault, found by exporting the network's modules one by one."""
        call, resized, dynamic = self.call, dict[str, CallSpec](), images is not None and sizes is not None
        if images is not None and sizes is not None:
            call = example_sizes(sizes, images).example()
            resized = observe(self.module, second_size(sizes, images).example(), keep_calls=True).calls
        calls = observe(self.module, call, keep_calls=True).calls

        def attempt(inner: nn.Module, path: str) -> None:
            call = calls[path]
            program = _trace_alone(inner, call, resized.get(path)) if self.kind.traced else None
            if not only_trace:
                with calm(), tempfile.TemporaryDirectory() as folder:
                    source = Source(inner, call, program, dynamic)
                    self.kind.write(source, Path(folder, f"layer{self.kind.suffixes[0]}"))

        fault = locate(self.module, call, attempt, error, lambda path: self.tell(f"looking for the fault: {path}"))
        return self._refused(fault.error, fault, fault.path, dynamic=dynamic, only_trace=only_trace)

    def _refused(
        self, error: Exception, fault: Fault | Culprit, path: str, *, dynamic: bool, only_trace: bool
    ) -> ExportError:
        shape = " with dynamic sizes" if dynamic else ""
        return ExportError(
            f"{self.name} cannot be exported to {self.kind.title}{shape}: {fault}: {reason(error)}"
            f"{source_line(error, self.kind.packages)}. {self._advice(path, only_trace, dynamic)}",
            path,
            code="failed",
        )

    def _advice(self, path: str, only_trace: bool, dynamic: bool) -> str:
        if dynamic:
            return "Rewrite it so that it holds for every size, or export at one size, without --dynamic"
        replace = "Replace that layer" if path else "Write it with operators that the exporter knows"
        if not self.kind.traced:
            others = "pt2"
        else:  # what torch.export cannot trace is not for any format that starts from it
            others = "torchscript" if only_trace or self.kind.name == "pt2" else "pt2 or torchscript"
        return f"{replace}, or try another format (--to {others})"


def _trace_alone(module: nn.Module, call: CallSpec, other: CallSpec | None) -> ExportedProgram:
    """One module of a network; what differs in its inputs at the network's other size is dynamic."""
    if other is None:
        return trace(module, call.args, call.kwargs)
    collection = ShapesCollection()  # type: ignore[no-untyped-call]
    for one, two in zip(tensors(call), tensors(other), strict=True):
        dims = {i: Dim.DYNAMIC for i, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b}
        if dims:
            collection[one] = dims
    shapes = collection.dynamic_shapes(module, call.args, dict(call.kwargs))  # type: ignore[no-untyped-call]
    return trace(module, call.args, call.kwargs, shapes)


def merged_norms(module: nn.Module, call: CallSpec) -> nn.Module | None:
    """The network after the pass `merge-linear`, which is exact; None where it finds nothing, or cannot look."""
    from ..analysis.anatomy import infer
    from ..analysis.network import Network
    from ..frontend import capture
    from ..rewriting.engine import rewrite
    from ..rewriting.registry import available

    try:
        with calm():
            program = capture(copy.deepcopy(module).eval(), call)
            after, diff = rewrite(Network(program, infer(program)), available()["merge-linear"]())
    except MofaError:
        return None
    return after.program.graph_module.eval() if diff.rewritten and diff.exact else None
