"""The files of the cases: which there are, and how one is imported."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

SHARED_VARIABLE = "MOFA_CASES"
"""Names another folder of cases"""

CASES = Path(os.environ.get(SHARED_VARIABLE) or Path(__file__).parents[3] / "shared/cases")

_HELPERS = {
    "front-end/isinstance_int_lib.py",  # beside isinstance_int_helper.py
    "front-end/isinstance_helper/helpers.py",  # and what runs it
    "front-end/isinstance_helper/run.py",
    "front-end/file_target/models/layers.py",  # beside what imports it
}
"""Files that another one needs, and that are no case of their own"""


def case_files(folder: Path) -> list[str]:
    """The cases of a folder, by their path in it."""
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.py"))
    return [file for file in files if file not in _HELPERS]


@contextmanager
def imported(path: str) -> Iterator[ModuleType]:
    """A case's module, found like a script: what lies beside it can be imported, and is forgotten afterwards."""
    file = CASES / path
    known, places = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(file.parent))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(file.stem)
    finally:
        sys.path[:] = places
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(CASES)):
                del sys.modules[name]
