"""Patches to train on: what a network is given, and what it should return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..base.errors import DataError
from .degradations import Degradation, Pair, parse_degradation
from .files import check_sides, image_files, read_image, to_channels
from .seeding import generator, integer

INPUT, TARGET = "input", "target"
CACHE = 256 * 2**20
"""Bytes of decoded images that a dataset keeps, in every process that it is used in"""


@dataclass(frozen=True)
class Example:
    """The file of an image, and of its target where that is another file."""

    input: Path
    target: Path | None = None


class Pairs(Dataset[Pair]):
    """Random patches of images: `Pair`s of input (channels, patch, patch), target and levels, float32.

    Item i of epoch e is a function of (seed, e, i) alone, so that training can go on exactly where it was interrupted;
    call `set_epoch` before each epoch (and make no `persistent_workers`, which would not hear of it). Items i and
    i + the number of images are patches of the same image. Where there is no target, `paired` is false and the target
    is empty: (0, h, w), of a batch (B, 0, h, w).

    Use `pairs` to make one.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        channels: int,
        degradation: Degradation | None,
        patch: int,
        seed: int,
        repeat: int,
        fixed: bool = False,
    ) -> None:
        self.examples = tuple(examples)
        self.channels, self.degradation, self.patch, self.seed, self.repeat = channels, degradation, patch, seed, repeat
        self.fixed = fixed
        self.epoch = 0
        self._cache: dict[Path, Tensor] = {}
        self._cached = 0

    @property
    def paired(self) -> bool:
        """Whether targets are known."""
        return self.degradation is not None or self.examples[0].target is not None

    @property
    def description(self) -> dict[str, Any]:
        """What is trained on, as plain data."""
        return {
            "images": len(self.examples),
            "degradation": None if self.degradation is None else str(self.degradation),
            "patch": self.patch,
            "seed": self.seed,
        }

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next items belong to, from 0; without effect on a validation set."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.examples) * self.repeat

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self):
            raise IndexError(index)
        source = generator(self.seed, 0 if self.fixed else 1 + self.epoch, index)
        example = self.examples[index % len(self.examples)]
        if self.degradation is not None:
            clean = self._image(example.input, self.degradation.clean_channels(self.channels))
            (patch,) = self._cut([clean], example, source, self.degradation.scale)
            return self.degradation(patch, source)
        given = self._image(example.input, self.channels)
        if example.target is None:
            (patch,) = self._cut([given], example, source)
            return Pair(patch, patch[:0].clone(), torch.tensor([0.0, 1.0]))
        target = self._target(example.target, self._image(example.input, None))
        patch, wanted = self._cut([given, target], example, source)
        return Pair(patch, wanted, torch.tensor([0.0, 1.0]))

    def _target(self, path: Path, stored: Tensor) -> Tensor:
        """The target, with its channels converted where those of the input were."""
        target = self._image(path, None)
        return to_channels(target, self.channels, path) if len(target) == len(stored) else target

    def _cut(self, images: Sequence[Tensor], example: Example, source: torch.Generator, scale: int = 1) -> list[Tensor]:
        """The same place of each image, which may be a whole multiple of the first in size; flipped and turned."""
        side = self.patch * scale
        height, width = images[0].shape[1:]
        top, left = integer(height - side + 1, source), integer(width - side + 1, source)
        turns, flip = (0, 0) if self.fixed else (integer(4, source), integer(2, source))
        patches = []
        for image in images:
            times, rest = divmod(image.shape[1], height)
            if rest or image.shape[2] != times * width or not times:
                raise DataError(
                    f"{example.target} is {image.shape[1]}x{image.shape[2]}, no multiple of its input {height}x{width}",
                    code="bad-image",
                )
            y, x, length = top * times, left * times, side * times
            patch = image[:, y : y + length, x : x + length].rot90(turns, (1, 2))
            patches.append((patch.flip(2) if flip else patch).clone(memory_format=torch.contiguous_format))
        return patches

    def _image(self, path: Path, channels: int | None) -> Tensor:
        if path in self._cache:
            image = self._cache[path]
        else:
            image = read_image(path)
            if self._cached + image.nbytes <= CACHE:
                self._cache[path] = image
                self._cached += image.nbytes
        return image if channels is None else to_channels(image, channels, path)


