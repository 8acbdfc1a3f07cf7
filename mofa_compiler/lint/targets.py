"""What there is to lint: jobs on configured models, on architectures and on bundles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..base.atomic_files import is_folder
from ..base.errors import DataError, MofaError
from ..graph.call_spec import CallSpec
from ..loading.import_target import load_target
from ..loading.input_files import Make, of_shapes, read_inputs
from .config import Config, Model
from .finding import Position
from .runner import Job
from .settings import Settings
from .source_positions import recording


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, and how to read it; see `mofa_compiler.loading.checkpoint.load_checkpoint`."""

    file: str
    key: str | None = None
    strip_prefix: str | None = None


def configured(config: Config, model: Model) -> Job:
    target = config.located(model.target)
    weights = None
    if model.checkpoint is not None:
        weights = Checkpoint(config.located(model.checkpoint), model.key, model.strip_prefix)
    index = config.models.index(model)
    job = of_target(model.name, target, model.args, _inputs(config, model, index), config.settings_for(model), weights)
    return replace(
        job,
        target=model.target,  # as the configuration names it
        blames=lambda message, *key: config.blames(message, "models", index, *key),
    )


def _inputs(config: Config, model: Model, index: int) -> Make | None:
    """What makes a configured model's inputs.

    Raises:
        LintError: the file that they are in cannot be read; the message names the line of the configuration.
    """
    if model.input is None or not isinstance(model.input, str):
        return of_shapes(model.input) if model.input else None
    try:
        return read_inputs(config.located(model.input))
    except MofaError as error:
        raise config.blames(str(error), "models", index, "input") from error


def of_target(
    name: str,
    target: str,
    args: Mapping[str, Any],
    inputs: Make | None,
    settings: Settings,
    weights: Checkpoint | None = None,
) -> Job:
    """A job on an architecture."""

    def build() -> nn.Module:
        model = load_target(target, args)
        if weights is not None:
            from ..loading.checkpoint import fit, load_checkpoint

            found = load_checkpoint(weights.file, model, key=weights.key, strip_prefix=weights.strip_prefix)
            fit(model, found.state, found.description)
        return model

    return replace(
        _recorded(name, target, build, inputs, settings),
        args=args,
        checkpoint=Path(weights.file).name if weights else "",
    )


def of_bundle(name: str, folder: Path, inputs: Make | None, settings: Settings) -> Job:
    """A job on what a bundle holds.

    Raises:
        BundleError: there is no bundle.
    """
    from ..bundle import load
    from ..bundle.recipe import read_recipe

    call = CallSpec.from_data(read_recipe(folder)["inputs"])
    job = _recorded(name, str(folder), lambda: load(folder), inputs, settings)
    return job if inputs else replace(job, inputs=lambda _: call)


def calibration_images(source: str, degrade: str | None, call: CallSpec) -> Iterable[Any]:
    """Calibration inputs for a network that is called so.

    Raises:
        DataError: they cannot be read, or the network does not take one image.
    """
    from ..data import CalibrationImages  # slow to import, and most linting needs none

    shapes = [spec.shape for spec in call.tensors]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise DataError(f"--calibrate is for networks of one image, this takes {call}", code="wrong-input")
    _, channels, height, width = shapes[0]
    return CalibrationImages(source, channels=channels, size=min(128, height, width), degradation=degrade)


def _recorded(
    name: str,
    target: str,
    make: Callable[[], nn.Module],
    inputs: Make | None,
    settings: Settings,
) -> Job:
    files: set[str] = set()

    def build() -> tuple[nn.Module, Mapping[str, Position]]:
        with recording() as made:
            model = make()
        files.update(made.files)
        return model, made.positions(model)

    reference = settings.reference
    other = None if reference is None else (lambda: _reference(reference))
    return Job(name, target, build, inputs or (lambda _: None), settings, other, files=files)


def _reference(reference: str) -> nn.Module:
    """A bundle's network, or a target's."""
    if is_folder(Path(reference)):
        from ..bundle import load

        return load(Path(reference)).eval()
    return load_target(reference).eval()
