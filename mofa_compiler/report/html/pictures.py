"""The images before and after, embedded in the page; made smaller where the page would become too large."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import text

FOLDER = "images"
_PANES = {
    "input": "Input",
    "original": "Output of the original",
    "rewritten": "Output of the rewritten network",
    "difference": "Difference of the two outputs",
    "target": "Clean image",
}
_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
_QUALITY = 90


def pictures(report: Mapping[str, Any], folder: Path | None, room: int) -> tuple[list[dict[str, Any]], str]:
    """What the page shows of `report["images"]`, and a sentence where that is less than the files hold.

    Args:
        report: the report.
        folder: the bundle, whose folder `images` has the files; without it no image is shown.
        room: how many bytes all images may come to in the page.

    Returns:
        For each image `{"name", "height", "width", "panes": [{"key", "label", "source", "caption"}]}`; `source` is a
        data URI, or empty where the file is missing or no image.
    """
    images = report.get("images") or ()
    files = {
        name: found
        for name in dict.fromkeys(image.get(pane) for image in images for pane in _PANES)
        if name and (found := _read(folder, name))
    }
    sources, note = _embedded(files, room)
    shown = []
    for image in images:
        height, width = image["size"]
        panes = [
            {"key": key, "label": label, "source": sources.get(image[key], ""), "caption": _caption(key, image)}
            for key, label in _PANES.items()
            if image.get(key)
        ]
        shown.append({"name": text.printable(image["name"]), "height": height, "width": width, "panes": panes})
    return shown, note


def _read(folder: Path | None, name: str) -> bytes | None:
    """A PNG of the bundle; nothing outside its folder of images is ever read."""
    place, _, file = name.rpartition("/")
    if folder is None or place != FOLDER or Path(file).name != file:
        return None
    try:
        found = (folder / FOLDER / file).read_bytes()
    except OSError:
        return None
    return found if found.startswith(b"\x89PNG\r\n\x1a\n") else None


def _embedded(files: Mapping[str, bytes], room: int) -> tuple[dict[str, str], str]:
    """Data URIs within `room`: the files as they are or, where that is too much, scaled and compressed."""
    as_they_are = {name: _uri(found, "png") for name, found in files.items()}
    if sum(map(len, as_they_are.values())) <= room:
        return as_they_are, ""
    smaller: dict[str, str] = {}
    for scale in _SCALES:
        smaller = {name: _uri(_compressed(found, scale), "webp") for name, found in files.items()}
        if sum(map(len, smaller.values())) <= room:
            size = "" if scale == 1 else f" at {100 * scale:g} % of their size"
            note = (
                f"To keep this page small, the images are shown compressed{size}; the folder {FOLDER} has them in full."
            )
            return smaller, note
    return {}, f"The images are too large for this page: see the folder {FOLDER} beside it."


def _compressed(found: bytes, scale: float) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(found)) as image:
        small = image.convert("RGB")
    if scale != 1:
        small = small.resize((max(round(small.width * scale), 1), max(round(small.height * scale), 1)))
    file = io.BytesIO()
    small.save(file, format="WEBP", quality=_QUALITY)
    return file.getvalue()


def _uri(found: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(found).decode('ascii')}"


def _caption(key: str, image: Mapping[str, Any]) -> str:
    """How good a pane is, in PSNR and SSIM."""
    if key == "difference":
        close = _figures(image, "between")
        gain = f"grey where both agree, amplified {image['gain']:g} times"
        return f"{gain}; one against the other: {close}" if close else gain
    against = _figures(image, key)
    return f"{against} against the clean image" if against else ""


def _figures(image: Mapping[str, Any], key: str) -> str:
    psnr, ssim = (image[measure].get(key) for measure in ("psnr", "ssim"))
    parts: Sequence[str] = (
        "" if psnr is None else f"PSNR {psnr:.2f} dB",
        "" if ssim is None else f"SSIM {ssim:.4f}",
    )
    return ", ".join(filter(None, parts))
