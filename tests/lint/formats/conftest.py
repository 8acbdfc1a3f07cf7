"""A repository with a model's source, and what lint found in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofa_compiler.lint.finding import Outcome
from mofa_compiler.lint.formats import Context
from tests.lint.formats import samples


@pytest.fixture
def root(tmp_path: Path) -> Path:
    samples.write_source(tmp_path)
    return tmp_path


@pytest.fixture
def outcome(root: Path) -> Outcome:
    return samples.outcome(root)


@pytest.fixture
def context(root: Path) -> Context:
    return Context(samples.RULES, root, root / "pyproject.toml")
