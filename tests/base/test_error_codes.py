"""Every error has a code that stays: its own, or that of its type."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mofa_compiler.base.error_codes import ERROR_CODES
from mofa_compiler.base.errors import BundleError, CaptureError, ExportError, MofaError

SOURCE = Path(__file__).parents[2]


def given_codes() -> Iterator[str]:
    for file in (*(SOURCE / "mofa_compiler").rglob("*.py"), *(SOURCE / "passes").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
                given = [one.value for one in node.keywords if one.arg == "code"]  # or another error's, handed on
                yield from (str(value.value) for value in given if isinstance(value, ast.Constant))


def test_every_code_is_explained_and_given():
    types = {kind.code for kind in MofaError.__subclasses__()}
    assert set(given_codes()) - types == set(ERROR_CODES)
    assert not types & set(ERROR_CODES)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", code) for code in (*ERROR_CODES, *types))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CaptureError("no"), "capture"),
        (BundleError("no", code="exists"), "exists"),
        (ExportError("no", "enc.0", code="device"), "device"),
        (MofaError("no"), "error"),
    ],
)
def test_a_code_survives_copies(error: MofaError, code: str):
    for one in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (one.code, str(one), vars(one).get("layer")) == (code, "no", vars(error).get("layer"))
