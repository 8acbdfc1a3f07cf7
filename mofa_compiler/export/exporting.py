"""`export`: a bundle as another file, compared with the bundle before it is put in place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from ..bundle import load
from ..bundle.recipe import read_recipe
from ..errors import ExportError, MofaError, source_line
from ..inputs import CallSpec, ExampleInputs, InputSpec, example_call, map_tree, specs
from ..report.data import plain_data
from ..report.guards import guards
from ..report.reading import read_report
from .bisecting import Culprit, culprit
from .comparing import Comparison, DifferenceError, compare
from .destination import destinations, scratch_folder
from .format import Format, Source, Use, Written, reason, tensors
from .formats import find
from .guards import hold
from .locating import Fault, locate
from .notes import notes
from .observing import observe
from .shapes import Images, Sizes, candidates, example_sizes, second_size
from .silence import calm
from .tracing import any_size, trace

if TYPE_CHECKING:
    from ..compiler import Progress

SCHEMA = "mofa-export/1"

_STEPS = ("running the bundle", "tracing", "writing", "comparing")


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        format: its name.
        files: what was written; the first is the one to load.
        size: of all of them, in bytes.
        inputs: shapes of the example.
        sizes: what other sizes the file takes; None where it takes the example's only.
        comparisons: with the bundle, at every size that was compared.
        uses: every operator call in the file.
        notes: sentences on what its target is known to run slowly, or not as one may think.
    """

    format: str
    files: tuple[Path, ...]
    size: int
    inputs: str
    sizes: Sizes | None
    comparisons: tuple[Comparison, ...]
    uses: tuple[Use, ...]
    notes: tuple[str, ...]

    @property
    def relative_error(self) -> float:
        """The largest of the comparisons'."""
        return max(one.relative_error for one in self.comparisons)

    @property
    def operators(self) -> dict[tuple[str, str | None], int]:
        """Number of calls by operator and backend, the most frequent first."""
        return dict(Counter((use.kind, use.backend) for use in self.uses).most_common())

    def to_data(self) -> dict[str, Any]:
        """Plain data, schema `mofa-export/1`, with the fields by name; `operators` in place of the single calls."""
        layers: dict[tuple[str, str | None], list[str]] = {}
        for use in self.uses:
            if use.layer is not None and use.layer not in (known := layers.setdefault((use.kind, use.backend), [])):
                known.append(use.layer)
        operators = [
            {"kind": kind, "backend": backend, "count": count, "layers": layers.get((kind, backend), [])}
            for (kind, backend), count in self.operators.items()
        ]
        document = {
            "schema": SCHEMA,
            "format": self.format,
            "files": self.files,
            "size": self.size,
            "inputs": self.inputs,
            "dynamic": vars(self.sizes) if self.sizes else None,
            "comparisons": [vars(one) for one in self.comparisons],
            "relative_error": self.relative_error,
            "operators": operators,
            "notes": self.notes,
        }
        plain: dict[str, Any] = plain_data(document)
        return plain


