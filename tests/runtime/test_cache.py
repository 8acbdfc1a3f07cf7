"""Measurements on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mofa_compiler.base.errors import EngineError
from mofa_compiler.result.decisions import Comparison
from mofa_compiler.runtime import Cache, engine, measurement_key
from mofa_compiler.runtime.cache import default_folder
from tests.raising import raising


@pytest.fixture
def key() -> dict[str, object]:
    return measurement_key(engine("eager"), 1, layer="Conv2d(3, 8)", shape=[1, 3, 32, 32])


def test_what_was_put_comes_back(tmp_path: Path, key: dict[str, object]) -> None:
    cache = Cache(tmp_path / "new" / "folder")
    assert cache.get(key) is None
    cache.put(key, {"ms": [1.5, 2.5]})
    assert Cache(cache.folder).get(dict(reversed(key.items()))) == {"ms": [1.5, 2.5]}
    cache.put(key, {"ms": [3.5]})
    assert cache.get(key) == {"ms": [3.5]}
    assert [file.suffix for file in cache.folder.iterdir()] == [".json"]


@pytest.mark.parametrize("entry", ["layer", "engine", "version", "torch", "processor", "threads"])
def test_nothing_comes_back_under_another_key(tmp_path: Path, key: dict[str, object], entry: str) -> None:
    cache = Cache(tmp_path)
    cache.put(key, 1)
    assert cache.get({**key, entry: "another"}) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": {}, "data": 1}', '{"data": 1}', "[" * 200_000, "\x00"])
def test_a_damaged_entry_counts_as_missing(tmp_path: Path, key: dict[str, object], damage: str) -> None:
    cache = Cache(tmp_path)
    cache.put(key, 1)
    (file,) = tmp_path.iterdir()
    file.write_text(damage)
    assert cache.get(key) is None
    cache.put(key, 2)
    assert cache.get(key) == 2


def test_an_entry_with_something_else_in_it_counts_as_missing(tmp_path: Path, key: dict[str, object]) -> None:
    cache, comparison = Cache(tmp_path), Comparison("fixed", 1.0, 2.0, 0.5, (0.4, 0.6), (0.9, 1.1))
    cache.put(key, vars(comparison))
    assert cache.read(key, Comparison) == comparison
    damaged = ({**vars(comparison), "interval": [0.4]}, {**vars(comparison), "ms": "x"}, {"name": "fixed"})
    for other in (None, [], *damaged):
        cache.put(key, other)
        assert cache.read(key, Comparison) is None


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_cache_that_is_a_file_is_told(tmp_path: Path, key: dict[str, object], place: str) -> None:
    (tmp_path / "file").write_text("mine")
    cache = Cache(tmp_path / place)
    assert cache.get(key) is None
    with raising(EngineError, "unwritable", str(place)):
        cache.put(key, 1)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_entry_says_what_it_is(tmp_path: Path, key: dict[str, object]) -> None:
    Cache(tmp_path).put(key, 1)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["key"]["layer"] == "Conv2d(3, 8)"


def test_a_key_without_the_machine_is_refused(tmp_path: Path, key: dict[str, object]) -> None:
    del key["processor"], key["version"]
    for use in (Cache(tmp_path).get, lambda key: Cache(tmp_path).put(key, 1)):
        with raising(EngineError, "bad-value", "version,", "processor"):
            use(key)


def test_what_json_does_not_know_is_refused(tmp_path: Path, key: dict[str, object]) -> None:
    with raising(EngineError, "bad-value", "key"):
        Cache(tmp_path).put({**key, "layer": object()}, 1)
    with raising(EngineError, "bad-value", "data"):
        Cache(tmp_path).put(key, float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, key: dict[str, object]) -> None:
    (tmp_path / "file").write_text("")
    with raising(EngineError, "unwritable", "MOFA_CACHE"):
        Cache(tmp_path / "file" / "below").put(key, 1)


def test_where_the_default_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("MOFA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "mofa-compiler"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "mofa-compiler"
    monkeypatch.setenv("MOFA_CACHE", str(tmp_path / "mine"))
    assert Cache().folder == tmp_path / "mine"
