"""The cases lie beside the checkout here and in CI, and not at a user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType

import pytest

from .files import CASES, imported


@pytest.fixture(autouse=True)
def _cases() -> None:
    if not CASES.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{CASES} is missing: cases must not be skipped in CI")
        pytest.skip(f"needs {CASES}")


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module of the (first) case that the test is marked with."""
    mark = request.node.get_closest_marker("case")
    with imported(mark.args[0]) as module:
        yield module
