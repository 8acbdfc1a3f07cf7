"""Batches of network inputs that rewritten layers are fitted on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import DataError
from .arrays import read_arrays
from .degradations import Degradation, Pair, Raw, parse_degradation
from .files import SUFFIXES, check_sides, image_files, image_sides, read_image, to_channels
from .leaves import dead_leaves
from .samples import Sample
from .seeding import generator, integer

SYNTHETIC = "synthetic"

FITTED, HELD_OUT = "inputs that it was calibrated on", "held out of the calibration"

CROPS, MOST = 64, 256
"""As many as there are unless told, and at most where these are too few"""

ASIDE = 8
"""One of so many images is held out"""

COUNTED_ASIDE = 1000
"""Synthetic images behind those that are fitted to, of which some are held out: no others are made of their numbers"""


class CalibrationImages:
    """Batches (`batch`, `channels`, `size`, `size`) of network inputs, float32; the last one may be smaller.

    `source` is a folder of images (random crops, as many from each image as from the others), a `.npy` or `.npz` file
    of network inputs (N, C, H, W), used as they are in batches, or the word `synthetic` (dead leaves).

    It can be gone through any number of times, gives the same batches every time, and depends on `seed` alone. Images
    are read one at a time, when a batch first needs them; the crops (not the images) are kept in memory from then on.

    Args:
        source: as above.
        channels: of the network's input.
        size: side of the network's input in pixels, rounded down to a multiple of `multiple`.
        degradation: what turns clean images into network inputs, as text or object; None: clean images are inputs.
        crops: how many, over all batches; a file of inputs is used whole. None: 64, and of synthetic ones `more` where
            these turn out to be too few.
        batch: how many crops at once.
        seed: of places and noise, >= 0.
        multiple: of which the network needs the sides of its input to be.

    Raises:
        DataError: on construction where the source, or what it holds as far as names and shapes tell, does not fit the
            network; on iteration where an image is damaged.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        channels: int,
        size: int = 128,
        degradation: str | Degradation | None = None,
        crops: int | None = None,
        batch: int = 4,
        seed: int = 0,
        multiple: int = 1,
    ) -> None:
        self._grows, crops = crops is None and str(source) == SYNTHETIC, CROPS if crops is None else crops
        if min(crops, batch, channels, multiple) < 1 or size < multiple:
            raise DataError(
                f"crops, batch, channels and size must be at least 1 (size at least {multiple}), not {crops}, {batch}, "
                f"{channels} and {size}",
                code="bad-value",
            )
        generator(seed)
        self.source, self.channels, self.batch, self.seed = str(source), channels, batch, seed
        self.size = size // multiple * multiple
        self.degradation = None if degradation is None else parse_degradation(degradation)
        self.crops = self._first = crops
        self._files: list[Path] = []
        self._inputs: np.ndarray[Any, Any] | None = None
        self._aside: CalibrationImages | None = None
        self._kept: dict[int, Tensor] = {}
        path = Path(source)
        if self.source == SYNTHETIC:
            self._clean_channels()
        elif path.suffix.lower() in (".npy", ".npz"):
            if self.degradation is not None:
                raise DataError(
                    f"{path} holds network inputs, used as they are: leave the degradation out", code="wrong-kind"
                )
            self._inputs = _network_inputs(path, channels)
            self.crops = len(self._inputs)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            raise DataError(f"{path} is one image: name the folder that it is in", code="wrong-kind")
        elif not path.exists():
            raise DataError(f"no folder or file {path} (or the word {SYNTHETIC})", code="not-found")
        else:
            self._clean_channels()
            self._files = image_files(path)
            check_sides((self._files[index] for index in {*map(self._file, range(crops))}), self._clean_size())

    @property
    def description(self) -> dict[str, Any]:
        """Where the images come from, as plain data: source, degradation, crops, size, seed."""
        made = self._inputs is None
        return {
            "source": self.source,
            "degradation": None if self.degradation is None else str(self.degradation),
            "crops": self.crops,
            "size": self.size if made else None,
            "seed": self.seed if made else None,
        }

    def __str__(self) -> str:
        """The description in a line."""
        plural = "" if self.crops == 1 else "s"
        if self._inputs is not None:
            return f"{self.crops} input{plural} of {self.source}"
        made = f", {self.degradation}" if self.degradation else ""
        return f"{self.crops} crop{plural} of {self.size}x{self.size}, {self.source}{made}, seed {self.seed}"

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-self.crops // self.batch)

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, self.crops, self.batch):
            stop = min(start + self.batch, self.crops)
            if self._inputs is not None:
                yield _finite(torch.from_numpy(self._inputs[start:stop].astype(np.float32)), self.source)
            else:
                yield torch.stack([self._crop(index) for index in range(start, stop)])

    @property
    def is_file(self) -> bool:
        """Whether they are network inputs, used as they are."""
        return self._inputs is not None

    def to_folder(self, folder: Path, count: int) -> None:
        """Put the clean images into a folder: links to those that there are, or else `count` synthetic ones."""
        for index, file in enumerate(self._files):
            (folder / f"{index}-{file.name}").symlink_to(file.absolute())
        for index in range(0 if self._files else count):
            source = generator(self.seed, self.crops + COUNTED_ASIDE + index)
            clean = dead_leaves(2 * self._clean_size(), self._clean_channels(), source)
            np.save(folder / f"{index}.npy", clean.numpy())

    def first(self, count: int) -> CalibrationImages:
        """The first `count` of these images alone."""
        fewer = copy.copy(self)
        fewer.crops = min(count, self.crops)
        if self._inputs is not None:
            fewer._inputs = self._inputs[:count]
        return fewer

    def more(self) -> CalibrationImages | None:
        """Four times as many; None where there are no more, or their number was given."""
        if not self._grows or self.crops >= MOST:
            return None
        more = copy.copy(self)
        more._kept, more.crops = dict(self._kept), min(4 * self.crops, MOST)
        return more

    def held_out(self, count: int, side: int | None = None) -> tuple[CalibrationImages, list[Pair]]:
        """These images without some of them, and `count` crops of those, with their targets where a degradation is.

        A crop is as large as a network input of `size`, or the largest multiple of it up to `side` that fits. Every
        eighth image is set aside, of four and more at least two. Of a single image or of synthetic ones nothing
        is: the crops are then further ones, of other places and other noise. Of a file of inputs every eighth is set
        aside, at most `count`, and that is all.

        Raises:
            DataError: a file holds a single input.
        """
        rest = copy.copy(self)
        rest._kept = {}
        if self._inputs is not None:
            if len(self._inputs) < 2:
                raise DataError(
                    f"{self.source} holds one input, where one to fit to and one to judge by are needed: add inputs",
                    code="no-data",
                )
            places = range(0, len(self._inputs), ASIDE)[:count]
            rest._inputs, rest._aside = np.delete(self._inputs, places, 0), copy.copy(self)
            rest.crops = len(rest._inputs)
            rest._aside._inputs, rest._aside.crops = self._inputs[places], len(places)
            given = [_finite(torch.from_numpy(self._inputs[i].astype(np.float32)), self.source) for i in places]
            return rest, [_without_target(one) for one in given]
        aside = self._files
        number = len(self._files)
        if number > 1:
            some = max(2 if number > 3 else 1, number // ASIDE)
            aside = [self._files[index * number // some] for index in range(some)]
            rest._files, rest._aside = [file for file in self._files if file not in aside], copy.copy(self)
            rest._aside._files = aside
        check_sides(aside, least := self._clean_size())
        times = max((side or self.size) // self.size, 1)
        wanted = least * min([times, *(min(image_sides(file)) // least for file in aside)])
        pairs = []
        for index in range(count):
            source = generator(self.seed, self.crops + index)
            if aside:
                clean = self._window(self._read(aside[index % len(aside)]), source, wanted)
            else:
                clean = dead_leaves(wanted, self._clean_channels(), source)
            pairs.append(self.degradation(clean, source) if self.degradation else _without_target(clean))
        return rest, pairs

    def samples(self, count: int) -> list[Sample]:
        """`count` images to look at: crops of other places and with other noise than those that are iterated over.

        They are twice as large where the images are. A file of inputs gives some of these. Where images or inputs were
        set aside, they are of these.

        Raises:
            DataError: an image is damaged.
        """
        if self._aside is not None:
            return [replace(one, source=HELD_OUT) for one in self._aside.samples(count)]
        if self._inputs is not None:
            number = min(count, self.crops)
            places = [index * self.crops // number for index in range(number)]
            inputs = [(place, torch.from_numpy(self._inputs[place].astype(np.float32))) for place in places]
            name = Path(self.source).name
            return [Sample(f"{name}, input {place}", one, source=FITTED) for place, one in inputs]
        found = []
        number = min(count, len(self._files)) if self._files else count
        origin = f"{'other crops of images' if self._files else 'like those'} that it was calibrated on"
        for index in range(number):
            source = generator(self.seed, self.crops + index)
            side = 2 * self._clean_size()
            if self._files:
                file = self._files[index * len(self._files) // number]
                image = self._read(file)
                name, side = file.stem, side if min(image.shape[1:]) >= side else self._clean_size()
                clean = self._window(image, source, side)
            else:
                name, clean = f"dead leaves {index + 1}", dead_leaves(side, self._clean_channels(), source)
            if self.degradation is None:
                found.append(Sample(name, clean, side=self.size, source=origin))
            else:
                pair = self.degradation(clean, source)
                raw = isinstance(self.degradation, Raw)
                found.append(Sample(name, pair.input, pair.target, pair.levels, self.size, raw, origin))
        return found

    def _clean_channels(self) -> int:
        return self.degradation.clean_channels(self.channels) if self.degradation else self.channels

    def _crop(self, index: int) -> Tensor:
        if index not in self._kept:
            if self._files:
                self._cut(self._file(index))
            else:
                number = index if index < self._first else index + 2 * COUNTED_ASIDE  # clear of what is held out
                source = generator(self.seed, number)
                clean = dead_leaves(self._clean_size(), self._clean_channels(), source)
                self._kept[index] = self._degraded(clean, source)
        return self._kept[index]

    def _file(self, index: int) -> int:
        """Which image a crop is from: neighbours are from different images, and the counts differ by one at most."""
        count = len(self._files)
        return index % count if count <= self.crops else index * count // self.crops

    def _cut(self, file: int) -> None:
        """Keep all crops of an image, so that it is read but once."""
        image = self._read(self._files[file])
        for index in range(self.crops):
            if self._file(index) == file:
                source = generator(self.seed, index)
                self._kept[index] = self._degraded(self._window(image, source), source)

    def _read(self, path: Path) -> Tensor:
        return to_channels(read_image(path), self._clean_channels(), path)

    def _window(self, image: Tensor, source: torch.Generator, side: int | None = None) -> Tensor:
        """A crop of a clean image, at a random place."""
        height, width = image.shape[1:]
        side = side or self._clean_size()
        top, left = integer(height - side + 1, source), integer(width - side + 1, source)
        return image[:, top : top + side, left : left + side].clone()

    def _clean_size(self) -> int:
        return self.size * (self.degradation.scale if self.degradation else 1)

    def _degraded(self, clean: Tensor, source: torch.Generator) -> Tensor:
        return self.degradation(clean, source).input if self.degradation else clean


def _without_target(image: Tensor) -> Pair:
    return Pair(image, image.new_empty(0, *image.shape[1:]), torch.tensor((0.0, 1.0)))


def calibration_batches(source: str | Path, **options: Any) -> CalibrationImages:
    """`CalibrationImages` with the same arguments."""
    return CalibrationImages(source, **options)


def _network_inputs(path: Path, channels: int) -> np.ndarray[Any, Any]:
    """(N, C, H, W) of a file, not yet read where it is a `.npy`."""
    found = read_arrays(path)
    if len(found) != 1:
        raise DataError(f"{path} holds {len(found)} arrays, where one of network inputs is needed", code="wrong-input")
    (loaded,) = found.values()
    shape = "x".join(map(str, loaded.shape))
    if loaded.ndim != 4:
        raise DataError(
            f"{path} has the shape {shape}, where network inputs (N, C, H, W) are needed", code="wrong-input"
        )
    if loaded.shape[1] != channels:
        raise DataError(
            f"{path} has the shape {shape}, {loaded.shape[1]} channels, the network takes {channels}",
            code="wrong-input",
        )
    if loaded.dtype.kind != "f":
        raise DataError(
            f"{path} holds {loaded.dtype}, where network inputs as floating-point values are needed", code="wrong-input"
        )
    return loaded


def _finite(images: Tensor, source: str) -> Tensor:
    if not bool(torch.isfinite(images).all()):
        raise DataError(f"{source} holds NaN or infinite values", code="not-finite")
    return images
