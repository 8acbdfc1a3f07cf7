"""Recipes that were damaged or made up: one sentence that names the file, whatever stands in it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mofa_compiler
from architectures import UNet
from mofa_compiler.base.errors import BundleError, MofaError
from mofa_compiler.bundle import load
from mofa_compiler.bundle.recipe import read_recipe
from mofa_compiler.reproduce.replay import replay
from tests.raising import raising

REQUIRED = ("mofa", "torch", "roadmap", "architecture", "inputs", "decisions")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return UNet(width=4, depth=1).eval()


@pytest.fixture(scope="module")
def bundle(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = mofa_compiler.apply(model, "mofa", torch.rand(1, 3, 16, 16))
    return result.save(tmp_path_factory.mktemp("schema") / "bundle")


@pytest.fixture(scope="module")
def recipe(bundle: Path) -> dict[str, Any]:
    return read_recipe(bundle)


def refused(folder: Path, text: str | bytes) -> str:
    """What is said of a recipe with this text."""
    file = folder / "recipe.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BundleError) as error:
        read_recipe(folder)
    assert str(file) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("key", REQUIRED)
def test_a_key_that_is_missing_is_named(recipe: dict[str, Any], tmp_path: Path, key: str) -> None:
    damaged = {name: value for name, value in recipe.items() if name != key}
    message = refused(tmp_path, json.dumps(damaged))
    assert f"recipe.json is damaged: {key}: " in message


SPEC = {"shape": [1, 3, 16, 16], "dtype": "float32"}


def deep(levels: int) -> Any:
    tree: Any = {"value": 1}
    for _ in range(levels):
        tree = {"list": [tree]}
    return tree


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"inputs": {}}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": {"args": [{**SPEC, "shape": [1, 3, -1, 5]}], "kwargs": {}}}, "inputs: args[0]"),
        ({"inputs": {"args": [{**SPEC, "shape": "abc"}], "kwargs": {}}}, "inputs: args[0]"),
        ({"inputs": {"args": [{**SPEC, "shape": [1, 3, True, 5]}], "kwargs": {}}}, "inputs: args[0]"),
        ({"inputs": {"args": [{**SPEC, "shape": [1, 3, 10**7, 10**7]}], "kwargs": {}}}, "inputs"),
        ({"inputs": {"args": [{**SPEC, "shape": [2**63, 3]}], "kwargs": {}}}, "inputs: args[0]"),
        ({"inputs": {"args": [{**SPEC, "dtype": "os.system"}], "kwargs": {}}}, "inputs: args[0]"),
        ({"inputs": {"args": [{**SPEC, "dtype": "nn"}], "kwargs": {}}}, "inputs: args[0]"),
        ({"inputs": {"args": [deep(200)], "kwargs": {}}}, "inputs"),
        ({"inputs": {"args": [SPEC], "kwargs": {"mask": {"device": "nowhere"}}}}, "inputs: kwargs.mask"),
        ({"roadmap": None}, "roadmap"),
        ({"architecture": {"class": "Net", "sha256": "short"}}, "architecture.sha256"),
        ({"original": {"sha256": 5}}, "original.sha256"),
        ({"decisions": {}}, "decisions"),
        ({"decisions": [{"pass": "a"}]}, "decisions[0].path"),
        ({"channel_orders": {"x": [0, 1]}}, "channel_orders"),
        ({"channel_orders": {"0": [99, 1, 2]}}, "channel_orders"),
        ({"channel_orders": {"0": ["a"]}}, "channel_orders.0[0]"),
        ({"frozen": [1]}, "frozen[0]"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(
    recipe: dict[str, Any], tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    assert f"recipe.json is damaged: {where}" in refused(tmp_path, json.dumps({**recipe, **changes}))


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 200_000, '{"a":' * 200_000, b"\xff\xfe", '{"a": ' + "9" * 5000 + "}", "null", "[1]", '"x"']
)
def test_what_is_no_document_is_told(tmp_path: Path, text: str | bytes) -> None:
    assert refused(tmp_path, text)


def test_a_recipe_says_nothing_to_be_measured(recipe: dict[str, Any], model: nn.Module) -> None:
    roadmap = {**recipe["roadmap"], "target": {"engine": "eager"}}
    with raising(BundleError, "damaged", "roadmap.target"):
        replay({**recipe, "roadmap": roadmap}, model)


def test_recipes_of_earlier_versions_are_replayed(recipe: dict[str, Any], model: nn.Module) -> None:
    early = {key: value for key, value in recipe.items() if key in ("schema", *REQUIRED)}
    assert replay(early, model).diffs


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.just([]),
    st.just({}),
    st.sampled_from(["float32", "complex64", "quint8", "bool", "os.system", "cuda:0", "exact", "skipped", "mofa"]),
    st.just([[1, 2], {"a": None}]),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else ())
    )
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


def changed(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return document


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.slow
def test_only_errors_with_a_name_come_out(bundle: Path, recipe: dict[str, Any], model: nn.Module, data: Any) -> None:
    """Whatever is changed, replaced or taken away at a random place of a real recipe."""
    path = data.draw(st.sampled_from([place for place in places(recipe) if place]))
    junk = data.draw(st.one_of(st.just(KeyError), JUNK))
    damaged = changed(
        recipe, path, lambda inner, key: inner.pop(key) if junk is KeyError else inner.__setitem__(key, junk)
    )
    text = json.dumps(damaged)
    original = (bundle / "recipe.json").read_text()
    try:
        (bundle / "recipe.json").write_text(text)
        for use in (lambda: replay(bundle, model), lambda: mofa_compiler.verify(bundle, model), lambda: load(bundle)):
            with suppress(MofaError):
                use()
    finally:
        (bundle / "recipe.json").write_text(original)
