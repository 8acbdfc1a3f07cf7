"""Files and folders that are written whole, or not at all, also where the process is killed.

Each is written under a hidden name beside its place, `.NAME.XXXXXXXX.new`, and takes that place by a rename. A run
holds a lock on what it writes, which the system drops when it ends: what nobody holds any more was left by a run that
was killed, and the next run that writes there takes it away.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # on Windows: nothing is taken away there
    fcntl = None  # type: ignore[assignment]

_NEW, _OLD = ".new", ".old"
_EARLIER = 24 * 3600.0
"""Seconds after which what versions without locks left (`.NAME.XXXXXXXX`) is taken away"""
_PATIENCE = 1.0
"""Seconds to wait for another run that looks at the same folder"""
_CLAIMED: set[Path] = set()
"""What this process writes to at the moment"""


@contextlib.contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """An empty file to write to, which takes the place of `path` at the end; after an error nothing is there.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """

    def make() -> Path:
        descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=_NEW)
        os.close(descriptor)
        return Path(name)

    with _claimed(path, make) as scratch:
        try:
            yield scratch
            scratch.chmod(0o666 & ~umask())
            os.replace(scratch, path)
        except BaseException:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """The same as a text file that is open, in UTF-8.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    with scratch_file(path) as scratch, open(scratch, "w", encoding="utf-8", newline="\n") as handle:
        yield handle


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder to write in, beside `path`, for `put_in_place` or for files to be moved; gone at the end.

    Raises:
        OSError: the folder around does not exist or cannot be written to.
    """

    def make() -> Path:
        return Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=_NEW))

    with _claimed(path, make) as scratch:
        try:
            scratch.chmod(0o777 & ~umask())
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def put_in_place(scratch: Path, target: Path) -> None:
    """Let a finished folder take a place; what was there is at `scratch` afterwards.

    In one step where the system can exchange two names (Linux); elsewhere in two, between which a kill leaves the old
    folder aside for `put_back`.

    Raises:
        OSError: the system refuses.
    """
    if not target.exists():
        os.rename(scratch, target)
        return
    if exchange(scratch, target):
        return
    aside = scratch.with_name(scratch.name.removesuffix(_NEW) + _OLD)
    with _locked(target):  # so that no other run takes it for what a killed one left
        os.rename(target, aside)
        try:
            os.rename(scratch, target)
        except OSError:
            os.rename(aside, target)
            raise
        os.rename(aside, scratch)


def put_back(target: Path) -> None:
    """Restore a folder that a run, killed while it replaced it, has left aside; nothing where `target` is there."""
    if fcntl is None or os.path.lexists(target) or not target.parent.is_dir():
        return
    left = [path for path in _beside(target) if path.name.endswith(_OLD) and path.is_dir()]
    for path in sorted(left, key=lambda path: path.stat().st_ctime, reverse=True):
        descriptor = _lock(path)
        if descriptor is None:
            continue
        try:
            with contextlib.suppress(OSError):
                os.rename(path, target)
            return
        finally:
            os.close(descriptor)


def is_folder(path: Path) -> bool:
    """Whether a folder is there, put back where a killed run has left it aside."""
    put_back(path)
    return path.is_dir()


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders take each other's place in one step; False where the system cannot.

    Raises:
        OSError: it could, and refuses.
    """
    function = _renameat2()
    if function is None:
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if function(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def clear(path: Path) -> None:
    """Take away what killed runs have left beside a path; nothing where the folder around is in use."""
    if not path.absolute().parent.is_dir():
        return
    with _locked(path.absolute().parent, _PATIENCE) as alone:
        dead = [] if alone is None else _unclaimed(path)
    _take_away(dead)


def umask() -> int:
    """What permissions a new file goes without; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """Linux's system call of that name, since glibc 2.28."""
    try:
        function: Any = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


@contextlib.contextmanager
def _claimed(path: Path, make: Callable[[], Path]) -> Iterator[Path]:
    """What `make` makes beside `path`, locked as long as it is written; what killed runs left there goes."""
    folder = path.absolute().parent
    # In a scratch folder of this process there is nobody else, and its lock would be waited for in vain.
    with contextlib.nullcontext() if folder in _CLAIMED else _locked(folder, _PATIENCE) as alone:
        dead = [] if alone is None else _unclaimed(path)
        scratch = make()
        descriptor = _lock(scratch)
    _CLAIMED.add(scratch)
    try:
        _take_away(dead)
        yield scratch
    finally:
        _CLAIMED.discard(scratch)
        if descriptor is not None:
            os.close(descriptor)


def _unclaimed(path: Path) -> list[tuple[Path, int]]:
    """What killed runs left beside `path`, each with a lock on it; only while the folder around is locked.

    A folder that was moved aside stays while nothing is in its place.
    """
    found = []
    for left in _beside(path):
        if left.name.endswith(_OLD) and not os.path.lexists(path):
            continue
        if not left.name.endswith((_NEW, _OLD)) and time.time() - left.lstat().st_mtime < _EARLIER:
            continue
        if (lock := _lock(left)) is not None:
            found.append((left, lock))
    return found


def _beside(path: Path) -> list[Path]:
    """The files and folders whose names are those that are written for `path`."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}({re.escape(_NEW)}|{re.escape(_OLD)})?", re.ASCII)
    try:
        names = os.listdir(path.absolute().parent)
    except OSError:
        return []
    return [path.absolute().with_name(name) for name in names if ours.fullmatch(name)]


def _take_away(dead: list[tuple[Path, int]]) -> None:
    for path, lock in dead:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        os.close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock on a file or folder; None where another run does, or there are no locks."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def _locked(folder: Path, patience: float = 0.0) -> Iterator[int | None]:
    """The lock on a folder, for which others are waited so many seconds; None where they keep it."""
    end = time.monotonic() + patience
    while (descriptor := _lock(folder)) is None and fcntl is not None and time.monotonic() < end:
        time.sleep(0.005)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
