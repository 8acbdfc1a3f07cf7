"""Why a layer was left alone, and what became of weights, are words that programs can compare."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from torch import nn

from mofa_compiler.rewriting import SKIP_CODES, Fate, Replacement, Skip
from mofa_compiler.rewriting.diff import Refusal

SOURCE = Path(__file__).parents[2]


def given_codes() -> Iterator[str]:
    """The first argument of each `Skip(...)` and `Held(...)` of the package and its passes, where it is written out."""
    for file in (*(SOURCE / "mofa_compiler").rglob("*.py"), *(SOURCE / "passes").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Skip", "Held"):
                assert len(node.args) == 2, f"{file.name}:{node.lineno}: a Skip without a code"
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant):
                        yield str(part.value)


def test_every_code_is_explained_and_given():
    assert set(given_codes()) | {"other"} == set(SKIP_CODES)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", code) for code in SKIP_CODES)


@pytest.mark.parametrize(
    ("skip", "code", "reason"),
    [
        (Skip("tied", "shares a parameter"), "tied", "shares a parameter"),
        (Skip("shares a parameter"), "other", "shares a parameter"),
        (Skip(reason="shares a parameter"), "other", "shares a parameter"),
    ],
)
def test_a_reason_without_a_code_is_taken(skip: Skip, code: str, reason: str):
    assert (skip.code, skip.reason) == (code, reason)


def test_a_fate_is_its_word():
    replacement = Replacement(nn.ReLU(), "fresh")  # type: ignore[arg-type]  # as passes wrote it before there was a type
    assert replacement.fate is Fate.FRESH
    assert json.dumps({"fate": replacement.fate}) == '{"fate": "fresh"}'
    with pytest.raises(ValueError, match="exakt"):
        Replacement(nn.ReLU(), "exakt")  # type: ignore[arg-type]


def test_refusals_hold_the_code():
    assert asdict(Refusal("0", None, "Conv2d", "tied", "shares"))["code"] == "tied"
