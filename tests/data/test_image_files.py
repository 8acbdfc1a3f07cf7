"""Images in files: every kind that is read, and one clear line for each that is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mofa_compiler.base.errors import DataError
from mofa_compiler.data import image_files, read_image
from mofa_compiler.data.files import image_sides
from tests.raising import raising

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (6, 9, 3), dtype=np.uint16)
FLOATS = RANDOM.normal(size=(6, 9, 3)).astype(np.float32)


def png(pixels: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        Image.fromarray(pixels).save(folder / "a.png")
        return folder / "a.png"

    return write


def deep_png(pixels: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "a.PNG").write_bytes(imagecodecs.png_encode(pixels))
        return folder / "a.PNG"

    return write


def tiff(pixels: np.ndarray, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        tifffile.imwrite(folder / "a.tif", pixels, **options)
        return folder / "a.tif"

    return write


def array(pixels: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "a.npy", pixels)
        return folder / "a.npy"

    return write


def opaque(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full_like(pixels[..., :1], np.iinfo(pixels.dtype).max)], axis=-1)


def other_kind(kind: str, name: str, **options: Any) -> Callable[[Path], Path]:
    """A file whose name says that it is of another kind."""

    def write(folder: Path) -> Path:
        Image.fromarray(COLOUR).save(folder / name, format=kind, **options)
        return folder / name

    return write


def cmyk(folder: Path) -> Path:
    Image.new("CMYK", (9, 6), (0, 0, 0, 127)).save(folder / "a.jpg")
    return folder / "a.jpg"


def transparent_colour(folder: Path) -> Path:
    """One colour of all is declared transparent; no pixel has it."""
    Image.fromarray(COLOUR // 2).save(folder / "a.png", transparency=(255, 255, 255))
    return folder / "a.png"


def palette(folder: Path) -> Path:
    few = Image.fromarray(COLOUR // 64 * 85).quantize(64)
    few.save(folder / "a.png")
    return folder / "a.png"


READ: dict[str, tuple[Callable[[Path], Path], np.ndarray]] = {
    "png": (png(COLOUR), COLOUR / 255),
    "grey png": (png(COLOUR[..., 0]), COLOUR[..., :1] / 255),
    "opaque alpha": (png(opaque(COLOUR)), COLOUR / 255),
    "grey and alpha": (png(opaque(COLOUR[..., :1])), COLOUR[..., :1] / 255),
    "16-bit alpha png": (deep_png(opaque(DEEP)), DEEP / 65535),
    "16-bit grey png": (png(DEEP[..., 0]), DEEP[..., :1] / 65535),
    "16-bit png": (deep_png(DEEP), DEEP / 65535),
    "palette": (palette, COLOUR // 64 * 85 / 255),
    "black and white": (png(COLOUR[..., 0] > 99), COLOUR[..., :1] > 99),
    "unused transparent colour": (transparent_colour, COLOUR // 2 / 255),
    "bmp named png": (other_kind("BMP", "a.png"), COLOUR / 255),
    "webp named jpg": (other_kind("WEBP", "a.jpg", lossless=True), COLOUR / 255),
    "cmyk": (cmyk, np.full((6, 9, 3), 128 / 255)),
    "tiff": (tiff(COLOUR), COLOUR / 255),
    "grey tiff": (tiff(COLOUR[..., 0]), COLOUR[..., :1] / 255),
    "16-bit tiff": (tiff(DEEP), DEEP / 65535),
    "16-bit tiff, opaque alpha": (tiff(opaque(DEEP), photometric="rgb", extrasamples=["unassalpha"]), DEEP / 65535),
    "compressed tiff": (tiff(DEEP, compression="lzw"), DEEP / 65535),
    "planar tiff": (tiff(DEEP.transpose(2, 0, 1), planarconfig="separate", photometric="rgb"), DEEP / 65535),
    "inverted tiff": (tiff(COLOUR[..., 0], photometric="miniswhite"), 1 - COLOUR[..., :1] / 255),
    "float tiff": (tiff(FLOATS, photometric="rgb"), FLOATS),
    "(H, W) array": (array(FLOATS[..., 0]), FLOATS[..., :1]),
    "(H, W, C) array": (array(COLOUR), COLOUR / 255),
    "(C, H, W) array": (array(FLOATS.transpose(2, 0, 1).astype(np.float64)), FLOATS),
}


@pytest.mark.parametrize(("write", "expected"), READ.values(), ids=READ.keys())
def test_read(tmp_path: Path, write: Callable[[Path], Path], expected: np.ndarray):
    path = write(tmp_path)
    image = read_image(path)
    assert (image.dtype, image.is_contiguous()) == (torch.float32, True)
    assert image.shape == expected.transpose(2, 0, 1).shape
    np.testing.assert_allclose(image.numpy(), expected.transpose(2, 0, 1), atol=1e-6)
    assert image_sides(path) == tuple(image.shape[1:])


def test_jpeg_is_close_and_stands_upright(tmp_path: Path):
    smooth = np.linspace(0, 255, 32 * 48, dtype=np.uint8).reshape(32, 48)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(smooth).save(tmp_path / "a.jpeg", quality=95, exif=exif)
    image = read_image(tmp_path / "a.jpeg")
    assert image_sides(tmp_path / "a.jpeg") == tuple(image.shape[1:]) == (48, 32)
    np.testing.assert_allclose(image[0].numpy() * 255, np.rot90(smooth, -1), atol=3)


def test_of_several_jpegs_in_a_file_the_first_is_read(tmp_path: Path) -> None:
    """As cameras write them for stereo, and phones for a preview."""
    first, second = (Image.new("RGB", (16, 8), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    image = read_image(tmp_path / "a.jpg")
    assert image_sides(tmp_path / "a.jpg") == (8, 16)
    np.testing.assert_allclose(image[:, 4, 8].numpy(), [1, 0, 0], atol=0.02)


def nothing(folder: Path) -> Path:
    return folder / "no.png"


def text(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text("no image")
        return folder / name

    return write


def truncated(folder: Path) -> Path:
    path = png(COLOUR)(folder)
    path.write_bytes(path.read_bytes()[:-60])
    return path


def folder_named(folder: Path) -> Path:
    (folder / "a.png").mkdir()
    return folder / "a.png"


def glass(pixels: np.ndarray) -> np.ndarray:
    pixels = opaque(pixels)
    pixels[0, 0, -1] = 7
    return pixels


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (nothing, "there is no file"),
    "folder": (folder_named, "is a folder, not an image"),
    "other suffix": (text("a.gif"), "is no image that can be read: known are .png, .jpg"),
    "no png": (text("a.png"), "cannot be read, it is damaged or no image (UnidentifiedImageError"),
    "no tiff": (text("a.tiff"), "cannot be read, it is damaged or no image"),
    "no array": (text("a.npy"), "cannot be read, it is damaged or no image"),
    "truncated": (truncated, "cannot be read, it is damaged or no image"),
    "transparent": (png(glass(COLOUR)), "has transparent pixels"),
    "transparent tiff": (tiff(glass(DEEP), photometric="rgb", extrasamples=["unassalpha"]), "has transparent pixels"),
    "pages": (tiff(np.stack([COLOUR, COLOUR]), photometric="rgb"), "holds 2 pages"),
    "integers": (array(COLOUR.astype(np.int64)), "holds int64, where uint8, uint16 or floating-point"),
    "not finite": (array(np.full_like(FLOATS, np.inf)), "holds NaN or infinite values"),
    "batch": (array(FLOATS[None]), "has the shape 1x6x9x3, where (H, W), (H, W, C) or (C, H, W)"),
    "no pixels": (array(FLOATS[:0]), "holds no pixels"),
}


@pytest.mark.parametrize(("write", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, write: Callable[[Path], Path], message: str):
    path = write(tmp_path)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path)) or str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("write", "module", "package"),
    [
        (png(COLOUR), "PIL.Image", "pillow"),
        (tiff(COLOUR), "tifffile", "tifffile"),
        (tiff(COLOUR, compression="lzw"), "imagecodecs", "imagecodecs"),
        (deep_png(DEEP), "imagecodecs", "imagecodecs"),
    ],
    ids=["pillow", "tifffile", "tiff codec", "png codec"],
)
def test_a_missing_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Path], module: str, package: str
):
    path = write(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with raising(DataError, "not-installed", path.name, package, "mofa-compiler[images]"):
        read_image(path)


def test_files_are_found_below_and_in_order(tmp_path: Path):
    for name in ("b.png", "a/z.TIFF", "a/b.npy", ".hidden/c.png", "._b.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in image_files(tmp_path)] == ["a/b.npy", "a/z.TIFF", "b.png"]


def test_folders_without_images(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with raising(DataError, "wrong-kind", ".png", ".tiff", ".npy"):
        image_files(tmp_path)
    with raising(DataError, "not-found", "nowhere"):
        image_files(tmp_path / "nowhere")
    with raising(DataError, "not-found", "notes.txt"):
        image_files(tmp_path / "notes.txt")
