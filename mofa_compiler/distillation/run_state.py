"""The state of a run on disk: one file, replaced whole, from which a killed run goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..base.atomic_files import clear, scratch_file
from ..base.errors import RecoveryError, one_line

SCHEMA = "mofa-recovery-state/1"
FILE = "state.pt"


def write(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace the state in a folder, which is made; the old one stays until the new one is on the disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_file(folder / FILE) as scratch, scratch.open("wb") as file:
            torch.save({"schema": SCHEMA, **state}, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RecoveryError(f"cannot write {folder / FILE}: {error.strerror}", code="unwritable") from error


def read(folder: Path) -> dict[str, Any] | None:
    """The state in a folder, None where there is none.

    Raises:
        RecoveryError: it is damaged, or of another version.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RecoveryError(
            f"{file} cannot be read ({one_line(error)}): begin anew with restart (--restart)", code="unreadable"
        ) from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise RecoveryError(
            f"{file} was written by another version: begin anew with restart (--restart)", code="other-version"
        )
    return state


def remove(folder: Path) -> None:
    """Take a run's state away, and its folder where nothing else is in it."""
    (folder / FILE).unlink(missing_ok=True)
    clear(folder / FILE)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def check(folder: Path, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other options, data or weights than those that a run was begun with."""
    for name in sorted(recorded.keys() | now.keys(), key=lambda name: (name in HASHED, name)):
        if recorded.get(name) != now.get(name):
            values = f" ({_text(recorded.get(name))}, now {_text(now.get(name))})"
            refuse(folder, f"{name}{'' if name in HASHED else values}")


def refuse(folder: Path, what: str) -> NoReturn:
    """Refuse to go on with something other than what a run was begun with."""
    raise RecoveryError(
        f"{folder} holds an interrupted run with other {what}: give what it was begun with to go on, or restart "
        "(--restart) to begin anew",
        code="other-run",
    )


HASHED = ("data", "original weights")
"""What is compared by a hash, which tells a reader nothing"""


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
