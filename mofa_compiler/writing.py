"""Files that are written whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """A text file to write to, in UTF-8, which takes the place of `path` at the end; after an error nothing is there.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    descriptor, scratch = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as handle:
            yield handle
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def _umask() -> int:
    """What permissions a new file goes without; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
