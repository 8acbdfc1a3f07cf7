"""What a rewrite does to images: the input, what both networks make of it, and the difference, as figures and PNGs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.degradations import restore
from ..data.raw import EXPOSURE, WHITE_BALANCE
from ..data.samples import Sample
from ..graph.call_spec import CallSpec, tensor_leaves
from ..numerics.running import run
from ..result.rewrite import Rewrite
from .model import IMAGES, Closeness, Image

_WINDOW, _SIGMA = 11, 1.5
_OUTSIDE = 0.05
"""Share of values outside black and white from which on these are not the network's"""

_GAINS = tuple(2**power for power in range(7))
_VISIBLE = 0.25
"""How far the difference that 99 % of the values stay below may go from grey"""


@dataclass(frozen=True)
class Picture:
    """One sample through both networks.

    Attributes:
        data: what a report says of it.
        panels: (3, H, W) or (1, H, W) in [0, 1] by file name, as `data` names them.
    """

    data: Image
    panels: dict[str, Tensor] = field(default_factory=dict)


def pictures_of(rewrite: Rewrite) -> list[Picture]:
    """A rewrite's samples through the original and through the rewritten network, with the weights that it has now."""
    return pictures(rewrite.original.program.graph_module, rewrite.model, rewrite.samples)


def pictures(original: nn.Module, rewritten: nn.Module, samples: Iterable[Sample]) -> list[Picture]:
    """Every sample through both networks; left out are those that a network does not take or makes no image of.

    An image is where all values are finite.
    """
    found: list[Picture] = []
    for sample in samples:
        outputs = _outputs(original, rewritten, sample)
        if outputs is not None:
            found.append(_picture(len(found) + 1, *outputs))
    return found