def export(
    bundle_or_module: str | Path | nn.Module,
    to: str,
    destination: str | Path | None = None,
    *,
    dynamic: bool = False,
    inputs: ExampleInputs = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write a network in another file format.

    The file is written beside its place, loaded again, compared with the network there, and only then moved in.

    Args:
        bundle_or_module: a bundle's folder, whose `model.py` is run, or a network; it is not modified.
        to: `onnx`, `pt2`, `executorch`, `openvino` or `torchscript`.
        destination: the file; for a bundle by default its name with the format's suffix, beside it.
        dynamic: take other heights and widths of images than the example's, too, and where the format allows other
            batches. A file without takes the example's shapes only.
        inputs: the example, tensors or specs; by default what the bundle was made for, or for a network one image of
            256x256.
        overwrite: replace files that are there. Those of a bundle never are.
        progress: told before every step.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        CaptureError: the network is not called with such inputs.
        ExportError: the format is unknown or not installed, the exporter does not take the network (the message names
            the layer), what it wrote computes something else, or the destination is taken.
    """
    tell = progress or (lambda *_: None)
    kind = find(to)
    module, call = _network(bundle_or_module, inputs)
    files = destinations(bundle_or_module, kind, destination, overwrite)
    scratch = scratch_folder(files[0])
    try:
        decided = _decided(bundle_or_module)
        maker = _Maker(module, call, kind, decided, lambda step: tell(step, _STEPS.index("writing"), len(_STEPS)))
        tell(_STEPS[0], 0, len(_STEPS))
        seen = maker.observed()
        tell(_STEPS[1], 1, len(_STEPS))
        source, sizes, images = maker.traced(dynamic)
        tell(_STEPS[2], 2, len(_STEPS))
        file = scratch / files[0].name
        written = maker.written(source, file, images, sizes)
        tell(_STEPS[3], 3, len(_STEPS))
        compared = maker.compared(source, file, _compared(call, sizes, images))
        found = (*written.notes, *notes(source, seen, written.uses), *_about(sizes, images, kind, maker.taken))
        for one in reversed(files):  # the one that is loaded last, so that what it needs is there
            os.replace(scratch / one.name, one)
    except OSError as error:
        raise ExportError(f"cannot write {files[0]}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    tell("done", len(_STEPS), len(_STEPS))
    size = sum(one.stat().st_size for one in files)
    return Exported(kind.name, files, size, str(specs(call)), sizes, compared, tuple(written.uses), found)


class _Maker:
    """A network on its way into one format; what exporters raise becomes an `ExportError` that names the layer."""

    def __init__(
        self,
        module: nn.Module,
        call: CallSpec,
        kind: Format,
        decided: Sequence[Mapping[str, str]],
        tell: Callable[[str], None],
    ):
        self.module, self.call, self.kind, self.decided, self.tell = module, call, kind, decided, tell
        self.name = type(module).__name__
        self.taken = 1
        """Multiples of which the network itself takes, where sizes may differ"""

    def observed(self) -> Any:
        """The network run once as it is."""
        try:
            return observe(self.module, self.call)
        except Exception as error:  # whatever a network raises for what it does not take
            raise ExportError(
                f"{self.name} cannot be run on {specs(self.call)}: {reason(error)}: pass inputs (--input) that it takes"
            ) from error

    def traced(self, dynamic: bool) -> tuple[Source, Sizes | None, Images | None]:
        """The network as its format starts from, and the sizes that it takes then."""
        if not dynamic:
            try:
                program = trace(self.module, self.call.args, self.call.kwargs) if self.kind.traced else None
            except Exception as error:
                raise self._refusal(error, only_trace=True) from error
            return Source(self.module, self.call, program), None, None
        images = Images(specs(self.call))
        options = list(candidates(self.module, images, self.kind.bounded, self.decided))
        self.taken = options[0].multiple
        if not self.kind.traced:
            return Source(self.module, self.call, None, dynamic=True), options[0], images
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
                    return Source(self.module, example, program, dynamic=True, free=free), sizes, images
        assert errors
        raise self._refusal(errors[0], only_trace=True, images=images, sizes=options[0]) from errors[0]

    def _traced_for(self, example: CallSpec, sizes: Sizes, images: Images, free: bool) -> ExportedProgram:
        """The network for all of `sizes`, proven to be alike; `free`: with what was taken for granted left to see."""
        describe = images.free_dimensions if free else images.dimensions
        with any_size() if free else nullcontext():
            shapes = describe(example, self.module, sizes)
            return trace(self.module, example.args, example.kwargs, shapes)

    def written(self, source: Source, file: Path, images: Images | None, sizes: Sizes | None) -> Written:
        """What the format says of the file that it wrote."""
        try:
            with calm(), any_size() if source.free else nullcontext():
                return self.kind.write(source, file)
        except MofaError:
            raise
        except Exception as error:
            if (found := self._culprit(source, [source.call], "write")) is not None:
                raise self._refused(error, found, found.path, dynamic=source.dynamic, only_trace=False) from error
            raise self._refusal(error, only_trace=False, images=images, sizes=sizes) from error

    def compared(self, source: Source, file: Path, calls: list[CallSpec]) -> tuple[Comparison, ...]:
        """The file that was written against the network."""
        try:
            return compare(self.kind, file, self.module, calls)
        except DifferenceError as error:
            if (found := self._culprit(source, calls, error.stage)) is None:
                raise
            raise ExportError(f"{error}. It comes from {found}", found.path) from error

    def _culprit(self, source: Source, calls: list[CallSpec], stage: str) -> Culprit | None:
        if source.program is None:
            return None
        return culprit(self.kind, source, calls, stage, lambda place: self.tell(f"looking for the fault: {place}"))

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


def _network(bundle_or_module: str | Path | nn.Module, inputs: ExampleInputs) -> tuple[nn.Module, CallSpec]:
    """The network, and a call of it with tensors."""
    if isinstance(bundle_or_module, nn.Module):
        module = bundle_or_module
    else:
        folder = Path(bundle_or_module).expanduser()
        module = load(folder)
        if inputs is None:
            inputs = CallSpec.from_data(read_recipe(folder)["inputs"])
    call = example_call(module, inputs)
    weight = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    if weight.device.type != "cpu":
        raise ExportError(f"{type(module).__name__} is on {weight.device}: export a copy on the CPU")
    seeds = iter(range(1000))
    trees = (call.args, dict(call.kwargs))
    return module, CallSpec(*map_tree(trees, InputSpec, lambda spec: spec.example(seed=next(seeds))))


def _decided(bundle_or_module: str | Path | nn.Module) -> Sequence[Mapping[str, str]]:
    """What was decided for one size when a network was captured, as far as its bundle or its graph tells."""
    if isinstance(bundle_or_module, nn.Module):
        graph = getattr(bundle_or_module, "graph", None)
        return guards(graph) if isinstance(graph, fx.Graph) else []
    try:
        found = read_report(Path(bundle_or_module).expanduser()).get("guards") or []
        return [{"module": str(one["module"]), "line": str(one["line"])} for one in found]
    except (
        MofaError,
        OSError,
        TypeError,
        KeyError,
    ):  # without a report it is exported, too
        return []


def _compared(call: CallSpec, sizes: Sizes | None, images: Images | None) -> list[CallSpec]:
    """Calls to compare at: the example's size, and another one where the file takes any."""
    if sizes is None or images is None:
        return [call]
    first = images.at(sizes.up(images.height), sizes.up(images.width))
    return [call if first == specs(call) else first.example(), second_size(sizes, images).example()]


def _about(sizes: Sizes | None, images: Images | None, kind: Format, taken: int) -> Iterator[str]:
    if sizes is None or images is None:
        return
    if sizes.multiple > taken:
        own = f"{images.height}x{images.width}"
        out = images.height % sizes.multiple or images.width % sizes.multiple
        every = "every size" if taken == 1 else f"all multiples of {taken}"
        yield (
            f"the network takes {every}, and torch.export could not prove that it does the same at all of them: the "
            f"file is for multiples of {sizes.multiple} only{f', of which the example ({own}) is none' if out else ''}"
        )
    if sizes.high is not None:
        yield (
            f"memory is planned for images of up to {sizes.high[0]}x{sizes.high[1]}, twice the example's, and the "
            "batch is fixed: export at a larger --input for larger ones"
        )
    elif not sizes.batch:
        yield "the batch is fixed: the network takes no other, or the exporter cannot prove that it does"
