"""The package's own names: at run time, for type checkers, and those that errors suggest."""

from __future__ import annotations

import importlib.util
import typing
from importlib.metadata import version

import pytest
import torch
from torch import nn

import mofa_compiler
from mofa_compiler.base.errors import nearest
from mofa_compiler.rewriting.registry import available
from mofa_compiler.rewriting.roadmap import Roadmap


def test_version() -> None:
    assert mofa_compiler.__version__ == version("mofa-compiler")
    assert "__version__" in dir(mofa_compiler)


def test_a_type_checker_sees_all_names_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {*mofa_compiler.__all__, "runtime"}
    assert all(getattr(mofa_compiler, name) for name in names)  # and what they need is imported
    monkeypatch.setattr(typing, "TYPE_CHECKING", True)
    spec = importlib.util.spec_from_file_location("mofa_compiler", mofa_compiler.__file__)
    assert spec and spec.loader
    seen = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seen)
    assert names <= vars(seen).keys()
    assert "__getattr__" not in vars(seen)
    with pytest.raises(AttributeError, match="has no attribute 'aply'"):
        mofa_compiler.aply  # type: ignore[attr-defined]  # noqa: B018


def test_a_result_says_what_it_is() -> None:
    result = mofa_compiler.apply(nn.Sequential(nn.Conv2d(3, 3, 1)), Roadmap((), "<b>"), torch.rand(1, 3, 4, 4))
    assert repr(result) == "<Result of Sequential by roadmap <b>: 12 → 12 parameters, 144 → 144 MACs>"
    html = result._repr_html_()
    assert html.startswith("<table><caption>Sequential, roadmap &lt;b&gt;</caption>")
    assert "<tr><td>MACs</td><td>144</td><td>144</td><td>unchanged</td></tr>" in html


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("sepconv", available(), "sepconv-to-pconv"),
        ("lower", ["lower-gates", "lower-layer-norm", "slower"], "lower-gates"),
        ("Conv", ["convolution", "cone"], "convolution"),
        ("moaf", ["mofa", "mofa-small"], "mofa"),
        ("x", ["xy", "zz"], "xy"),
    ],
)
def test_what_begins_so_is_nearest(name: str, known: typing.Iterable[str], found: str) -> None:
    assert nearest(name, known) == f" (did you mean {found!r}?)"


def test_nothing_near_lists_all() -> None:
    assert nearest("qq", ["b", "a"]) == " (known: a, b)"