def pairs(
    folder: str | Path,
    *,
    channels: int,
    degradation: str | Degradation | None = None,
    patch: int = 128,
    seed: int = 0,
    repeat: int = 1,
) -> Pairs:
    """The images of a folder as a dataset of patches.

    The folder has the sub-folders `input` and `target`, with the same names inside (suffixes may differ); or it holds
    clean images, with a degradation that makes the inputs, or without one, where inputs have no target.

    Args:
        folder: as above.
        channels: of the network's input.
        degradation: as text or object.
        patch: side of the network's input in pixels; targets may be a whole multiple of it.
        seed: of places and noise, >= 0.
        repeat: patches of each image in an epoch.

    Raises:
        DataError: on construction where there is no image, one is too small, a name lacks on one side, or a degradation
            is given for pairs or does not fit the network; on access where an image is damaged or of other channels.
    """
    folder = Path(folder)
    known = None if degradation is None else parse_degradation(degradation)
    if min(patch, repeat, channels) < 1:
        raise DataError(
            f"patch, repeat and channels must be at least 1, not {patch}, {repeat} and {channels}", code="bad-value"
        )
    generator(seed)
    if known is not None:
        known.clean_channels(channels)
    examples = _examples(folder, known, patch)
    return Pairs(examples, channels=channels, degradation=known, patch=patch, seed=seed, repeat=repeat)


def split(dataset: Pairs, validation: float | str | Path, *, repeat: int = 1) -> tuple[Pairs, Pairs]:
    """A dataset for training and one for validation, which holds `repeat` fixed, unturned patches of each image.

    `validation` is the share of the images, above 0 and below 1, that are set aside, at least one; or a folder, laid
    out as for `pairs`. Of a dataset of one image, both parts are patches of that image.

    Raises:
        DataError: the share is not between 0 and 1, or what `pairs` raises for the folder.
    """
    if isinstance(validation, (str, Path)):
        examples = _examples(Path(validation), dataset.degradation, dataset.patch)
        return dataset, _part(dataset, examples, repeat, fixed=True)
    if not 0 < validation < 1:
        raise DataError(
            f"the share of validation images must lie between 0 and 1, not {validation:g}", code="bad-value"
        )
    count = len(dataset.examples)
    if count == 1:
        return dataset, _part(dataset, dataset.examples, repeat, fixed=True)
    order = torch.randperm(count, generator=generator(dataset.seed)).tolist()
    aside = set(order[: min(max(1, round(validation * count)), count - 1)])
    parts = [[e for i, e in enumerate(dataset.examples) if (i in aside) is wanted] for wanted in (False, True)]
    return _part(dataset, parts[0], dataset.repeat, fixed=False), _part(dataset, parts[1], repeat, fixed=True)


def _part(dataset: Pairs, examples: Sequence[Example], repeat: int, *, fixed: bool) -> Pairs:
    return Pairs(
        examples,
        channels=dataset.channels,
        degradation=dataset.degradation,
        patch=dataset.patch,
        seed=dataset.seed,
        repeat=repeat,
        fixed=fixed,
    )


def _examples(folder: Path, degradation: Degradation | None, patch: int) -> list[Example]:
    examples = examples_of(folder, degradation)
    check_sides((example.input for example in examples), patch * (degradation.scale if degradation else 1))
    return examples


def examples_of(folder: Path, degradation: Degradation | None) -> list[Example]:
    """The files of a folder that is laid out as for `pairs`.

    Raises:
        DataError: there is no image, a name lacks on one side, or a degradation is given for pairs.
    """
    sides = [folder / INPUT, folder / TARGET]
    there = [side.is_dir() for side in sides]
    if not any(there):
        return [Example(path) for path in image_files(folder)]
    if degradation is not None:
        raise DataError(
            f"{folder} holds pairs ({INPUT}/ and {TARGET}/): leave the degradation {degradation} out", code="wrong-kind"
        )
    if not all(there):
        raise DataError(
            f"{folder} has {sides[there.index(True)].name}/ but no {sides[there.index(False)].name}/", code="bad-image"
        )
    inputs, targets = (_by_name(side) for side in sides)
    for name in sorted(inputs.keys() ^ targets.keys()):
        here, missing = (inputs, TARGET) if name in inputs else (targets, INPUT)
        raise DataError(f"{here[name]} has no counterpart in {folder / missing}", code="bad-image")
    return [Example(path, targets[name]) for name, path in inputs.items()]


def _by_name(folder: Path) -> dict[str, Path]:
    """The images by their name relative to the folder, without suffix."""
    found: dict[str, Path] = {}
    for path in image_files(folder):
        name = str(path.relative_to(folder).with_suffix(""))
        if name in found:
            raise DataError(f"{found[name]} and {path} differ in their suffix alone: which is meant?", code="ambiguous")
        found[name] = path
    return found
