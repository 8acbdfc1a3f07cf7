"""Images in files: PNG, JPEG, TIFF and NumPy arrays, as float32 tensors (C, H, W)."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import DataError, one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # what hides behind .png and .jpg; JPEG opens MPO, too; all of 8 or 16 bits
_ORIENTATION = 0x0112  # EXIF tag; above 4 the sides change places
_ALPHA = {"LA": "L", "PA": "RGB", "La": "L", "RGBA": "RGB", "RGBa": "RGB"}


def read_image(path: str | Path) -> Tensor:
    """The image in a file, (C, H, W) float32 on the CPU.

    8- and 16-bit integers are scaled to [0, 1], floating-point values are kept as they are. PNG and JPEG are turned
    upright as their EXIF tag says. An alpha channel that is opaque everywhere is dropped. Arrays are (H, W), (H, W, C)
    or (C, H, W): of the first and last axis the shorter one counts channels.

    Raises:
        DataError: there is no such file, it is damaged or of another kind, it has transparent pixels, several pages,
            integers of other sizes, NaN or infinite values, or a library to read it is missing.
    """
    path = Path(path)
    pixels = _scaled(_read(path), path)
    image = torch.from_numpy(np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[None]))
    if not image.numel():
        raise DataError(f"{path} holds no pixels: its shape is {_times(image.shape)}", code="no-data")
    if not bool(torch.isfinite(image).all()):
        raise DataError(f"{path} holds NaN or infinite values", code="not-finite")
    return image


def image_sides(path: str | Path) -> tuple[int, int]:
    """(H, W) of the image in a file, by its header alone.

    Raises:
        DataError: as for `read_image`, as far as the header tells.
    """
    path = Path(path)
    suffix = _suffix(path)
    with _reading(path):
        if suffix == ".npy":
            shape = _layout(np.load(path, mmap_mode="r", allow_pickle=False), path).shape
            return int(shape[-2]), int(shape[-1])
        if suffix in (".tif", ".tiff"):
            with library("tifffile", path).TiffFile(path) as file:
                return file.pages[0].imagelength, file.pages[0].imagewidth
        with library("PIL.Image", path).open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            return (width, height) if picture.getexif().get(_ORIENTATION, 1) > 4 else (height, width)


def image_files(folder: str | Path) -> list[Path]:
    """The image files in a folder and all folders below, by name; hidden ones are left out.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder} is a file, not a folder of images" if folder.exists() else f"no folder {folder}",
            code="not-found",
        )
    inside = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    files = sorted(path for path in inside if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    if not files:
        raise DataError(
            f"{folder} holds no image: looked for {', '.join(SUFFIXES)}, also in the folders below", code="wrong-kind"
        )
    return files


def check_sides(paths: Iterable[Path], least: int) -> None:
    """Refuse images that patches of `least` x `least` pixels cannot be cut from.

    Raises:
        DataError: the first such file, or one whose header cannot be read.
    """
    for path in paths:
        height, width = image_sides(path)
        if min(height, width) < least:
            raise DataError(f"{path} is {height}x{width}, too small for patches of {least}x{least}", code="too-small")


def to_channels(image: Tensor, channels: int, path: str | Path) -> Tensor:
    """(C, H, W) as (`channels`, H, W): colour becomes luminance (Rec. 601), grey is repeated.

    Raises:
        DataError: there is no way from C to `channels`.
    """
    if len(image) == channels:
        return image
    if (len(image), channels) == (3, 1):
        return torch.einsum("chw,c->hw", image, image.new_tensor([0.299, 0.587, 0.114]))[None]
    if (len(image), channels) == (1, 3):
        return image.expand(3, -1, -1)
    raise DataError(
        f"{path} has {_count(len(image))}, where {channels} {'is' if channels == 1 else 'are'} needed: use .npy images "
        "of that many, or a degradation that makes them; to calibrate, an .npy of network inputs or synthetic images",
        code="wrong-input",
    )


def _read(path: Path) -> np.ndarray[Any, Any]:
    """(H, W) or (C, H, W), as it is stored."""
    suffix = _suffix(path)
    with _reading(path):
        if suffix == ".npy":
            return _layout(np.load(path, allow_pickle=False), path)
        return _read_tiff(path) if suffix in (".tif", ".tiff") else _read_picture(path)


def _suffix(path: Path) -> str:
    """The suffix in lower case, of a file that is there and may be an image."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is no image that can be read: known are {', '.join(SUFFIXES)}", code="unreadable")
    if not path.is_file():
        raise DataError(
            f"{path} is a folder, not an image" if path.is_dir() else f"there is no file {path}", code="not-found"
        )
    return path.suffix.lower()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is said of the file."""
    try:
        with warnings.catch_warnings():  # libraries warn of what is wrong in a file; what they return is checked
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise DataError(
            f"{path} cannot be read, it is damaged or no image ({one_line(error)})", code="damaged"
        ) from error


def library(name: str, path: str | Path) -> Any:
    """A module that reads images.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = {"PIL": "pillow"}.get(name.partition(".")[0], name)
        raise DataError(f"{path} needs {package}: pip install 'mofa-compiler[images]'", code="not-installed") from error


def _read_picture(path: Path) -> np.ndarray[Any, Any]:
    with library("PIL.Image", path).open(path, formats=_FORMATS) as opened:
        if _is_deep_colour(path):  # Pillow would read the upper 8 bits of each value
            return _channels_first(_without_alpha(library("imagecodecs", path).png_decode(path.read_bytes()), path))
        picture = library("PIL.ImageOps", path).exif_transpose(opened)
    if "transparency" in picture.info and picture.mode in ("1", "L", "P", "RGB"):
        picture = picture.convert("LA" if picture.mode in ("1", "L") else "RGBA")
    if picture.mode in _ALPHA:
        bands = np.asarray(picture.convert("LA" if _ALPHA[picture.mode] == "L" else "RGBA"))
        return _channels_first(_without_alpha(bands, path))
    if picture.mode.startswith("I"):  # 16-bit grey
        return np.asarray(picture).astype(np.uint16)
    if picture.mode not in ("L", "RGB"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    return _channels_first(np.asarray(picture))


def _is_deep_colour(path: Path) -> bool:
    """Whether a file is a PNG of 16 bits with more than grey, by its header."""
    with path.open("rb") as file:
        header = file.read(26)
    return header[:8] == b"\x89PNG\r\n\x1a\n" and header[24] == 16 and header[25] != 0


def _read_tiff(path: Path) -> np.ndarray[Any, Any]:
    with library("tifffile", path).TiffFile(path) as file:
        if len(file.pages) != 1:
            raise DataError(f"{path} holds {len(file.pages)} pages, where one image is needed", code="bad-image")
        page = file.pages[0]
        kind = getattr(page.photometric, "name", str(page.photometric))
        if kind not in ("MINISBLACK", "MINISWHITE", "RGB", "YCBCR"):
            raise DataError(f"{path} is a TIFF of kind {kind}: save it as grey or RGB", code="bad-image")
        if page.compression != 1:
            library("imagecodecs", path)
        pixels, axes = page.asarray(), page.axes
        if axes not in ("YX", "YXS", "SYX"):
            raise DataError(f"{path} has the axes {axes}, where one grey or RGB image is needed", code="bad-image")
        if axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        if page.extrasamples and pixels.ndim == 3:
            pixels = _without_alpha(pixels, path)
    if kind == "MINISWHITE":
        pixels = np.iinfo(pixels.dtype).max - pixels if pixels.dtype.kind == "u" else ~pixels
    return _channels_first(pixels)


def _layout(pixels: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    """(H, W), (H, W, C) or (C, H, W) as (H, W) or (C, H, W)."""
    if pixels.ndim not in (2, 3):
        raise DataError(
            f"{path} has the shape {_times(pixels.shape)}, where (H, W), (H, W, C) or (C, H, W) is needed",
            code="wrong-input",
        )
    return _channels_first(pixels) if pixels.ndim == 3 and pixels.shape[-1] < pixels.shape[0] else pixels


def _channels_first(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(H, W, C) as (C, H, W); (H, W) stays."""
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels


def _without_alpha(pixels: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    """(H, W, 2 or 4) without its last channel, (H, W, 1 or 3) as it is."""
    if pixels.ndim == 2 or pixels.shape[-1] not in (2, 4):
        return pixels
    opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    if (pixels[..., -1] != opaque).any():
        raise DataError(
            f"{path} has transparent pixels, under which there is no image: save it without alpha", code="bad-image"
        )
    return pixels[..., :-1]


def _scaled(pixels: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    if pixels.dtype.kind in "fb":
        return pixels.astype(np.float32)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} holds {pixels.dtype}, where uint8, uint16 or floating-point values are needed", code="wrong-input"
        )
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _times(shape: Any) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _count(channels: int) -> str:
    return f"{channels} channel{'s' if channels != 1 else ''}"
