"""What pages say of the code that is written from the code: passes, folders, layers.

python -m tests.docs.written
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

from mofa_compiler.cli.passes import describe
from mofa_compiler.rewriting import Lowering, Pass
from mofa_compiler.rewriting.registry import GROUP
from tests.benchmarks.files import replace_block

ROOT = Path(__file__).resolve().parents[2]


def own_passes() -> list[type[Pass]]:
    """The passes that come along: rewrites in the alphabet's order, then lowerings."""
    ours = [entry for entry in entry_points(group=GROUP) if entry.value.startswith("mofa_compiler.passes")]
    passes: list[type[Pass]] = [entry.load() for entry in ours]
    return sorted(passes, key=lambda one: (issubclass(one, Lowering), one.name))


def passes() -> Iterator[str]:
    """A table of the passes, by the first paragraph of their docstrings."""
    yield "| pass | what it does |"
    yield "|---|---|"
    for one in own_passes():
        yield f"| `{one.name}` | {describe(one)['summary']}{' Exact.' if issubclass(one, Lowering) else ''} |"


def layers() -> list[list[str]]:
    """Folders and files of the package, from the top layer down, as import-linter is told them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if one["type"] == "layers"]
    return [[name.strip(" ()") for name in line.split("|")] for line in contract["layers"]]


def drawn() -> Iterator[str]:
    """The layers, one a line."""
    yield "| from above to below | |"
    yield "|---|---|"
    for number, names in enumerate(layers()):
        yield f"| {len(layers()) - number} | {' · '.join(f'`{name}`' for name in names)} |"


def house() -> Iterator[str]:
    """A table of the folders, from above to below, by the first line of their docstrings."""
    yield "| folder | what is in it |"
    yield "|---|---|"
    for name in (name for names in layers() for name in names):
        folder = ROOT / "mofa_compiler" / name
        if folder.is_dir():
            doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
            summary = " ".join(doc.partition("\n\n")[0].split())
            yield f"| `{name}/` | {summary} |"


BLOCKS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "passes": ("README.md", passes),
    "house": ("CONTRIBUTING.md", house),
    "layers": ("examples/guides/architecture.md", drawn),
}
"""By name: the page that has the block, and what writes it"""


def markers(name: str) -> tuple[str, str]:
    """Between these lines of its page a block stands."""
    return f"<!-- {name}: `make readme` -->", f"<!-- end of {name} -->"


if __name__ == "__main__":
    for name, (page, lines) in BLOCKS.items():
        replace_block(ROOT / page, "\n".join(lines()), markers(name))
