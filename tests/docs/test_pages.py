"""Every code block and every command of the guides and of the README does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt

from mofa_compiler.cli import app

from .executor import ROOT, Page
from .pages import BEFORE, ELSEWHERE, SMALLER

GUIDES = sorted((ROOT / "examples" / "guides").rglob("*.md"))
RULES = ROOT / "examples" / "guides" / "rules.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for page in GUIDES if page != RULES)]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def prepared(folder: Path, page: Path) -> Page:
    """A folder in which the page's reader might be: beside a checkout's examples, with a few photographs."""
    (folder / "examples").symlink_to(ROOT / "examples")
    if page.name == "README.md":
        prepare_readme(folder, page.read_text(encoding="utf-8"))
    return Page(page, folder)


def prepare_readme(folder: Path, text: str) -> None:
    """What its commands take for granted: photographs, and the models that its own configuration names."""
    import torch
    from PIL import Image

    (folder / "out").mkdir()
    (folder / "photos").mkdir()
    for index in range(3):
        pixels = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(index)).mul(255).byte().numpy()
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    (folder / "net.py").write_text((ROOT / "examples/architectures/unet.py").read_text().replace("UNet", "Net"))
    (configuration,) = re.findall(r"```toml\n(\[tool\.mofa\].*?)```", text, re.DOTALL)
    (folder / "pyproject.toml").write_text(configuration.replace("256x256", "32x32"))
    (folder / "known.json").write_text('{"schema": "mofa-lint-baseline/1", "models": {}}')


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_block_is_executed(path: Path, tmp_path: Path) -> None:
    page = prepared(tmp_path, path)
    blocks = page.run()
    fences = [token for token in MarkdownIt().parse(path.read_text(encoding="utf-8")) if token.type == "fence"]
    assert blocks == len(fences)
    needed = {*BEFORE.get(page.name, ()), *(pattern for pattern, *_ in SMALLER.get(page.name, ()))}
    assert page.used >= needed, f"entries of tests/docs/pages.py that nothing needs: {needed - page.used}"


def test_the_rules_examples_are_python() -> None:
    """That a rule finds its example, and nothing in what it advises instead, is tested in tests/lint/rules."""
    for fence in MarkdownIt().parse(RULES.read_text(encoding="utf-8")):
        if fence.type == "fence":
            assert fence.info == "python"
            compile(fence.content, f"rules.md:{fence.map}", "exec")


def test_what_is_run_elsewhere_is_run_there() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for pattern in ELSEWHERE:
        alternatives = re.search(r"\((.*)\)", pattern)
        for name in alternatives[1].split("|") if alternatives and pattern.startswith("make") else ():
            assert re.search(rf"^make {name}$", ci, re.MULTILINE), f".ci/run does not run make {name}"
    assert re.search(r'pip" install .* torch==2\.13\.0 "\$work"/dist/\*\.whl', ci)


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
        file = ROOT / (rest[0].replace(".", "/") + ".py" if name == "-m" else name)
        source = file.read_text(encoding="utf-8")
        assert all(word in source for word in rest if word.startswith("--"))
    else:
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= known
