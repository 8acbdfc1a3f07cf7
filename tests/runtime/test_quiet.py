"""Nothing is printed, whatever prints it."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings

import pytest

from mofa_compiler.runtime.quiet import quiet


def _chatter() -> None:
    print("stdout")
    print("stderr", file=sys.stderr)
    os.write(1, b"descriptor 1")
    os.write(2, b"descriptor 2")
    ctypes.CDLL(None).puts(b"C, which keeps it in a buffer of its own")
    warnings.warn("a warning", stacklevel=1)
    logging.getLogger("somebody").warning("a log")


def test_chatter_goes_nowhere_and_what_follows_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with quiet(), quiet():
        _chatter()
    print("after")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr() == ("before\nafter\n", "")


def test_errors_are_raised_and_streams_come_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), quiet():
        raise ValueError("wrong")
    print("after")
    assert capfd.readouterr().out == "after\n"
    assert logging.root.manager.disable == logging.NOTSET