def write_pictures(found: Iterable[Picture], folder: Path) -> None:
    """Write their panels as 8-bit PNGs into `folder`/images, which is made if there are any.

    Raises:
        OSError: it cannot be written.
    """
    from PIL.Image import fromarray

    for picture in found:
        for name, panel in picture.panels.items():
            (folder / name).parent.mkdir(exist_ok=True)
            pixels = (panel.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(folder / name, optimize=True)


def psnr(one: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio of two images in [0, 1] of one shape, in dB; infinite where they are equal."""
    error = float((one.double() - other.double()).square().mean())
    return -10 * math.log10(error) if error else math.inf


def ssim(one: Tensor, other: Tensor) -> float | None:
    """Structural similarity of two images (C, H, W) in [0, 1], the mean over channels; None where they are too small.

    As Wang et al. 2004 (IEEE TIP 13/4) define it: Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03.
    """
    if min(one.shape[1:]) < _WINDOW:
        return None
    steps = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    line = torch.exp(-(steps**2) / (2 * _SIGMA**2))
    line = line / line.sum()
    a, b = one.double()[:, None], other.double()[:, None]

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean())


def _outputs(original: nn.Module, rewritten: nn.Module, sample: Sample) -> tuple[Sample, Tensor, Tensor] | None:
    """A sample, perhaps cropped, with the output of each network; None where a network does not take it."""
    for one in filter(None, (sample, sample.cropped())):
        try:
            before, after = (_image(network, one.input) for network in (original, rewritten))
        except (
            Exception
        ):  # whatever a network raises at a size that it was not made for: a picture is no reason to stop
            continue
        return None if before is None or after is None else (one, before, after)
    return None


def _image(network: nn.Module, x: Tensor) -> Tensor | None:
    """The network's first output that is an image (C, H, W), on the CPU in float32."""
    weight = next((p for p in network.parameters() if p.is_floating_point()), x)
    output = run(network, CallSpec((x[None].to(weight),), {}))
    images = [leaf for leaf in tensor_leaves(output) if leaf.dim() == 4 and leaf.is_floating_point()]
    return images[0][0].float().cpu() if images and bool(images[0].isfinite().all()) else None


def _picture(number: int, sample: Sample, before: Tensor, after: Tensor) -> Picture:
    target, levels = sample.target, _levels(sample, before, after)
    shown = {"original": restore(before, levels), "rewritten": restore(after, levels)}
    if target is not None and target.shape == before.shape:
        shown["target"] = restore(target, levels)
    if sample.input.shape[0] == before.shape[0]:  # else it is in units of its own
        shown["input"] = restore(sample.input, levels)
    difference = shown["rewritten"] - shown["original"]
    gain = _gain(difference)
    panels = {name: _visible(image, sample.raw) for name, image in shown.items()}
    panels.setdefault("input", _visible(_stretched(sample.input), False))
    panels["difference"] = _colours(0.5 + gain * difference)
    files = {name: f"{IMAGES}/{number}-{name}.png" for name in panels}
    data = Image(
        name=sample.name,
        source=sample.source,
        size=tuple(before.shape[1:]),
        levels=tuple(levels.tolist()),
        shown=_shown(before, sample, levels),
        input=files["input"],
        original=files["original"],
        rewritten=files["rewritten"],
        target=files.get("target"),
        difference=files["difference"],
        gain=gain,
        psnr=_closeness(psnr, shown),
        ssim=_closeness(ssim, shown),
    )
    return Picture(data, {files[name]: panel for name, panel in panels.items()})


def _closeness(compare: Callable[[Tensor, Tensor], float | None], shown: Mapping[str, Tensor]) -> Closeness:
    """Of the input and both outputs against the target, where there is one of that size, and of the outputs."""
    target = shown.get("target")
    figures: dict[str, float | None] = {}
    for name in ("input", "original", "rewritten"):
        image = shown.get(name)
        known = image is not None and target is not None and image.shape == target.shape
        figures[name] = compare(image, target) if known else None  # type: ignore[arg-type]
    return Closeness(**figures, between=compare(shown["original"], shown["rewritten"]))


def _levels(sample: Sample, before: Tensor, after: Tensor) -> Tensor:
    """Black and white: the sample's, or the range of both outputs where they are no image of that range."""
    black, white = sample.levels
    outside = max(float(((output < black) | (output > white)).float().mean()) for output in (before, after))
    if sample.target is not None or (_is_image(before, sample) and outside <= _OUTSIDE):
        return sample.levels
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    return torch.stack([low, high if high > low else low + 1])


def _is_image(output: Tensor, sample: Sample) -> bool:
    """Whether an output has the channels of an image; else they may be classes, or anything."""
    return len(output) in (1, 3) or (sample.raw and len(output) == 4)


def _shown(output: Tensor, sample: Sample, levels: Tensor) -> str:
    """What one sees of an output that is no usual image: `channel 1 of 2, black is −3.2, white 4.1`; else nothing."""
    shown = len(_colours(output))
    channels = f"channel 1 of {len(output)}" if shown == 1 else f"channels 1 to {shown} of {len(output)}"
    black, white = (f"{value:.3g}".replace("-", "−") for value in levels.tolist())
    usual = torch.equal(levels, sample.levels)
    parts = ("" if _is_image(output, sample) else channels, "" if usual else f"black is {black}, white {white}")
    return ", ".join(filter(None, parts))


def _gain(difference: Tensor) -> int:
    """What a difference is multiplied by to be seen: a power of two."""
    sizes = difference.abs().flatten().sort().values
    largest = float(sizes[int(0.99 * (len(sizes) - 1))])
    return max((gain for gain in _GAINS if gain * largest <= _VISIBLE), default=1)


def _visible(image: Tensor, raw: bool) -> Tensor:
    """(C, H, W) in [0, 1] as a screen shows it; raw values are linear, and get exposure, white balance and a gamma."""
    if not raw:
        return _colours(image)
    red, *greens, blue = image / EXPOSURE
    colours = torch.stack([red, sum(greens) / 2, blue]) * torch.tensor(WHITE_BALANCE).view(3, 1, 1)
    return colours.clamp(0, 1) ** (1 / 2.2)


def _colours(image: Tensor) -> Tensor:
    """Three channels as they are and the first three of four, else the first channel in grey."""
    return image[:3] if len(image) in (3, 4) else image[:1]


def _stretched(image: Tensor) -> Tensor:
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp_min(1e-12)
