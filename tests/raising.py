"""Errors by their type and code, with the names that a message has to hold; its words may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mofa_compiler.base.errors import MofaError


@contextmanager
def raising(kind: type[MofaError], code: str, *names: str) -> Iterator[pytest.ExceptionInfo[MofaError]]:
    """An error of this type and code, whose message holds these names (of a layer, a file, an option)."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code}: {caught.value}"
    for name in names:
        assert name in str(caught.value)
