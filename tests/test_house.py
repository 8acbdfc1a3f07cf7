"""The house: which room may import which is the import linter's to check; this is what its contracts cannot say."""

from __future__ import annotations

import tomllib
from pathlib import Path

import grimp
import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
PASSES = "mofa_compiler.passes"
PASSES_MAY_IMPORT = {"rewriting", "analysis", "weights", "nn"}


@pytest.fixture(scope="module")
def imports() -> nx.DiGraph:
    graph = grimp.build_graph("mofa_compiler")
    return nx.DiGraph((one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one))


def test_no_files_import_one_another_in_a_circle(imports: nx.DiGraph) -> None:
    circles = [sorted(found) for found in nx.strongly_connected_components(imports) if len(found) > 1]
    assert circles == []


def test_the_contract_of_passes_forbids_every_room_below_them_but_four(imports: nx.DiGraph) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers, passes = contracts
    below = layers["layers"][next(i for i, line in enumerate(layers["layers"]) if "passes" in line.split(" | ")) + 1 :]
    rooms = {room for line in below for room in line.split(" | ")} - PASSES_MAY_IMPORT
    assert passes["source_modules"] == [PASSES]
    assert set(passes["forbidden_modules"]) == {f"mofa_compiler.{room}" for room in rooms}
    assert set(imports.predecessors(PASSES)) == set()


def test_every_package_of_the_checkout_would_be_in_the_wheel() -> None:
    lacking = [
        folder
        for folder in (ROOT / "mofa_compiler").rglob("*")
        if any(folder.glob("*.py")) and not (folder / "__init__.py").is_file() and "__pycache__" not in folder.parts
    ]
    assert lacking == []
