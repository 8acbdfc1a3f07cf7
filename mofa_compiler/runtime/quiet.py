"""Silence while engines compile: their exporters and C++ libraries print what concerns nobody but their makers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

from ..formats.torch_export import calm


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing reaches stdout or stderr: neither Python's prints, warnings and logs, nor what C++ writes to them.

    Errors are not held back: they are raised. Both streams are the whole process's, so what other threads print
    meanwhile is lost, too.
    """
    with _nowhere(), calm():
        yield


@contextlib.contextmanager
def _nowhere() -> Iterator[None]:
    """File descriptors 1 and 2 lead nowhere."""
    _flush()
    saved: list[tuple[int, int]] = []
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):  # a daemon may have closed it
                saved.append((descriptor, os.dup(descriptor)))
                os.dup2(nowhere, descriptor)
        yield
    finally:
        _flush()
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


def _flush() -> None:
    """Empty Python's buffers and C's: what C has in its own would come out later, where it should not."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
