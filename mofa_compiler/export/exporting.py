"""`export`: a bundle as another file, compared with the bundle before it is put in place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from ..base.atomic_files import scratch_folder
from ..base.errors import CalibrationError, ExportError, MofaError, nearest
from ..base.plain import plain_data
from ..base.precision import Precision
from ..base.torch_state import in_normal_mode, own_randomness
from ..bundle import load
from ..bundle.recipe import read_recipe
from ..formats.base import Format, Quantization, Use
from ..formats.comparing import Comparison
from ..formats.dynamic_shapes import Images, Sizes, second_size
from ..formats.notes import notes
from ..formats.quantizing import examples
from ..formats.registry import find
from ..graph.call_spec import (
    CallSpec,
    ExampleInputs,
    InputSpec,
    example_call,
    in_standard_layout,
    map_tree,
    specs,
    tensors_by_position,
)
from ..loading.wrappers import unwrapped
from ..report.guards import guards
from ..report.reading import read_document
from .making import STEPS, Maker, place

if TYPE_CHECKING:
    from ..base.progress import Progress

SCHEMA = "mofa-export/1"


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
        precision: of weights and values; `floating`: layers that stay in float in int8.
    """

    format: str
    files: tuple[Path, ...]
    size: int
    inputs: str
    sizes: Sizes | None
    comparisons: tuple[Comparison, ...]
    uses: tuple[Use, ...]
    notes: tuple[str, ...]
    precision: Precision = "fp32"
    floating: tuple[str, ...] = ()

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
            "precision": self.precision,
            "floating": self.floating,
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


