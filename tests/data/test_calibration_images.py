"""Batches to calibrate on: the same every time, spread over the images, and checked against the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mofa_compiler.base.errors import DataError
from mofa_compiler.data import CalibrationImages, calibration, calibration_batches
from mofa_compiler.data.calibration import HELD_OUT
from tests.raising import raising


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, told apart by their red; green and blue say where a pixel is."""
    for number, side in enumerate((40, 50, 60)):
        rows, columns = np.mgrid[:side, :side].astype(np.uint8)
        Image.fromarray(np.stack([np.full_like(rows, 10 * number), rows, columns], axis=-1)).save(
            tmp_path / f"{number}.png"
        )
    return tmp_path


def flat(batches: CalibrationImages) -> Tensor:
    return torch.cat(list(batches))


def test_crops_are_cut_evenly_and_as_they_lie(folder: Path):
    batches = calibration_batches(folder, channels=3, size=32, crops=10, batch=4)
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
    assert len(batches) == 3
    crops = (flat(batches) * 255).round()
    assert sorted(Counter(crops[:, 0, 0, 0].tolist()).values()) == [3, 3, 4]
    assert len(set(crops[:4, 0, 0, 0].tolist())) == 3  # every batch is mixed
    assert bool((crops[:, 1].diff(dim=1) == 1).all()) and bool((crops[:, 2].diff(dim=2) == 1).all())
    corners = {tuple(crop[1:, 0, 0].tolist()) for crop in crops}
    assert len(corners) >= 8


def test_fewer_crops_than_images_are_spread_over_the_folder(folder: Path):
    crops = (flat(CalibrationImages(folder, channels=3, size=32, crops=2)) * 255).round()
    assert crops[:, 0, 0, 0].tolist() == [0, 10]


@pytest.mark.parametrize("spec", [None, "gaussian:5-50", "raw:3200,6400"])
def test_passes_and_instances_agree_and_seeds_differ(folder: Path, spec: str | None):
    options: dict[str, Any] = {"channels": 4 if spec == "raw:3200,6400" else 3, "size": 16, "degradation": spec}
    batches = CalibrationImages(folder, crops=6, **options)
    first = flat(batches)
    assert torch.equal(first, flat(batches))
    assert torch.equal(first, flat(CalibrationImages(folder, crops=6, **options)))
    assert not torch.equal(first, flat(CalibrationImages(folder, crops=6, seed=1, **options)))


def test_each_image_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    real = calibration.read_image
    monkeypatch.setattr(calibration, "read_image", lambda path: (read.append(path.name), real(path))[1])
    batches = CalibrationImages(folder, channels=3, size=16, crops=11)
    for _ in range(3):
        flat(batches)
    assert sorted(read) == ["0.png", "1.png", "2.png"]


def test_grey_networks_get_luminance(folder: Path):
    colour = flat(CalibrationImages(folder, channels=3, size=16, crops=3))
    grey = flat(CalibrationImages(folder, channels=1, size=16, crops=3))
    expected = 0.299 * colour[:, :1] + 0.587 * colour[:, 1:2] + 0.114 * colour[:, 2:]
    torch.testing.assert_close(grey, expected)


def test_colour_networks_get_grey_images_in_each_channel(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((20, 20), dtype=np.float32))
    crop = flat(CalibrationImages(tmp_path, channels=3, size=16, crops=1))[0]
    assert torch.equal(crop[0], crop[1]) and torch.equal(crop[1], crop[2])


def test_arrays_of_as_many_channels_are_taken(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((7, 20, 20), dtype=np.float32))
    assert flat(CalibrationImages(tmp_path, channels=7, size=16, crops=2)).shape == (2, 7, 16, 16)


@given(
    channels=st.integers(1, 6),
    size=st.integers(8, 24),
    crops=st.integers(1, 5),
    batch=st.integers(1, 4),
    multiple=st.integers(1, 8),
)
def test_synthetic(channels: int, size: int, crops: int, batch: int, multiple: int):
    batches = CalibrationImages(
        "synthetic", channels=channels, size=size, crops=crops, batch=batch, multiple=multiple, degradation="gaussian:9"
    )
    made = list(batches)
    assert len(made) == len(batches)
    side = size - size % multiple
    assert {tuple(image.shape) for image in torch.cat(made)} == {(channels, side, side)}
    assert sum(map(len, made)) == crops
    assert torch.equal(torch.cat(made), flat(batches))


def test_synthetic_raw_images():
    batches = CalibrationImages("synthetic", channels=4, size=16, crops=3, degradation="raw:3200,6400")
    assert flat(batches).shape == (3, 4, 16, 16)
    assert 1 < float(flat(batches).std()) < 100  # in units of the k-sigma transform, not of [0, 1]


def write_npy(path: Path, inputs: np.ndarray) -> Path:
    np.save(path / "inputs.npy", inputs)
    return path / "inputs.npy"


def write_npz(path: Path, inputs: np.ndarray) -> Path:
    np.savez(path / "inputs.npz", inputs)
    return path / "inputs.npz"


