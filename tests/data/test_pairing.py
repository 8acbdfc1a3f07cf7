"""Patches to train on: aligned, the same for the same epoch and item, and set aside for validation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mofa_compiler.base.errors import DataError
from mofa_compiler.data import Pairs, pairing, pairs, parse_degradation, restore, split
from tests.raising import raising

SIDE = 24


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, pixels.astype(np.float32))


def numbered(number: int, channels: int = 3, side: int = SIDE) -> np.ndarray:
    """(C, side, side): every value once, so that a patch tells where it was."""
    return number * 1e5 + np.arange(channels * side * side).reshape(channels, side, side)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for number in range(5):
        write(folder / f"{number}.npy", numbered(number) / 1e6)
    return folder


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    """Targets are 1 more than inputs."""
    for number, name in enumerate(("a.npy", "b/c.npy")):
        write(tmp_path / "input" / name, numbered(number))
        write(tmp_path / "target" / name, numbered(number) + 1)
    return tmp_path


def equal(first: Any, second: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_pairs_are_aligned(paired: Path):
    dataset = pairs(paired, channels=3, patch=8, repeat=20)
    assert (len(dataset), dataset.paired) == (40, True)
    for index in range(len(dataset)):
        given_, target, levels = dataset[index]
        assert given_.shape == (3, 8, 8)
        assert torch.equal(target, given_ + 1)
        assert levels.tolist() == [0, 1]
        assert int(given_.min() // 1e5) == index % 2
    turned = {tuple(torch.sign(dataset[i].input[0, [0, 0], [0, 1]].diff()).tolist()) for i in range(40)}
    assert len(turned) == 2  # patches are turned and flipped


def test_targets_may_be_larger(tmp_path: Path):
    small = numbered(0)
    write(tmp_path / "input/a.npy", small)
    write(tmp_path / "target/a.npy", small.repeat(2, axis=1).repeat(2, axis=2))
    for index in range(8):
        patch, target, _ = pairs(tmp_path, channels=3, patch=8, repeat=8)[index]
        assert torch.equal(target, patch.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_target_channels_follow_the_inputs(paired: Path, tmp_path: Path):
    patch, target, _ = pairs(paired, channels=1, patch=8)[0]
    assert patch.shape == target.shape == (1, 8, 8)
    write(tmp_path / "mapped/input/a.npy", numbered(0, channels=4))  # with a noise map, say
    write(tmp_path / "mapped/target/a.npy", numbered(0))
    patch, target, _ = pairs(tmp_path / "mapped", channels=4, patch=8)[0]
    assert (len(patch), len(target)) == (4, 3)


def test_suffixes_may_differ(paired: Path):
    from PIL import Image

    (paired / "input/a.npy").unlink()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(paired / "input/a.png")
    assert float(pairs(paired, channels=3, patch=8)[0].input.abs().max()) == 0


@given(index=st.integers(0, 9), epoch=st.integers(0, 1000), other=st.integers(0, 1000), seed=st.integers(0, 99))
def test_items_are_a_function_of_seed_epoch_and_index(clean: Path, index: int, epoch: int, other: int, seed: int):
    options: dict[str, Any] = {"channels": 3, "degradation": "gaussian:5-50", "patch": 8, "seed": seed, "repeat": 2}
    dataset, later = pairs(clean, **options), pairs(clean, **options)
    dataset.set_epoch(epoch)
    item = dataset[index]
    for warm in range(3):  # what was looked at before makes no difference
        later[warm]
    later.set_epoch(other)
    assert equal(later[index], item) == (other == epoch)
    later.set_epoch(epoch)
    assert equal(later[index], item)


def test_workers_change_nothing(clean: Path):
    dataset = pairs(clean, channels=4, degradation="raw:800,3200", patch=8)
    alone, helped = (list(DataLoader(dataset, batch_size=2, num_workers=workers)) for workers in (0, 2))
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert [tuple(part.shape) for part in alone[0]] == [(2, 4, 8, 8), (2, 4, 8, 8), (2, 2)]


def test_degraded_patches(clean: Path):
    dataset = pairs(clean, channels=4, degradation=parse_degradation("raw:800"), patch=8)
    patch, target, levels = dataset[0]
    assert patch.shape == target.shape == (4, 8, 8)
    assert dataset.paired
    assert 0 <= float(restore(target, levels).min()) < float(restore(target, levels).max()) < 1 < float(levels[1])
    assert dataset.description == {"images": 5, "degradation": "raw:800", "patch": 8, "seed": 0}


def test_without_targets(clean: Path):
    dataset = pairs(clean, channels=3, patch=8)
    assert not dataset.paired
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch.input.shape == (3, 3, 8, 8)
    assert batch.target.shape == (3, 0, 8, 8)


def test_the_cache_is_bounded_and_changes_nothing(clean: Path, monkeypatch: pytest.MonkeyPatch):
    expected = [item.input for item in pairs(clean, channels=3, patch=8)]
    one = 3 * SIDE * SIDE * 4
    for room in (0, 2 * one):
        monkeypatch.setattr(pairing, "CACHE", room)
        dataset = pairs(clean, channels=3, patch=8)
        assert all(torch.equal(dataset[index].input, expected[index]) for index in (*range(5), *range(5)))
        assert sum(image.nbytes for image in dataset._cache.values()) == room


def names(dataset: Pairs) -> list[str]:
    return [example.input.name for example in dataset.examples]


@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 20))
def test_split_by_share(clean: Path, share: float, seed: int):
    whole = pairs(clean, channels=3, patch=8, seed=seed, repeat=3)
    training, validation = split(whole, share, repeat=2)
    assert sorted(names(training) + names(validation)) == names(whole)
    assert len(validation.examples) == min(4, max(1, round(5 * share)))
    assert len(training) == 3 * len(training.examples)
    assert len(validation) == 2 * len(validation.examples)
    assert names(split(whole, share)[1]) == names(validation)


def test_validation_patches_are_fixed_and_lie_as_they_are(clean: Path):
    _, validation = split(pairs(clean, channels=3, patch=8), 0.4, repeat=4)
    before = [item.input for item in validation]
    validation.set_epoch(7)
    assert all(torch.equal(item.input, patch) for item, patch in zip(validation, before, strict=True))
    assert all(bool((patch.diff(dim=2) > 0).all() and (patch.diff(dim=1) > 0).all()) for patch in before)
    assert len({float(patch.min()) for patch in before}) == len(before)


def test_split_by_folder(clean: Path, paired: Path):
    training, validation = split(pairs(paired, channels=3, patch=8), paired)
    assert names(training) == names(validation)
    whole = pairs(clean, channels=3, patch=8, degradation="gaussian:25")
    training, validation = split(whole, clean)
    assert training is whole
    assert not equal(training[0], validation[0])


def test_split_of_one_image(tmp_path: Path):
    write(tmp_path / "a.npy", numbered(0))
    training, validation = split(pairs(tmp_path, channels=3, patch=8), 0.1)
    assert names(training) == names(validation) == ["a.npy"]


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("target/b/c.npy", "input/b/c.npy"),
        ("input/a.npy", "target/a.npy"),
        ("input", "input/"),
        ("target", "target/"),
        ("target/b", "input/b/c.npy"),
    ],
)
def test_a_side_that_is_missing(paired: Path, removed: str, named: str):
    remove(paired / removed)
    with raising(DataError, "bad-image", named):
        pairs(paired, channels=3, patch=8)


def test_a_name_that_is_there_twice(paired: Path):
    (paired / "input/a.png").touch()
    with raising(DataError, "ambiguous", "a.npy", "a.png"):
        pairs(paired, channels=3, patch=8)


def test_what_does_not_fit_is_refused_at_once(paired: Path, clean: Path):
    with raising(DataError, "wrong-kind", "gaussian:25"):
        pairs(paired, channels=3, degradation="gaussian:25")
    with raising(DataError, "wrong-input", "raw:3200"):
        pairs(clean, channels=3, degradation="raw:3200")
    with raising(DataError, "too-small", "0.npy", "26x26"):
        pairs(clean, channels=4, degradation="raw:3200", patch=13)
    with raising(DataError, "bad-value", "patch"):
        pairs(clean, channels=3, patch=0)
    with raising(DataError, "bad-value", "seed"):
        pairs(clean, channels=3, seed=-1)
    for share in (0.0, 1.0, -0.5, 1, 0):
        with raising(DataError, "bad-value", "share"):
            split(pairs(clean, channels=3, patch=8), share)


def test_targets_of_another_size(paired: Path):
    write(paired / "target/a.npy", numbered(0, side=30))
    with raising(DataError, "bad-image", "target/a.npy", "30x30"):
        pairs(paired, channels=3, patch=8)[0]


def test_other_channels(clean: Path):
    with raising(DataError, "wrong-input", "0.npy"):
        pairs(clean, channels=4, patch=8)[0]
