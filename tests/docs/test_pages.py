"""Every code block and every command of the guides and of the README does what it says."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt

from mofa_compiler.cli import app

from .executor import ROOT
from .pages import BEFORE, SLOW, SMALLER
from .preparing import prepared

GUIDES = sorted((ROOT / "examples" / "guides").rglob("*.md"))
RULES = ROOT / "examples" / "guides" / "rules.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for page in GUIDES if page != RULES)]
APP = typer.main.get_command(app)
COMMANDS = APP.commands  # type: ignore[attr-defined]


@pytest.mark.sample("api", "architecture", "benchmarks", "limits", "stability")  # of few commands
@pytest.mark.parametrize("path", [page for page in PAGES if page.name not in SLOW], ids=lambda path: path.stem)
def test_every_block_is_executed(path: Path, tmp_path: Path) -> None:
    page = prepared(path, tmp_path)
    blocks = page.run()
    fences = [token for token in MarkdownIt().parse(path.read_text(encoding="utf-8")) if token.type == "fence"]
    assert blocks == len(fences)
    needed = {*BEFORE.get(page.name, ()), *(pattern for pattern, *_ in SMALLER.get(page.name, ()))}
    assert page.used >= needed, f"entries of tests/docs/pages.py that nothing needs: {needed - page.used}"


def test_the_rules_examples_are_python_or_toml() -> None:
    """That a rule finds its example, and nothing in what it advises instead, is tested in tests/lint/rules."""
    for fence in MarkdownIt().parse(RULES.read_text(encoding="utf-8")):
        if fence.type == "fence":
            assert fence.info in ("python", "toml")
            if fence.info == "toml":
                tomllib.loads(fence.content)
            else:
                compile(fence.content, f"rules.md:{fence.map}", "exec")


def test_what_is_run_elsewhere_is_run_there() -> None:
    ci, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in (".ci/run", "Makefile"))
    for name in ("demo", "test", "lint", "docs"):
        assert re.search(rf"^make {name}$", ci, re.MULTILINE), f".ci/run does not run make {name}"
    assert re.search(r'pip" install .* torch==2\.13\.0 "\$work"/dist/\*\.whl', ci)
    assert '-e ".[dev]"' in makefile and '-e ".[demo]"' in makefile
    (slow,) = re.findall(r"python -m tests\.docs (.*)", ci)
    assert {Path(page).name for page in slow.split()} == SLOW.keys()


def test_figures_that_the_limits_repeat_are_those_of_the_benchmarks() -> None:
    names = ("examples/guides/limits.md", "examples/guides/benchmarks.md", "README.md")
    limits, *measured = ((ROOT / name).read_text(encoding="utf-8") for name in names)
    repeated = set(re.findall(r"\d+\.\d+(?= times| dB)", limits))
    assert repeated
    figures = set(re.findall(r"(?<![\d.])\d+\.\d+", "".join(measured)))
    assert repeated <= figures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    """mkdocs says so of the site's pages; this says it of the repository's, where people read them first."""
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    made = ("commands.md", "passes.md", "roadmaps.md", "codes.md", ".svg")  # by examples/guides/_site.py
    assert [link for link in links if not link.endswith(made) and not (page.parent / link).exists()] == []


def test_extras_that_pages_install_are_part_of_what_make_test_installs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

    def reached(name: str) -> set[str]:
        inner = {one for needed in extras[name] for one in re.findall(r"mofa-compiler\[(.*)\]", needed)}
        return {name}.union(*(reached(one) for names in inner for one in names.split(",")))

    named = {
        name
        for page in PAGES
        for names in re.findall(r"(?:mofa-compiler|\.)\[([\w,]+)\]['`]", page.read_text(encoding="utf-8"))
        for name in names.split(",")
    }
    assert "executorch" in named and named <= extras.keys()
    assert {name for name in named if extras[name]} <= reached("dev")


def inline_commands() -> list[tuple[str, str]]:
    """Page and text of every command in a sentence."""
    found = []
    for page in [*PAGES, RULES]:
        for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
            for child in token.children or ():
                text = child.content
                if child.type == "code_inline" and re.match(r"(mofa|make|python) [a-z-]", text):
                    found.append((page.name, text))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "text"), inline_commands())
def test_commands_in_sentences_exist(page: str, text: str) -> None:
    program, name, *rest = shlex.split(text.replace("…", ""))
    if program == "make":
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        module = ROOT / rest[0].replace(".", "/") if name == "-m" else None
        file = ROOT / name
        if module is not None:
            file = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
        source = file.read_text(encoding="utf-8")
        assert all(word in source for word in rest if word.startswith("--"))
    elif name.startswith("--"):
        assert name in {option for parameter in APP.params for option in parameter.opts}
    else:
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= known
