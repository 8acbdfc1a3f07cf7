"""What stands between a clean image and a network's input, parsed from text such as `gaussian:25`.

Every number may be a range, as in `gaussian:5-50`: one value is then drawn for every image.
"""

from __future__ import annotations

import io
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.errors import DataError, nearest
from . import raw
from .files import library
from .raw import add_noise
from .seeding import integer, uniform

_NUMBER = r"\d+\.?\d*(?:e[+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})(?:-({_NUMBER}))?")
_UNIT = (0.0, 1.0)


class Pair(NamedTuple):
    """What a network is given and should return, and which values of the latter are black and white.

    Attributes:
        input: (C, h, w).
        target: (C', h', w'), in the units of the network's output; (0, h, w) where none is known.
        levels: (2,) black and white in these units: (0, 1) for most.

    PyTorch's default collation makes batches of them: (B, C, h, w), (B, C', h', w') and (B, 2).
    """

    input: Tensor
    target: Tensor
    levels: Tensor


def restore(output: Tensor, levels: Tensor) -> Tensor:
    """A network's output (…, C, h, w) brought back to [0, 1] and clipped, as PSNR (peak 1) is taken; levels (…, 2)."""
    black, white = levels.to(output).unbind(-1)
    black, white = (level[..., None, None, None] for level in (black, white))
    return ((output - black) / (white - black)).clamp(0, 1)


class Range(NamedTuple):
    """A number that is drawn for every image, uniformly from `low` to `high`."""

    low: float
    high: float

    def draw(self, source: torch.Generator) -> float:
        """One number; the generator is left alone where there is no choice."""
        return uniform(self.low, self.high, source)

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}-{self.high:g}"


