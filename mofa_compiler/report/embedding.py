"""The images before and after, embedded in the page; made smaller where the page would become too large."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .document import Pane, Pictures
from .model import IMAGES, Image, Report

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

_PANES = {
    "input": "Input",
    "original": "Output of the original",
    "rewritten": "Output of the rewritten network",
    "difference": "Difference of the two outputs",
    "target": "Clean image",
}
_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
_QUALITY = 90
_LARGEST = 16_383
"""Height and width that WebP can have"""


def pictures(report: Report, folder: Path | None, room: int) -> tuple[list[Pictures], str]:
    """What the page shows of `report.images`, and a sentence where that is less than the files hold.

    Args:
        report: the report.
        folder: the bundle, whose folder `images` has the files; without it no image is shown.
        room: how many bytes all images may come to in the page.
    """
    files = {name: found for name in _named(report.images) if (found := _read(folder, name))}
    sources, note = _embedded(files, room)

    def panes(image: Image) -> tuple[Pane, ...]:
        named = ((key, label, getattr(image, key)) for key, label in _PANES.items())
        return tuple(Pane(label, sources.get(name, ""), _caption(key, image)) for key, label, name in named if name)

    return [Pictures(one.name, one.shown, one.size, panes(one)) for one in report.images], note


def missing(report: Report, folder: Path) -> list[str]:
    """Files of images that the report names and that are not there, or no images."""
    named = _named(report.images)
    return [name for name in named if not ((found := _read(folder, name)) and _decoded(found))]


def _named(images: Iterable[Image]) -> list[str]:
    """The files of all panes, each once."""
    return list(dict.fromkeys(name for image in images for pane in _PANES if (name := getattr(image, pane))))


def _read(folder: Path | None, name: str) -> bytes | None:
    """A PNG of the bundle; nothing outside its folder of images is ever read."""
    place, _, file = name.rpartition("/")
    if folder is None or place != IMAGES or Path(file).name != file:
        return None
    try:
        found = (folder / IMAGES / file).read_bytes()
    except OSError:
        return None
    return found if found.startswith(b"\x89PNG\r\n\x1a\n") else None


def _embedded(files: Mapping[str, bytes], room: int) -> tuple[dict[str, str], str]:
    """Data URIs within `room`: the files as they are or, where that is too much, scaled and compressed."""
    images = {name: image for name, found in files.items() if (image := _decoded(found))}
    as_they_are = {name: _uri(files[name], "png") for name in images}
    if sum(map(len, as_they_are.values())) <= room:
        return as_they_are, ""
    smaller: dict[str, str] = {}
    largest = max((side for image in images.values() for side in image.size), default=0)
    for scale in (scale for scale in _SCALES if scale * largest <= _LARGEST):
        smaller = {name: _uri(_compressed(image, scale), "webp") for name, image in images.items()}
        if sum(map(len, smaller.values())) <= room:
            size = "" if scale == 1 else f" at {100 * scale:g} % of their size"
            note = (
                f"To keep this page small, the images are shown compressed{size}; the folder {IMAGES} has them in full."
            )
            return smaller, note
    return {}, f"The images are too large for this page: see the folder {IMAGES} beside it."


def _decoded(found: bytes) -> Pixels | None:
    """The image, or None where the file is damaged or would be larger than memory is likely to be."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(found)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow's errors of damaged PNGs
        return None


def _compressed(image: Pixels, scale: float) -> bytes:
    if scale != 1:
        image = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=_QUALITY)
    return file.getvalue()


def _uri(found: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(found).decode('ascii')}"


def _caption(key: str, image: Image) -> str:
    """How good a pane is, in PSNR and SSIM."""
    if key == "difference":
        close = _figures(image, "between")
        gain = f"grey where both agree, amplified {image.gain:g} times"
        return f"{gain}; one against the other: {close}" if close else gain
    against = _figures(image, key)
    return f"{against} against the clean image" if against else ""


def _figures(image: Image, key: str) -> str:
    psnr, ssim = getattr(image.psnr, key, None), getattr(image.ssim, key, None)
    parts = (
        "" if psnr is None else f"PSNR {psnr:.2f} dB",
        "" if ssim is None else f"SSIM {ssim:.4f}",
    )
    return ", ".join(filter(None, parts))
