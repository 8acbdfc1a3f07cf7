"""`front`: one network within several bounds, all of them measured together."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from .autotune.candidates import ORIGINAL
from .autotune.held_out import HeldOut
from .base.atomic_files import put_in_place, replaced, scratch_folder
from .base.errors import BundleError, CalibrationError, EngineError, RoadmapError, one_line
from .base.plain import read_json
from .base.progress import Progress
from .base.spelling import json_text
from .base.torch_state import in_normal_mode
from .bundle import load
from .bundle.original import digest
from .bundle.updating import record
from .calibration import Calibration
from .compiler import Start, start
from .data import CalibrationImages
from .distillation import recover
from .frontend.capture import capture
from .frontend.causes import check_model
from .frontend.state import copied, real_device
from .graph.call_spec import CallSpec, ExampleInputs, map_tree, tensor_leaves, tensors_by_position
from .loading.wrappers import unwrapped
from .numerics.finite import check_weights
from .report.document import markdown
from .report.document.html import page
from .report.front import document
from .report.measured import Conditions
from .report.priced import EXACT, SCHEMA, Front, Point
from .report.reading import read_report
from .result.quality import Bound, Measure
from .rewriting.roadmap import Roadmap
from .runtime import Compiled, Measurement, peak_memory, race, usual_engine
from .runtime import engine as find_engine

FILE, TEXT, PAGE = "front.json", "front.md", "front.html"

BOUNDS: Mapping[Measure, Sequence[float]] = {
    "loss": (0.05, 0.1, 0.2, 0.5, 1.0),
    "psnr": (55.0, 50.0, 45.0, 40.0, 35.0),
    "agreement": (0.999, 0.995, 0.99, 0.98, 0.95),
}
"""The bounds of a front where none are given, by what they measure"""

SECONDS = 4.0
"""Of the race, for each network"""

TRAINED_ON = 32
"""Synthetic images that points are trained on, where there are no others"""


@in_normal_mode
@real_device()
def front(
    model: nn.Module,
    roadmap: str | Path | Roadmap = "mofa",
    example_inputs: ExampleInputs = None,
    calibration: str | Path | Iterable[Any] | Calibration = "synthetic",
    *,
    out: str | Path,
    bounds: Sequence[Bound] = (),
    beside: Sequence[str | Path] = (),
    minutes: float | None = None,
    recover_minutes: float = 0.0,
    overwrite: bool = False,
    compare: bool = True,
    checkpoint: str | None = None,
    progress: Progress | None = None,
) -> Front:
    """Price a network between exact and as fast as it goes: a bundle for each bound, all measured in one race.

    What was finished before an interruption, in the same folder and with the same arguments, is not done again, and
    what was measured or priced is remembered on disk.

    Args:
        model: as for `apply`.
        roadmap: as for `apply`; without a target, that of the first engine here that networks are shipped with.
        example_inputs: as for `apply`.
        calibration: as for `apply`.
        out: the folder for the bundles, `front.json`, `front.md` and `front.html`; its parents are made too.
        bounds: of one measure; by default five, of the measure that suits the network (see `apply`).
        beside: folders of other bundles of this model, to measure with them.
        minutes: after which nothing new is measured or priced; of each network the best so far is taken.
        recover_minutes: train every network on for so long.
        overwrite: replace another front that is there.
        compare: as for `apply`.
        checkpoint: as for `apply`.
        progress: as for `apply`.

    Raises:
        BundleError: `out` holds something else, or a bundle cannot be made or read.
        RoadmapError, CalibrationError, DataError, EngineError: as for `apply`.
    """
    tell = progress or (lambda *_: None)
    if not isinstance(roadmap, Roadmap):
        roadmap = Roadmap.load(roadmap)
    if roadmap.target is None:
        roadmap = roadmap.with_target(usual_engine())
    measures = {one.measure for one in bounds}
    if len(measures) > 1:
        raise CalibrationError(
            f"bounds on {' and '.join(sorted(measures))}: give those of one measure", code="ambiguous"
        )
    folder = Path(out).expanduser().absolute()
    _check_folder(folder)
    others = _named(beside)
    assert roadmap.target is not None
    find_engine(roadmap.target.engine, roadmap.target.precision)
    model = unwrapped(model)
    check_model(model)
    check_weights(model)
    tell("capturing", 0, 1)
    program = capture(copied(model), example_inputs, compare=compare)
    first: Bound | Literal["default"] = bounds[0] if bounds else "default"
    begun = start(
        model,
        program,
        roadmap,
        calibration,
        bound=first,
        minutes=minutes,
        to_save=True,
        checkpoint=checkpoint,
        tell=tell,
    )
    assert begun.session is not None and begun.session.held_out is not None
    if begun.session.is_told:
        raise RoadmapError('keep_if = "told" decides nothing: there is no front of it', code="ambiguous")
    held_out = begun.session.held_out
    measure = held_out.bound.measure
    wanted = [None, *(bounds or [Bound(measure, limit) for limit in BOUNDS[measure]])]
    identity = _identity(model, begun, held_out, recover_minutes)
    _claim(folder, identity, overwrite)
    made: dict[str, tuple[Path, Bound | None]] = {}
    for bound in sorted(wanted, key=lambda one: -1.0 if one is None else one.allowed):
        name = EXACT if bound is None else name_of(bound)
        made[name] = folder / name, bound
        if not (folder / name).exists():
            begun.result(bound or "exact").save(folder / name, progress=tell)
        if recover_minutes and bound is not None:
            _train(folder / name, model, begun, recover_minutes)
    others = {str(path) if name in (ORIGINAL, *made) else name: path for name, path in others.items()}
    data = _measured(begun, {**made, **{name: (path, None) for name, path in others.items()}}, others, tell)
    _write(data, folder, identity)
    return data


def name_of(bound: Bound) -> str:
    """What the bundle of a bound is called: `0.1dB`, `45dB`, `99.5pct`."""
    return f"{100 * bound.limit:g}pct" if bound.measure == "agreement" else f"{bound.limit:g}dB"


def _named(beside: Sequence[str | Path]) -> dict[str, Path]:
    """Folders of bundles by their names, or by their paths where two have the same name.

    Raises:
        BundleError, ReportError: there is no bundle, or its report cannot be read.
    """
    paths = list(dict.fromkeys(Path(one).expanduser().absolute() for one in beside))
    for path in paths:
        read_report(path)
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a front.

    Raises:
        BundleError: it does.
    """
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file, not a folder", code="wrong-kind")
    if folder.is_dir() and any(folder.iterdir()) and _identity_in(folder) is None:
        raise BundleError(f"{folder} holds something else than a front: choose another folder", code="exists")


