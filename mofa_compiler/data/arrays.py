"""Network inputs in NumPy files: `.npy` holds one array, `.npz` one for each of several inputs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..base.errors import DataError

Array: TypeAlias = "np.ndarray[Any, Any]"


def read_arrays(path: Path) -> Mapping[str, Array]:
    """The arrays (N, ...) of a file by name, in its order; that of a `.npy` has none, and is not yet read.

    Raises:
        DataError: there is no such file, it is damaged, or it holds no examples, or not as many of each.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}", code="not-found"
        )
    try:
        loaded = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded as archive:
                found: dict[str, Array] = {name: archive[name] for name in archive.files}
        else:
            found = {"": loaded}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read, it is damaged or no NumPy file ({error})", code="damaged") from error
    shapes = ["x".join(map(str, array.shape)) for array in found.values()]
    numbers = {array.shape[:1] for array in found.values()}
    if len(numbers) != 1 or numbers & {(), (0,)}:
        raise DataError(
            f"{path} holds arrays of the shapes {', '.join(shapes) or 'nothing'}, where each has to be (N, ...), with "
            "the same number of examples, at least one",
            code="wrong-input",
        )
    return found
