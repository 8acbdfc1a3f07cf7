"""What there is to lint: jobs on configured models, on architectures and on bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..inputs import CallSpec, ExampleInputs, InputSpec
from ..target import load_target
from ..writing import is_folder
from .config import Config, Model
from .finding import Position
from .positions import recording
from .running import Job
from .settings import Settings


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, and how to read it; see `mofa_compiler.checkpoint.load_checkpoint`."""

    file: str
    key: str | None = None
    strip_prefix: str | None = None


def configured(config: Config, model: Model) -> Job:
    target = config.located(model.target)
    weights = None
    if model.checkpoint is not None:
        weights = Checkpoint(config.located(model.checkpoint), model.key, model.strip_prefix)
    job = of_target(model.name, target, model.args, model.input or (), config.settings_for(model), weights)
    index = config.models.index(model)
    return replace(
        job,
        target=model.target,  # as the configuration names it
        blames=lambda message, *key: config.blames(message, "models", index, *key),
    )


def of_target(
    name: str,
    target: str,
    args: Mapping[str, Any],
    shapes: Sequence[tuple[int, ...]],
    settings: Settings,
    weights: Checkpoint | None = None,
) -> Job:
    """A job on an architecture."""

    def build() -> nn.Module:
        model = load_target(target, args)
        if weights is not None:
            from ..checkpoint import fit, load_checkpoint

            found = load_checkpoint(weights.file, model, key=weights.key, strip_prefix=weights.strip_prefix)
            fit(model, found.state, found.description)
        return model

    return replace(
        _recorded(name, target, build, shapes, settings),
        args=args,
        checkpoint=Path(weights.file).name if weights else "",
    )


def of_bundle(name: str, folder: Path, shapes: Sequence[tuple[int, ...]], settings: Settings) -> Job:
    """A job on what a bundle holds.

    Raises:
        BundleError: there is no bundle.
    """
    from ..bundle import load
    from ..bundle.recipe import read_recipe

    call = CallSpec.from_data(read_recipe(folder)["inputs"])
    job = _recorded(name, str(folder), lambda: load(folder), shapes, settings)
    return job if shapes else replace(job, inputs=lambda _: call)


def _recorded(
    name: str,
    target: str,
    make: Callable[[], nn.Module],
    shapes: Sequence[tuple[int, ...]],
    settings: Settings,
) -> Job:
    files: set[str] = set()

    def build() -> tuple[nn.Module, Mapping[str, Position]]:
        with recording() as made:
            model = make()
        files.update(made.files)
        return model, made.positions(model)

    def inputs(model: nn.Module) -> ExampleInputs:
        if not shapes:
            return None
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        return CallSpec(tuple(InputSpec(shape, dtype) for shape in shapes))

    reference = settings.reference
    other = None if reference is None else (lambda: _reference(reference))
    return Job(name, target, build, inputs, settings, other, files=files)


def _reference(reference: str) -> nn.Module:
    """A bundle's network, or a target's."""
    if is_folder(Path(reference)):
        from ..bundle import load

        return load(Path(reference)).eval()
    return load_target(reference).eval()