def _identity_in(folder: Path) -> str | None:
    """The identity of the front in a folder; None where there is none."""
    try:
        found = read_json(folder / FILE)
    except (OSError, ValueError):
        return None
    identity = found.get("identity") if isinstance(found, dict) else None
    return identity if isinstance(identity, str) else None


def _identity(model: nn.Module, begun: Start, held_out: HeldOut, minutes: float) -> str:
    """A digest of all that the networks of a front depend on, but for its bounds."""
    assert begun.calibration is not None
    given = (begun.roadmap.to_toml(), begun.calibration.description, held_out.bound.measure, minutes)
    parts = [digest(model), held_out.fingerprint, *given]
    return hashlib.sha256(json_text(parts).encode()).hexdigest()


def _claim(folder: Path, identity: str, overwrite: bool) -> None:
    """Make the folder of a front, or go on in that of the same one; another one there is removed, with `overwrite`.

    Raises:
        BundleError: another front is there, or the folder cannot be written.
    """
    known = _identity_in(folder)
    if known == identity:
        return
    if known is not None and not overwrite:
        raise BundleError(
            f"{folder} holds the front of another network, of other inputs or options: choose another folder, or have "
            "it replaced (--overwrite)",
            code="exists",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder) as scratch:
            (scratch / FILE).write_text(json_text({"schema": SCHEMA, "identity": identity}) + "\n", encoding="utf-8")
            put_in_place(scratch, folder)
    except OSError as error:
        raise BundleError(f"cannot write {folder}: {error.strerror or error}", code="unwritable") from error


def _train(bundle: Path, model: nn.Module, begun: Start, minutes: float) -> None:
    """Train a bundle on, unless it was; an exact one has nothing to learn."""
    report = read_report(bundle)
    if report.recoveries or all(step.exact for step in report.passes):
        return
    assert begun.calibration is not None
    with _examples(begun.calibration) as examples:
        recover(bundle, model, minutes=minutes, **examples)


def _write(data: Front, folder: Path, identity: str) -> None:
    """The front as data, as text and as a page.

    Raises:
        BundleError: they cannot be written.
    """
    written = {
        FILE: json_text({**data.to_data(), "identity": identity}) + "\n",
        TEXT: markdown(document(data)),
        PAGE: page(document(data, drawn=True), f"The front of {data.model}"),
    }
    try:
        for name, content in written.items():
            with replaced(folder / name) as handle:
                handle.write(content)
    except OSError as error:
        raise BundleError(f"cannot write {folder}: {error.strerror or error}", code="unwritable") from error