@in_normal_mode
def export(
    bundle_or_module: str | Path | nn.Module,
    to: str,
    destination: str | Path | None = None,
    *,
    dynamic: bool = False,
    inputs: ExampleInputs = None,
    precision: Precision = "fp32",
    calibration: Iterable[Any] | None = None,
    floating: Iterable[str] | None = None,
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
        precision: of the file; its inputs and outputs stay in float32. fp16: `onnx`, `executorch`, `pt2`,
            `torchscript`; bf16: the last two; int8: `onnx` and `executorch`, with static quantization by the engines'
            own tools.
        calibration: in int8, batches of inputs whose values tell the ranges of all others.
        floating: in int8, dotted paths of layers that stay in float; by default those that were found when the bundle
            was decided in int8.
        overwrite: replace files that are there. Those of a bundle never are.
        progress: told before every step.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        CalibrationError: in int8, there are no inputs to calibrate on, or none of the example's shape.
        CaptureError: the network is not called with such inputs.
        ExportError: the format is unknown or not installed, or has no such precision, the exporter does not take the
            network (the message names the layer), what it wrote computes something else, or the destination is taken.
    """
    tell = progress or (lambda *_: None)
    kind = find(to)
    if precision not in kind.precisions:
        raise ExportError(
            f"files of {kind.title} are written in {', '.join(kind.precisions)}, not in {precision}", code="bad-value"
        )
    module, call = _network(bundle_or_module, inputs)
    quantization = None
    if precision == "int8":
        quantization = _quantization(bundle_or_module, module, call, calibration, floating, dynamic, kind)
    files = destinations(bundle_or_module, kind, destination, overwrite)
    try:
        with scratch_folder(files[0]) as scratch, own_randomness():  # exporters draw numbers
            decided = _decided(bundle_or_module)
            step: Callable[[str], None] = lambda step: tell(step, place(step), len(STEPS))  # noqa: E731
            maker = Maker(module, call, kind, decided, step, precision, quantization)
            tell(STEPS[0], 0, len(STEPS))
            seen = maker.observed()
            tell(STEPS[1], 1, len(STEPS))
            source, sizes, images = maker.traced(dynamic)
            tell(STEPS[2], 2, len(STEPS))
            file = scratch / files[0].name
            source, written, compared = maker.made(
                source, file, _compared(call, sizes, images, quantization), sizes, images
            )
            noted = (*filter(None, [source.note]), *written.notes, *notes(source, seen, written.uses))
            found = (*noted, *_about(sizes, images, kind, maker.taken))
            for one in reversed(files):  # the one that is loaded last, so that what it needs is there
                os.replace(scratch / one.name, one)
    except OSError as error:
        raise ExportError(f"cannot write {files[0]}: {error.strerror or error}", code="unwritable") from error
    tell("done", len(STEPS), len(STEPS))
    size = sum(one.stat().st_size for one in files)
    stays = () if quantization is None else quantization.floating
    uses = tuple(written.uses)
    return Exported(kind.name, files, size, str(specs(call)), sizes, compared, uses, found, precision, stays)


def _quantization(
    bundle_or_module: str | Path | nn.Module,
    module: nn.Module,
    call: CallSpec,
    calibration: Iterable[Any] | None,
    floating: Iterable[str] | None,
    dynamic: bool,
    kind: Format,
) -> Quantization:
    """What a network is quantized by.

    Raises:
        CalibrationError: there are no inputs, or none of the example's shape.
        ExportError: a layer that is to stay in float is not there, or the format takes no other sizes in int8.
    """
    if calibration is None:
        raise CalibrationError(
            "int8 takes the ranges of values from inputs: give some (calibration=..., --calibrate DIR)",
            code="needs-option",
        )
    if dynamic and kind.bounded:
        raise ExportError(f"{kind.title} in int8 is written for one size: leave --dynamic out", code="ambiguous")
    if floating is None:
        floating = () if isinstance(bundle_or_module, nn.Module) else _decided_floating(Path(bundle_or_module))
    floating, known = tuple(floating), dict(module.named_modules())
    if unknown := [path for path in floating if path not in known]:
        raise ExportError(
            f"{type(module).__name__} has no layer {unknown[0]!r}{nearest(unknown[0], known)}", code="unknown-name"
        )
    return Quantization(examples(module, calibration, tensors_by_position(module, call)), floating)


def _decided_floating(folder: Path) -> tuple[str, ...]:
    """Layers that stay in float since the network was decided in int8, as far as its bundle tells."""
    try:
        decisions = read_document(folder.expanduser()).get("decisions") or {}
    except (MofaError, OSError):
        return ()
    return tuple(decisions.get("floating", ()))


def _network(bundle_or_module: str | Path | nn.Module, inputs: ExampleInputs) -> tuple[nn.Module, CallSpec]:
    """The network, and a call of it with tensors."""
    if isinstance(bundle_or_module, nn.Module):
        module = unwrapped(bundle_or_module)
    else:
        folder = Path(bundle_or_module).expanduser()
        module = load(folder)
        if inputs is None:
            inputs = CallSpec.from_data(read_recipe(folder)["inputs"])
    call = example_call(module, inputs)
    weight = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    if weight.device.type != "cpu":
        raise ExportError(f"{type(module).__name__} is on {weight.device}: export a copy on the CPU", code="device")
    seeds = iter(range(1000))
    trees = map_tree((call.args, dict(call.kwargs)), InputSpec, lambda spec: spec.example(seed=next(seeds)))
    return module, CallSpec(*map_tree(trees, Tensor, in_standard_layout))


def _decided(bundle_or_module: str | Path | nn.Module) -> Sequence[Mapping[str, str]]:
    """What was decided for one size when a network was captured, as far as its bundle or its graph tells."""
    if isinstance(bundle_or_module, nn.Module):
        graph = getattr(bundle_or_module, "graph", None)
        return [one.to_data() for one in guards(graph)] if isinstance(graph, fx.Graph) else []
    try:
        found = read_document(Path(bundle_or_module).expanduser()).get("guards") or []
        return [{"module": str(one["module"]), "line": str(one["line"])} for one in found]
    except (
        MofaError,
        OSError,
        TypeError,
        KeyError,
    ):  # without a report it is exported, too
        return []


def _compared(
    call: CallSpec, sizes: Sizes | None, images: Images | None, quantization: Quantization | None
) -> list[CallSpec]:
    """Calls to compare at: the example's size, and another one where the file takes any; quantized, what it is by."""
    if quantization is not None:
        return [CallSpec(tuple(one), {}) for one in quantization.examples[:2]]
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


def destinations(
    bundle_or_module: str | Path | nn.Module, kind: Format, destination: str | Path | None, overwrite: bool
) -> tuple[Path, ...]:
    """The files to write; the first is the one that is loaded.

    Raises:
        ExportError: one is there already, has no folder to be in, or the name of another kind of file, a bundle's own
            for instance.
    """
    bundle = None if isinstance(bundle_or_module, nn.Module) else Path(bundle_or_module).expanduser().resolve()
    if destination is None:
        if bundle is None:
            raise ExportError(
                "there is no bundle whose name the file could have: pass destination", code="needs-option"
            )
        destination = bundle.with_name(f"{bundle.name}{kind.suffixes[0]}")
    first = Path(destination).expanduser()
    if first.suffix != kind.suffixes[0]:
        raise ExportError(f"{first}: a file of {kind.title} ends in {kind.suffixes[0]}", code="wrong-kind")
    if not first.parent.is_dir():
        raise ExportError(f"cannot write {first}: there is no folder {first.parent}", code="not-found")
    files = tuple(first.with_suffix(suffix) for suffix in kind.suffixes)
    for file in files:
        if file.is_dir():
            raise ExportError(f"{file} is a folder: choose another file", code="wrong-kind")
        if file.exists() and not overwrite:
            raise ExportError(
                f"{file} exists: --overwrite (in Python: overwrite=True) replaces it, or choose another file",
                code="exists",
            )
    return files


def named_after(module: nn.Module, to: str) -> Path:
    """The file that a network of no bundle is written to where none is named: its class, in the working folder.

    Raises:
        ExportError: the format is unknown or not installed.
    """
    return Path(f"{type(module).__name__}{find(to).suffixes[0]}")
