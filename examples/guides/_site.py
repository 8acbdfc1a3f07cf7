"""What the site has beside the files of this folder: the README, pages made from the code, and figures.

A hook of mkdocs, named in `.mkdocs.yml`. Nothing made here is kept, so none of it can go stale.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
IMAGES = ("examples/demo.png", "examples/deployment.png")
GUIDES = "examples/guides"
COPIED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages of the site whose files are elsewhere; links are written for the repository"""
DRAWN = "method.md"

_FENCE = re.compile(r"^```(sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)")
_FILE = re.compile(r"^# include (\S+)$", re.MULTILINE)
_scratch = tempfile.TemporaryDirectory()


def on_files(files: Files, config: Any) -> Files:
    """Add what is made here."""
    pages = {
        **{name: (ROOT / file).read_text(encoding="utf-8") for file, name in COPIED.items()},
        "reference/commands.md": "\n".join(commands()),
        "reference/passes.md": "\n".join(passes()),
        "reference/roadmaps.md": "\n".join(roadmaps()),
        "reference/codes.md": "\n".join(codes()),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for name in IMAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for figure in figures():
        files.append(File.generated(config, figure.name, abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put files of the repository into code blocks that ask for them, and let links lead to pages of the site."""
    markdown = _FILE.sub(lambda asked: (ROOT / asked[1]).read_text(encoding="utf-8").rstrip("\n"), markdown)
    source = page.file.src_uri
    written = {name: file for file, name in COPIED.items()}.get(source, f"{GUIDES}/{source}")

    def here(link: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(posixpath.dirname(written), link[1]))
        name = COPIED.get(file, file.removeprefix(f"{GUIDES}/"))
        return f"]({posixpath.relpath(name, posixpath.dirname(source) or '.')}{link[2] or ''})"

    return _LINK.sub(here, markdown)


def commands() -> Iterator[str]:
    """The help of every command."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from mofa_compiler.cli import app

    def shown(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "80"}, prog_name="mofa")
        return f"```text\n{result.output.strip()}\n```\n"

    yield "# Commands\n"
    yield "What `--help` prints. `mofa --install-completion` makes the shell complete commands, options and"
    yield "the names of roadmaps, engines, passes and rules.\n"
    yield shown()
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        yield f"## mofa {name}\n"
        yield shown(name)


def passes() -> Iterator[str]:
    """Every pass that comes along, described by itself, as `mofa passes` does."""
    from mofa_compiler.cli.passes import describe
    from mofa_compiler.rewriting.registry import available

    yield "# Passes\n"
    yield "What `mofa passes` says. In a roadmap's TOML a pass is a `[[pass]]` table with its name and options.\n"
    for name, pass_ in available().items():
        described = describe(pass_)
        yield f"## {name}\n"
        yield f"{described['doc']}\n"
        yield f"In Python: `{pass_.__module__.rpartition('.')[0]}.{pass_.__name__}`.\n"
        if described["after"]:
            yield f"Comes after {', '.join(f'[{one}](#{one})' for one in described['after'])}.\n"
        for option in described["options"]:
            default = option["default"]
            value = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
            say = "required" if option["required"] else f"default `{value}`" if value else "by default none"
            yield f"- `{option['name']}` ({option['type']}, {say}): {option['doc']}"
        yield ""


def roadmaps() -> Iterator[str]:
    """Every preset as TOML."""
    from mofa_compiler.rewriting.roadmap import Roadmap, presets

    yield "# Roadmaps\n"
    yield "The presets, as `mofa roadmaps NAME` prints them: with every option, to start a roadmap of your own from.\n"
    for name in presets():
        roadmap = Roadmap.load(name)
        yield f"## {name}\n"
        yield f"{roadmap.description}\n"
        yield f"```toml\n{roadmap.to_toml()}```\n"


def codes() -> Iterator[str]:
    """Every code of an error and of a layer that was left alone."""
    from mofa_compiler.base.error_codes import ERROR_CODES
    from mofa_compiler.rewriting import SKIP_CODES

    yield "# Codes\n"
    yield "Words that programs can compare; they stay, where the text beside them may change.\n"
    for title, known in (("Errors", ERROR_CODES), ("Layers that were left alone", SKIP_CODES)):
        yield f"## {title}\n"
        yield "| code | meaning |\n|---|---|"
        yield from (f"| `{code}` | {meaning} |" for code, meaning in known.items())
        yield ""


def figures() -> list[Path]:
    """What the commands on a page draw; they are run as they stand there.

    Raises:
        RuntimeError: one of them fails.
    """
    text = (HERE / DRAWN).read_text(encoding="utf-8")
    folder = Path(_scratch.name)
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(ROOT / "examples")
    script = "".join(block for language, block in _FENCE.findall(text) if language == "sh")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "COLUMNS": "80"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the commands of {DRAWN} fail:\n{done.stdout}{done.stderr}")
    return sorted(folder.glob("*.svg"))
