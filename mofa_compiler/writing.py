"""Files that are written whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """An empty file to write to, which takes the place of `path` at the end; after an error nothing is there.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    os.close(descriptor)
    scratch = Path(name)
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


def umask() -> int:
    """What permissions a new file goes without; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