@contextmanager
def _examples(calibration: Calibration) -> Iterator[dict[str, Any]]:
    """What recovery trains on: images that calibration has, without those that were held out."""
    images = calibration.batches
    if not isinstance(images, CalibrationImages):
        yield {"data": [example for batch in images for example in _rows(batch)]}
        return
    if images.is_file:
        yield {"data": [image for batch in images for image in batch]}
        return
    with tempfile.TemporaryDirectory(prefix="mofa-front-") as folder:
        images.to_folder(Path(folder), TRAINED_ON)
        degradation = None if images.degradation is None else str(images.degradation)
        yield {"data": folder, "degradation": degradation, "patch": min(images.size, 128), "seed": images.seed}


def _rows(batch: Any) -> Iterator[Any]:
    """The examples of a batch, without the batch axis."""
    given = (batch.args, dict(batch.kwargs)) if isinstance(batch, CallSpec) else batch
    leaves = list(tensor_leaves(given))
    for row in range(len(leaves[0]) if leaves and leaves[0].dim() else 0):
        one = map_tree(given, Tensor, partial(_row, row))
        yield (one[1] or one[0]) if isinstance(batch, CallSpec) else one


def _row(index: int, tensor: Tensor) -> Tensor:
    return tensor[index]


@dataclass(frozen=True)
class _Entry:
    """A network in the race."""

    name: str
    folder: Path | None
    bound: Bound | None
    module: nn.Module
    compiled: Compiled
    floating: tuple[str, ...] = ()


def _measured(
    begun: Start, bundles: Mapping[str, tuple[Path, Bound | None]], others: Container[str], tell: Progress
) -> Front:
    """The original and all bundles in one race."""
    session, target = begun.session, begun.roadmap.target
    assert session is not None and session.held_out is not None and target is not None
    held_out = session.held_out
    network, call = session.timed
    deployment, engine = session.deployment, find_engine(target.engine, target.precision)
    inputs = tensors_by_position(network.program.graph_module, call)
    entries, notes = list[_Entry](), list[str]()
    modules = {ORIGINAL: network.program.graph_module, **{name: load(folder) for name, (folder, _) in bundles.items()}}
    for number, (name, module) in enumerate(modules.items()):
        tell(f"compiling {name}", number, len(modules))
        folder, bound = bundles.get(name, (None, None))
        report = None if folder is None else read_report(folder)
        floating = report.decisions.floating if report is not None and report.decisions is not None else ()
        try:
            own = engine if deployment is None else deployment.engine_for(module, floating)
            compiled = own.compile(module, inputs, target.threads)
            entries.append(_Entry(name, folder, bound, module, compiled, floating))
        except EngineError as error:
            if name == ORIGINAL:
                raise
            notes.append(f"{name} could not be measured: {one_line(error)}")
    tell("measuring all networks", 0, 1)
    run = race([one.compiled for one in entries], engine, target.threads, seconds=SECONDS * len(entries))
    points = []
    for index, one in enumerate(entries):
        tell(f"memory and quality of {one.name}", index, len(entries))
        timed = Measurement.of(run, index, 0, engine, target.threads, inputs)
        report = None if one.folder is None else read_report(one.folder)
        if one.folder is not None and one.name not in others:
            record([timed.recorded], one.folder)
        quality = held_out.quality(one.module) if deployment is None else deployment.quality(one.module, one.floating)
        totals = begun.network.totals if report is None else report.after
        memory = None
        try:
            packed = one.compiled.packed if one.compiled.packed is not None else engine.pack(one.module, inputs)
            memory = peak_memory(packed, inputs, engine, target.threads)
        except EngineError as error:
            notes.append(f"the memory of {one.name} could not be measured: {one_line(error)}")
        points.append(
            Point(
                name=one.name,
                kind="original" if report is None else "other" if one.name in others else "front",
                bundle="" if one.folder is None else one.folder.name if one.name not in others else str(one.folder),
                limit=None if one.bound is None else one.bound.limit,
                value=quality.value,
                ms=run.medians[index],
                ratio=timed.ratio if index else 1.0,
                interval=timed.interval if index else run.control[1],
                parameters=totals.parameters,
                macs=totals.macs,
                memory=memory,
                trained=bool(report and report.recoveries),
            )
        )
    original = held_out.quality(modules[ORIGINAL])
    return Front(
        schema_=SCHEMA,
        model=begun.network.program.name,
        measure=held_out.bound.measure,
        held_out=original.inputs,
        source=original.source,
        degraded=original.degraded,
        original=original.original,
        conditions=Conditions(**asdict(session.conditions)),
        control=run.control[1],
        points=tuple(points),
        notes=tuple(notes),
    )