@pytest.mark.parametrize("write", [write_npy, write_npz])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_network_inputs_are_used_as_they_are(
    tmp_path: Path, write: Callable[[Path, np.ndarray], Path], dtype: type[np.floating[Any]]
):
    inputs = (300 * np.random.default_rng(0).normal(size=(5, 2, 6, 8))).astype(dtype)
    path = write(tmp_path, inputs)
    batches = CalibrationImages(path, channels=2, crops=3, batch=2)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.equal(flat(batches), torch.from_numpy(inputs.astype(np.float32)))
    assert batches.description == {
        "source": str(path),
        "degradation": None,
        "crops": 5,
        "size": None,
        "seed": None,
    }
    assert str(batches) == f"5 inputs of {path}"


def test_description(folder: Path):
    batches = CalibrationImages(folder, channels=4, size=20, multiple=8, crops=5, degradation="RAW:3200", seed=3)
    assert batches.description == {
        "source": str(folder),
        "degradation": "raw:3200",
        "crops": 5,
        "size": 16,
        "seed": 3,
    }
    assert str(batches) == f"5 crops of 16x16, {folder}, raw:3200, seed 3"
    assert str(CalibrationImages("synthetic", channels=3, crops=1, size=16)) == "1 crop of 16x16, synthetic, seed 0"


def random(*shape: int) -> np.ndarray:
    return np.zeros(shape, dtype=np.float32)


def save(name: str, array: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / name, array)
        return folder / name

    return write


def text(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text("nothing")
        return folder / name

    return write


def two_arrays(folder: Path) -> Path:
    np.savez(folder / "a.npz", random(1, 3, 8, 8), random(1, 3, 8, 8))
    return folder / "a.npz"


def same(folder: Path) -> Path:
    return folder


REFUSED: dict[str, tuple[Callable[[Path], str | Path], dict[str, Any], str]] = {
    "nothing": (lambda _: "nowhere", {}, "no folder or file nowhere (or the word synthetic)"),
    "no file": (lambda _: "nowhere.npy", {}, "there is no file nowhere.npy"),
    "one image": (lambda folder: folder / "0.png", {}, "is one image: name the folder"),
    "crops": (same, {"crops": 0}, "must be at least 1"),
    "size": (same, {"size": 7, "multiple": 8}, "size at least 8"),
    "seed": (same, {"seed": -1}, "a seed must be 0 or more, not -1"),
    "spec": (same, {"degradation": "fog:3"}, "there is no degradation 'fog'"),
    "too small": (same, {"size": 45}, "0.png is 40x40, too small for patches of 45x45"),
    "too small for raw": (same, {"size": 25, "degradation": "raw:800", "channels": 4}, "for patches of 50x50"),
    "raw channels": (same, {"degradation": "raw:800"}, "4 channels, the network takes 3"),
    "raw channels, synthetic": (lambda _: "synthetic", {"degradation": "raw:800"}, "the network takes 3"),
    "inputs degraded": (save("a.npy", random(2, 3, 8, 8)), {"degradation": "blur:1"}, "leave the degradation out"),
    "inputs of other channels": (save("a.npy", random(2, 5, 8, 8)), {}, "5 channels, the network takes 3"),
    "no batch": (save("a.npy", random(3, 8, 8)), {}, "has the shape 3x8x8, where network inputs (N, C, H, W)"),
    "empty": (save("a.npy", random(0, 3, 8, 8)), {}, "0x3x8x8"),
    "integers": (save("a.npy", np.zeros((1, 3, 8, 8), np.uint8)), {}, "holds uint8"),
    "damaged": (text("a.npy"), {}, "cannot be read, it is damaged or no NumPy file"),
    "damaged archive": (text("a.npz"), {}, "cannot be read, it is damaged or no NumPy file"),
    "two arrays": (two_arrays, {}, "holds 2 arrays"),
}


@pytest.mark.parametrize(("source", "options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_any_work(
    folder: Path, source: Callable[[Path], str | Path], options: dict[str, Any], message: str
):
    with pytest.raises(DataError) as caught:
        CalibrationImages(source(folder), **{"channels": 3, "size": 16, **options})
    assert message in str(caught.value)


def test_a_folder_for_a_network_of_other_channels(folder: Path):
    with raising(DataError, "wrong-input", "0.png"):
        flat(CalibrationImages(folder, channels=7, size=16))


def test_inputs_that_are_not_finite(tmp_path: Path):
    path = save("a.npy", np.full((1, 3, 8, 8), np.nan, np.float32))(tmp_path)
    with raising(DataError, "not-finite", "a.npy"):
        flat(CalibrationImages(path, channels=3))


def test_samples_are_of_every_image_and_of_other_places_than_what_is_calibrated_on(folder: Path):
    batches = CalibrationImages(folder, channels=3, size=16, degradation="gaussian:5", crops=6)
    samples = batches.samples(3)
    assert [sample.name for sample in samples] == ["0", "1", "2"]
    assert [tuple(sample.input.shape) for sample in samples] == [(3, 32, 32)] * 3  # twice the size
    assert all(sample.target is not None and sample.side == 16 for sample in samples)
    again = batches.samples(3)
    assert all(torch.equal(one.input, other.input) for one, other in zip(samples, again, strict=True))
    assert len(batches.samples(2)) == 2


def test_samples_of_a_file_of_inputs_are_some_of_these(tmp_path: Path):
    inputs = np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    samples = CalibrationImages(tmp_path / "inputs.npy", channels=3).samples(3)
    assert [sample.name for sample in samples] == [f"inputs.npy, input {index}" for index in (0, 1, 3)]
    assert torch.equal(samples[1].input, torch.from_numpy(inputs[1])) and samples[1].target is None


def test_what_is_held_out_is_no_calibration_input() -> None:
    images = CalibrationImages("synthetic", channels=3, size=16, degradation="gaussian:25", crops=4)
    rest, pairs = images.held_out(3)
    given, target, _ = pairs[0]
    assert given.shape == target.shape == (3, 16, 16)
    assert 0 < float((given - target).square().mean().sqrt()) < 0.2
    assert all(not torch.equal(given, image) for batch in images for image in batch)
    assert torch.equal(images.held_out(2)[1][1].input, pairs[1].input)
    assert all(torch.equal(one, two) for one, two in zip(rest, images, strict=True))
    assert CalibrationImages("synthetic", channels=3, size=16).held_out(1)[1][0].target.numel() == 0


def test_whole_images_are_held_out_of_a_folder(tmp_path: Path) -> None:
    for level in range(3):
        Image.new("L", (24, 24), 100 * level).save(tmp_path / f"{level}.png")
    images = CalibrationImages(tmp_path, channels=3, size=16, degradation="gaussian:1", crops=6)
    rest, pairs = images.held_out(4)
    assert {round(float(pair.target.mean()) * 255) for pair in pairs} == {0}
    assert {round(float(image.mean()) * 2.55) for batch in rest for image in batch} == {1, 2}
    assert len(images) == len(rest)


def test_synthetic_images_can_be_more_where_no_number_was_given() -> None:
    images = CalibrationImages("synthetic", channels=3, size=16)
    more = images.more()
    assert more is not None and (images.crops, more.crops) == (64, 256) and more.more() is None
    given = [image for batch in more for image in batch]
    assert all(torch.equal(one, two) for one, two in zip(given, (x for batch in images for x in batch), strict=False))
    held_out = [pair.input for pair in images.held_out(32)[1]]
    assert not any(torch.equal(one, other) for one in held_out for other in given)
    assert CalibrationImages("synthetic", channels=3, size=16, crops=64).more() is None


def test_what_is_held_out_is_as_large_as_fits(tmp_path: Path) -> None:
    Image.new("L", (40, 50)).save(tmp_path / "one.png")
    images = CalibrationImages(tmp_path, channels=3, size=16, crops=2)
    sides = {wanted: images.held_out(1, wanted)[1][0].input.shape[1] for wanted in (8, 16, 31, 32, 100)}
    assert sides == {8: 16, 16: 16, 31: 16, 32: 32, 100: 32}


def test_inputs_of_a_file_are_held_out(tmp_path: Path) -> None:
    values = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 4, 4), np.float32)
    np.save(tmp_path / "x.npy", values)
    rest, pairs = CalibrationImages(tmp_path / "x.npy", channels=3).held_out(8)
    assert [float(pair.input[0, 0, 0]) for pair in pairs] == [0, 8]
    assert [float(image[0, 0, 0]) for batch in rest for image in batch] == [1, 2, 3, 4, 5, 6, 7, 9]
    np.save(tmp_path / "one.npy", values[:1])
    with raising(DataError, "no-data"):
        CalibrationImages(tmp_path / "one.npy", channels=3).held_out(8)


