"""Whole images of a validation set: pairs, degraded ones, and such without a target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mofa_compiler.base.errors import DataError
from mofa_compiler.data import ValidationImages, validation
from mofa_compiler.data.degradations import Pair
from mofa_compiler.data.validation import centre
from tests.raising import raising


def write(path: Path, *shape: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).random(shape, dtype=np.float32)
    np.save(path, pixels)
    return pixels


def test_pairs_are_whole_and_go_without_the_degradation(tmp_path: Path) -> None:
    given, wanted = write(tmp_path / "input/a.npy", 3, 20, 12), write(tmp_path / "target/a.npy", 3, 40, 24)
    (one,) = ValidationImages(tmp_path, channels=3, degradation="gaussian:25")
    assert one.name == str(tmp_path / "input/a.npy")
    assert torch.equal(one.pair.input, torch.from_numpy(given))
    assert torch.equal(one.pair.target, torch.from_numpy(wanted))


def test_degraded_images_are_the_same_each_time(tmp_path: Path) -> None:
    clean = write(tmp_path / "a.npy", 3, 20, 12)
    images = ValidationImages(tmp_path, channels=3, degradation="gaussian:25", seed=3)
    first, second = (next(iter(images)).pair for _ in range(2))
    assert torch.equal(first.input, second.input) and not torch.equal(first.input, first.target)
    assert torch.equal(first.target, torch.from_numpy(clean)) and len(images) == 1
    assert "gaussian:25" in str(images) and str(tmp_path) in str(images)


def test_a_raw_image_of_odd_sides_loses_a_line(tmp_path: Path) -> None:
    write(tmp_path / "a.npy", 3, 21, 13)
    (one,) = ValidationImages(tmp_path, channels=4, degradation="raw:3200")
    assert one.pair.input.shape == one.pair.target.shape == (4, 10, 6)


def test_without_a_target(tmp_path: Path) -> None:
    write(tmp_path / "a.npy", 3, 20, 12)
    (one,) = ValidationImages(tmp_path, channels=3)
    assert one.pair.target.shape == (0, 20, 12)


def test_of_large_images_the_centre_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "LARGEST", 8)
    clean = write(tmp_path / "a.npy", 3, 20, 12)
    (one,) = ValidationImages(tmp_path, channels=3, degradation="gaussian:25")
    assert torch.equal(one.pair.target, torch.from_numpy(clean)[:, 6:14, 2:10])


def test_the_centre_of_a_pair_is_one_place() -> None:
    pair = centre(Pair(torch.arange(16.0).view(1, 4, 4), torch.arange(64.0).view(1, 8, 8), torch.ones(2)), 2, 9)
    assert pair.input.tolist() == [[[4.0, 5, 6, 7], [8, 9, 10, 11]]]
    assert pair.target.shape == (1, 4, 8) and float(pair.target[0, 0, 0]) == 16


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "input/a.npy", 3, 20, 12)
    with raising(DataError, "bad-image"):
        ValidationImages(tmp_path, channels=3)
    write(tmp_path / "target/a.npy", 3, 30, 18)
    with raising(DataError, "bad-image"):
        list(ValidationImages(tmp_path, channels=3))
    with raising(DataError, "not-found"):
        ValidationImages(tmp_path / "none", channels=3)
    with raising(DataError, "wrong-input"):
        write(tmp_path / "clean/a.npy", 3, 8, 8)
        ValidationImages(tmp_path / "clean", channels=3, degradation="raw:3200")
