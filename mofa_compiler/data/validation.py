"""Whole images to judge a network by: a person's own validation set, read one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ..base.errors import DataError
from .degradations import Degradation, Pair, parse_degradation
from .files import read_image, to_channels
from .pairing import INPUT, Example, examples_of
from .seeding import generator

LARGEST = 1024
"""Side in pixels of the network's input beyond which an image's centre is taken"""


class Named(NamedTuple):
    """A pair, and what to call it."""

    name: str
    pair: Pair


class ValidationImages:
    """The images of a folder, each whole, or as much around its centre as 1024x1024 pixels.

    The folder has the sub-folders `input` and `target`, with the same names inside; or it holds clean images, with a
    degradation that makes the inputs, or without one, where inputs have no target.

    Args:
        folder: as above.
        channels: of the network's input.
        degradation: as text or object; pairs go without.
        seed: of noise, >= 0.

    Raises:
        DataError: there is no image, a name lacks on one side, or the degradation does not fit the network; while they
            are read: an image is damaged, or of other channels.
    """

    def __init__(
        self, folder: str | Path, *, channels: int, degradation: str | Degradation | None = None, seed: int = 0
    ) -> None:
        generator(seed)
        self.folder, self.channels, self.seed = Path(folder), channels, seed
        paired = (self.folder / INPUT).is_dir()
        self.degradation = None if degradation is None or paired else parse_degradation(degradation)
        if self.degradation is not None:
            self.degradation.clean_channels(channels)
        self._examples = examples_of(self.folder, self.degradation)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._examples)

    def __str__(self) -> str:
        """Where they come from, in a line."""
        return ", ".join(filter(None, (str(self.folder), str(self.degradation or ""))))

    def __iter__(self) -> Iterator[Named]:
        for index, example in enumerate(self._examples):
            yield Named(str(example.input), self._pair(index, example))

    def _pair(self, index: int, example: Example) -> Pair:
        if self.degradation is not None:
            scale = self.degradation.scale
            clean = to_channels(
                read_image(example.input), self.degradation.clean_channels(self.channels), example.input
            )
            height, width = (min(LARGEST, side // scale) * scale for side in clean.shape[1:])
            whole = Pair(clean, clean[:0], torch.tensor([0.0, 1.0]))
            return self.degradation(centre(whole, height, width).input, generator(self.seed, index))
        stored = read_image(example.input)
        given = to_channels(stored, self.channels, example.input)
        target = given[:0]
        if example.target is not None:
            target = read_image(example.target)
            target = to_channels(target, self.channels, example.target) if len(target) == len(stored) else target
            times, rest = divmod(target.shape[1], given.shape[1])
            if rest or not times or target.shape[2] != times * given.shape[2]:
                sizes = [f"{image.shape[1]}x{image.shape[2]}" for image in (target, given)]
                raise DataError(
                    f"{example.target} is {sizes[0]}, no multiple of its input {sizes[1]}", code="bad-image"
                )
        return centre(Pair(given, target, torch.tensor([0.0, 1.0])), LARGEST, LARGEST)


def centre(pair: Pair, height: int, width: int) -> Pair:
    """At most so many pixels of the input around its centre, and what belongs to them of the target."""
    have = pair.input.shape[1:]
    sides = min(height, have[0]), min(width, have[1])
    top, left = ((whole - side) // 2 for whole, side in zip(have, sides, strict=True))

    def part(image: torch.Tensor) -> torch.Tensor:
        times = image.shape[1] // have[0]
        rows = slice(top * times, (top + sides[0]) * times)
        return image[:, rows, left * times : (left + sides[1]) * times].clone()

    return Pair(part(pair.input), part(pair.target), pair.levels)
