"""What the page of stable names lists can be imported, is typed and documented; what is exported is listed."""

from __future__ import annotations

import importlib
import inspect
import re
from importlib import resources
from typing import Any

import pytest

import mofa_compiler
from mofa_compiler.base import errors

from .executor import ROOT
from .written import own_passes

GUIDES = ROOT / "examples" / "guides"
ROW = re.compile(r"^\| `(mofa_compiler[\w.]*)` \| (.*) \|$", re.MULTILINE)
LISTED = [
    (module, name)
    for module, names in ROW.findall((GUIDES / "stability.md").read_text(encoding="utf-8"))
    for name in re.findall(r"`(\w+)`", names)
] + [("mofa_compiler.passes", one.__name__) for one in own_passes()]


@pytest.mark.parametrize(("module", "name"), LISTED)
def test_a_listed_name_is_there_documented_and_typed(module: str, name: str) -> None:
    thing: Any = getattr(importlib.import_module(module), name)
    assert (inspect.getdoc(thing) or "").strip(), f"{module}.{name} has no docstring"
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())


def test_every_listed_name_is_in_the_reference() -> None:
    reference = (GUIDES / "reference" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: (\S+)\.(\w+)$", reference, re.MULTILINE)
    on_pages_of_their_own = ("mofa_compiler.passes", "mofa_compiler.errors")
    listed = [(module, name) for module, name in LISTED if module not in on_pages_of_their_own]

    def things(names: list[tuple[str, str]]) -> set[Any]:
        return {getattr(importlib.import_module(module), name) for module, name in names}

    assert things(shown) - things(listed) == {errors}
    assert things(listed) <= things(shown)


def test_what_is_exported_is_listed() -> None:
    assert {name for module, name in LISTED if module == "mofa_compiler"} == set(mofa_compiler.__all__)


def test_every_error_is_one_of_ours() -> None:
    raised = [one for one in vars(errors).values() if inspect.isclass(one) and one.__module__ == errors.__name__]
    assert all(issubclass(one, errors.MofaError) and one.__doc__ for one in raised)


def test_the_package_is_marked_as_typed() -> None:
    assert (resources.files("mofa_compiler") / "py.typed").is_file()