class Degradation(ABC):
    """Makes pairs of a network's input and target from clean images; as text (`str`) it is the spec it came from.

    Attributes:
        name: what its specs begin with.
        form: a spec, for messages.
        scale: how many pixels of a clean image become one of the network's input, along each side.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    scale: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def parse(cls, numbers: Sequence[Range]) -> Degradation:
        """The degradation with these parameters; ValueError where there are too many, too few or senseless ones."""

    def clean_channels(self, channels: int) -> int:
        """How many channels a clean image needs for an input of `channels`.

        Raises:
            DataError: no clean image gives that many.
        """
        return channels

    @abstractmethod
    def __call__(self, clean: Tensor, generator: torch.Generator) -> Pair:
        """(C, H, W) in [0, 1] → the pair, `scale` times smaller; it depends on the image and the generator alone."""

    @abstractmethod
    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Gaussian(Degradation):
    """White noise, not clipped. `sigma` in 1/255."""

    name: ClassVar[str] = "gaussian"
    form: ClassVar[str] = "gaussian:25 (sigma in 1/255)"
    sigma: Range

    @classmethod
    def parse(cls, numbers: Sequence[Range]) -> Gaussian:
        (sigma,) = numbers
        if 0 < sigma.high < 1:
            raise ValueError(
                f"sigma {sigma} of 255 is next to no noise; where white is 1, it is gaussian:{255 * sigma.high:g}"
            )
        return cls(sigma)

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Pair:
        return _pair(add_noise(clean, self.sigma.draw(generator) / 255, 0, generator), clean)

    def __str__(self) -> str:
        return f"{self.name}:{self.sigma}"


@dataclass(frozen=True)
class PoissonGaussian(Degradation):
    """Shot and read noise, not clipped: variance `gain`·x + `sigma`², in units of the image."""

    name: ClassVar[str] = "poisson-gaussian"
    form: ClassVar[str] = "poisson-gaussian:0.01,0.02 (gain and sigma, white is 1)"
    gain: Range
    sigma: Range

    @classmethod
    def parse(cls, numbers: Sequence[Range]) -> PoissonGaussian:
        gain, sigma = numbers
        if sigma.high > 1:
            raise ValueError(f"sigma {sigma} is more than white, which is 1; of 255, it is {sigma.high / 255:.2g}")
        return cls(gain, sigma)

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Pair:
        gain, sigma = self.gain.draw(generator), self.sigma.draw(generator)
        return _pair(add_noise(clean.clamp_min(0), sigma, gain, generator), clean)

    def __str__(self) -> str:
        return f"{self.name}:{self.gain},{self.sigma}"


@dataclass(frozen=True)
class Jpeg(Degradation):
    """Compression by Pillow at a quality of 1 to 100."""

    name: ClassVar[str] = "jpeg"
    form: ClassVar[str] = "jpeg:30 (quality, 1 to 100)"
    quality: Range

    @classmethod
    def parse(cls, numbers: Sequence[Range]) -> Jpeg:
        (quality,) = numbers
        if not 1 <= quality.low <= quality.high <= 100:
            raise ValueError("quality goes from 1 to 100")
        return cls(quality)

    def clean_channels(self, channels: int) -> int:
        if channels not in (1, 3):
            raise DataError(f"{self} makes images of 1 or 3 channels, the network takes {channels}", code="wrong-input")
        return channels

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Pair:
        images = library("PIL.Image", f"the degradation {self}")
        pixels = (clean.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        images.fromarray(pixels if len(clean) == 3 else pixels[..., 0]).save(
            file, "JPEG", quality=round(self.quality.draw(generator))
        )
        with images.open(file) as picture:
            decoded = torch.from_numpy(np.array(picture)).float() / 255
        return _pair(decoded.permute(2, 0, 1).contiguous() if len(clean) == 3 else decoded[None], clean)

    def __str__(self) -> str:
        return f"{self.name}:{self.quality}"


@dataclass(frozen=True)
class Blur(Degradation):
    """A Gaussian kernel out to 3 sigma, images mirrored at their borders. `sigma` in pixels."""

    name: ClassVar[str] = "blur"
    form: ClassVar[str] = "blur:1.6 (sigma in pixels)"
    sigma: Range

    @classmethod
    def parse(cls, numbers: Sequence[Range]) -> Blur:
        (sigma,) = numbers
        if not sigma.low:
            raise ValueError("sigma must be above 0")
        return cls(sigma)

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Pair:
        sigma = self.sigma.draw(generator)
        reach = math.ceil(3 * sigma)
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
        taps = (taps / taps.sum()).view(1, 1, -1)
        image = clean[:, None]
        if min(clean.shape[1:]) <= reach:
            raise DataError(f"{self} reaches {reach} pixels, further than an image of {_size(clean)}", code="too-small")
        for kernel, pad in ((taps[..., None], (0, 0, reach, reach)), (taps[:, :, None], (reach, reach, 0, 0))):
            image = F.conv2d(F.pad(image, pad, mode="reflect"), kernel)
        return _pair(image[:, 0], clean)

    def __str__(self) -> str:
        return f"{self.name}:{self.sigma}"


@dataclass(frozen=True)
class Raw(Degradation):
    """PMRID's raw noise: packed RGGB at half the size, noise at one of the ISOs, k-sigma transform times 256.

    Input and target are both in units of the transform, whose black and white depend on the ISO.
    """

    name: ClassVar[str] = "raw"
    form: ClassVar[str] = "raw:3200,6400 (ISO, one of them for each image)"
    scale: ClassVar[int] = 2
    isos: tuple[Range, ...]

    @classmethod
    def parse(cls, numbers: Sequence[Range]) -> Raw:
        if not numbers or not all(iso.low for iso in numbers):
            raise ValueError("ISOs must be above 0")
        return cls(tuple(numbers))

    def clean_channels(self, channels: int) -> int:
        if channels != 4:
            raise DataError(
                f"{self} makes packed RGGB images of 4 channels, the network takes {channels}", code="wrong-input"
            )
        return 3

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Pair:
        index = integer(len(self.isos), generator) if len(self.isos) > 1 else 0
        iso = self.isos[index].draw(generator)
        packed = raw.pack_raw(clean.clamp(0, 1))
        noisy = raw.add_raw_noise(packed, iso, generator)
        given, wanted = (raw.k_sigma(image, iso) * raw.SCALE for image in (noisy, packed))
        return _pair(given, wanted, raw.levels(iso))

    def __str__(self) -> str:
        return f"{self.name}:{','.join(map(str, self.isos))}"


KNOWN: dict[str, type[Degradation]] = {kind.name: kind for kind in (Gaussian, PoissonGaussian, Jpeg, Blur, Raw)}


def parse_degradation(spec: str | Degradation) -> Degradation:
    """The degradation that a text stands for, such as `gaussian:25` or `raw:3200,6400`; an object is itself.

    Raises:
        DataError: there is none of this name, or its numbers make no sense.
    """
    if isinstance(spec, Degradation):
        return spec
    name, _, text = spec.strip().lower().partition(":")
    if name not in KNOWN:
        forms = "; ".join(kind.form for kind in KNOWN.values())
        raise DataError(f"there is no degradation {name!r}{_meant(name)}. Known: {forms}", code="unknown-name")
    kind = KNOWN[name]
    try:
        return kind.parse([_range(number) for number in text.split(",")])
    except ValueError as error:
        why = "" if "unpack" in str(error) else f": {error}"
        raise DataError(f"{spec!r} is no degradation of the form {kind.form}{why}", code="bad-value") from error


def _meant(name: str) -> str:
    guess = nearest(name, KNOWN)
    return guess if "did you mean" in guess else ""


def _range(text: str) -> Range:
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text.strip()!r} is neither a number nor a range such as 5-50")
    low, high = float(found[1]), float(found[2] or found[1])
    if not (low <= high < math.inf):
        raise ValueError(f"the range {text.strip()} is empty")
    return Range(low, high)


def _pair(given: Tensor, target: Tensor, levels: tuple[float, float] = _UNIT) -> Pair:
    return Pair(given, target, torch.tensor(levels))


def _size(image: Tensor) -> str:
    return f"{image.shape[-2]}x{image.shape[-1]}"