def test_the_first_images_alone() -> None:
    images = CalibrationImages("synthetic", channels=3, size=16, crops=10)
    fewer = images.first(3)
    assert [len(batch) for batch in fewer] == [3] and torch.equal(next(iter(fewer)), next(iter(images))[:3])
    assert [len(batch) for batch in images] == [4, 4, 2]


def test_what_is_shown_was_held_out(tmp_path: Path) -> None:
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.full((3, 16, 16), number / 10, dtype=np.float32))
    images = CalibrationImages(tmp_path, channels=3, crops=4, size=8)
    rest, pairs = images.held_out(4)
    values = [{round(float(x.mean()) * 10) for x in found} for found in (next(iter(rest)), [p.input for p in pairs])]
    assert values[0] & values[1] == set() and values[0] | values[1] == set(range(4))
    shown = rest.samples(4)
    assert {round(float(one.input.mean()) * 10) for one in shown} == values[1]
    assert {one.source for one in shown} == {HELD_OUT} and {one.source for one in images.samples(4)} != {HELD_OUT}


def test_inputs_of_a_file_that_are_shown_were_held_out(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(16, dtype=np.float32).reshape(16, 1, 1, 1))
    rest, pairs = CalibrationImages(tmp_path / "x.npy", channels=1).held_out(4)
    assert [float(one.input) for one in rest.samples(3)] == [float(pair.input) for pair in pairs] == [0.0, 8.0]
