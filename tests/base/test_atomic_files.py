"""Folders and files that take a place whole: killed at every system call that renames, in both ways of exchanging."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mofa_compiler.base import atomic_files
from mofa_compiler.base.atomic_files import (
    clear,
    exchange,
    put_back,
    put_in_place,
    replaced,
    scratch_file,
    scratch_folder,
)
from tests.killing import killed_at

LARGEST = 12
"""Renames that one run makes at most"""


def replace_folder(target: Path, content: str) -> None:
    with scratch_folder(target) as scratch:
        (scratch / "one").write_text(content)
        (scratch / "two").write_text(content)
        put_in_place(scratch, target)


def content(target: Path) -> set[str]:
    return {(target / name).read_text() for name in ("one", "two")}


def kills(work: Callable[[], None], can_exchange: bool) -> Iterator[tuple[int, bool]]:
    """After each kill, at which rename it was and whether before it, until the work is done without."""
    for before in (True, False):
        for number in range(1, LARGEST):
            if not killed_at(number, before, work, can_exchange):
                break
            yield number, before
        else:
            raise AssertionError("more renames than are to be expected")


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_kill_at_any_rename_leaves_one_whole_folder(tmp_path: Path, can_exchange: bool) -> None:
    target, killed = tmp_path / "a [b]", 0
    replace_folder(target, "old")
    for _ in kills(lambda: replace_folder(target, "new"), can_exchange):
        killed += 1
        put_back(target)
        assert content(target) in ({"old"}, {"new"})
        assert len(list(tmp_path.iterdir())) > 1  # what the run has left
        replace_folder(target, "old")
        assert [path.name for path in tmp_path.iterdir()] == [target.name]
        assert content(target) == {"old"}
    assert killed == (2 if can_exchange else 6)


def test_a_kill_of_a_first_write_leaves_nothing_to_stay(tmp_path: Path) -> None:
    target = tmp_path / "new"
    for _ in kills(lambda: replace_folder(target, "new"), True):
        clear(target)
        assert {path.name for path in tmp_path.iterdir()} <= {"new"}
        if target.exists():
            assert content(target) == {"new"}
            (target / "one").unlink()
            (target / "two").unlink()
            target.rmdir()


def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "report.json"

    def write(text: str) -> None:
        with replaced(file) as handle:
            handle.write(text)

    write("old")
    for _ in kills(lambda: write("new"), True):
        assert file.read_text() in ("old", "new")
        write("old")
        assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_what_was_there_is_at_the_other_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(atomic_files, "_renameat2", lambda: None)
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    assert exchange(tmp_path / "new", tmp_path / "old") is can_exchange
    if can_exchange:
        assert exchange(tmp_path / "new", tmp_path / "old")
    put_in_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old/name").read_text() == "new"
    assert (tmp_path / "new/name").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_live_run_writes_stays(tmp_path: Path) -> None:
    """Also what another process writes, and the folder that it has moved aside."""
    target = tmp_path / "out"
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with scratch_folder(target) as scratch, scratch_file(target / "../x.json"):
            (scratch / "one").write_text("theirs")
            aside = scratch.with_suffix(".old")
            aside.mkdir()
            with atomic_files._locked(aside):
                os.write(ready[1], b"1")
                os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    theirs = {path.name for path in tmp_path.iterdir()}
    assert len(theirs) == 3
    put_back(target)
    clear(target)
    replace_folder(target, "ours")
    with replaced(tmp_path / "x.json") as handle:
        handle.write("ours")
    assert {path.name for path in tmp_path.iterdir()} == theirs | {"out", "x.json"}
    os.write(done[1], b"1")
    os.waitpid(child, 0)


def test_what_earlier_versions_left_goes_after_a_day(tmp_path: Path) -> None:
    """They held no locks, so one of them may still run."""
    for name in (".out.abcd1234", ".out.zzzz9999", ".out.abcd1234.txt", ".out.short", ".other.abcd1234"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - 90_000,) * 2)
    (tmp_path / ".out.zzzz9999").touch()
    clear(tmp_path / "out")
    left = {".out.zzzz9999", ".out.abcd1234.txt", ".out.short", ".other.abcd1234"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (tmp_path / ".out.abcd1234.new").symlink_to(tmp_path / "precious")
    replace_folder(tmp_path / "out", "new")
    assert (tmp_path / "precious/file").exists()


def test_a_folder_aside_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".out.abcd1234.old").mkdir()
    (tmp_path / ".out.abcd1234.old/recipe.json").touch()
    assert atomic_files.is_folder(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not atomic_files.is_folder(tmp_path / "other")


def test_files_in_a_scratch_folder_wait_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is this process's own."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with scratch_folder(tmp_path / "bundle") as scratch:
        with replaced(scratch / "file") as handle:
            handle.write("text")
        assert [path.name for path in scratch.iterdir()] == ["file"]
    assert slept == []
