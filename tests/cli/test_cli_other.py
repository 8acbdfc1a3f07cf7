"""`mofa analyze`, `capture`, `passes`, `roadmaps`, help and version."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from pydantic import Field
from pydantic.dataclasses import dataclass
from typer.testing import CliRunner, Result

from mofa_compiler import Roadmap
from mofa_compiler.cli import app
from mofa_compiler.cli.passes import describe, type_name
from mofa_compiler.rewriting.pass_api import Pass
from mofa_compiler.rewriting.registry import available
from mofa_compiler.rewriting.roadmap import presets

UNET = str(Path(__file__).parents[2] / "examples" / "architectures" / "unet.py") + ":UNet"
SMALL = ["--arg", "width=4", "--arg", "depth=2", "--input", "1x3x16x16"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))


def mofa(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_analyze_shows_every_stage() -> None:
    result = mofa("analyze", UNET, *SMALL)
    assert result.exit_code == 0
    assert result.stderr == ""
    for name in ("encoder 1", "decoder 2", "head"):
        assert f"\n{name} " in result.stdout
    assert "counted as" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_analyze_lists_layers() -> None:
    assert "ups.1.up" not in mofa("analyze", UNET, *SMALL).stdout
    assert "ups.1.up" in mofa("analyze", UNET, *SMALL, "--layers").stdout


def test_analyze_as_json() -> None:
    data = json.loads(mofa("analyze", UNET, *SMALL, "--json").stdout)
    assert data["schema"] == "mofa-distribution/1"
    assert data["inputs"] == [{"shape": [1, 3, 16, 16], "dtype": "float32"}]
    assert data["after"] is None


def test_analyze_with_a_roadmap_has_both_states() -> None:
    data = json.loads(mofa("analyze", UNET, *SMALL, "--json", "--roadmap", "mofa").stdout)
    assert data["roadmap"] == "mofa"
    assert data["after"]["macs"] != data["before"]["macs"]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_analyze_plots(kind: str) -> None:
    result = mofa("analyze", UNET, *SMALL, "--plot", f"chart.{kind}")
    assert result.exit_code == 0
    assert Path(f"chart.{kind}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "nowhere/chart.png"], "there is no folder"),
        (["--roadmap", "moaf"], "error: there is no roadmap 'moaf'"),
        (["--checkpoint", "no.pth"], "error: there is no file no.pth"),
    ],
)
def test_analyze_errors(arguments: list[str], message: str) -> None:
    result = mofa("analyze", UNET, *SMALL, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.parametrize(("option", "file"), [("--plot", "chart.gif"), ("--draw", "unet.gif")])
def test_analyze_refuses_other_kinds_of_figures(option: str, file: str) -> None:
    result = mofa("analyze", UNET, *SMALL, option, file)
    assert result.exit_code == 2
    assert f"Invalid value for {option}: cannot plot to {file}" in " ".join(result.stderr.replace("│", " ").split())


def test_analyze_draws_a_u() -> None:
    result = mofa("analyze", UNET, *SMALL)
    assert "┌ encoder 1 ─" in result.stdout
    assert "─ cat ─" in result.stdout
    data = json.loads(mofa("analyze", UNET, *SMALL, "--json").stdout)
    assert data["passes"][0]["bottom"] == "encoder 2"
    assert [(skip["source"], skip["target"]) for skip in data["skips"]] == [
        ("encoder 1", "decoder 1"),
        ("stem", "decoder 2"),
    ]


def test_analyze_draws_to_a_file() -> None:
    result = mofa("analyze", UNET, *SMALL, "--draw", "unet.svg", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert ">encoder 1</text>" in Path("unet.svg").read_text(encoding="utf-8")


def test_analyze_of_what_is_no_unet() -> None:
    Path("plain.py").write_text("from torch import nn\ndef net(): return nn.Sequential(nn.Conv2d(3, 3, 3))\n")
    result = mofa("analyze", "plain.py:net", "--input", "1x3x16x16", "--draw", "plain.svg")
    assert result.exit_code == 0
    assert "Not a U-Net: nothing on the main path changes the resolution." in result.stdout
    assert "\nbody " in result.stdout
    assert "┌" not in result.stdout
    assert "its stages in lines: nothing on the main path changes" in Path("plain.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.slow
def test_analyze_on_a_terminal_without_box_characters(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mofa_compiler.cli", "analyze", UNET, *SMALL],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    shown = done.stdout.decode(encoding)
    assert ("┌ encoder 1 ─" in shown) == (encoding == "utf-8")
    assert ("+ encoder 1 -" in shown and "####" in shown) == (encoding != "utf-8")
    assert "?" not in shown and "\x1b" not in shown


@pytest.mark.parametrize("command", ["analyze", "capture"])
def test_quiet_is_silent(command: str) -> None:
    result = mofa(command, UNET, *SMALL, "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert mofa(command, UNET, *SMALL, "-q", "--json").exit_code == 2


def test_capture_tells_what_it_saw() -> None:
    result = mofa("capture", UNET, *SMALL)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert ", eval mode\n" in result.stdout
    assert "13 of 13 convolutions seen\n" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_capture_as_json() -> None:
    data = json.loads(mofa("capture", UNET, *SMALL, "--train", "--json").stdout)
    assert (data["schema"], data["mode"], data["warnings"]) == ("mofa-capture/1", "train", [])


TWO_FACED = """
import warnings
from torch import nn


class TwoFaced(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        warnings.warn("mine", UserWarning)
        return x * 2 if self.training else self.net(x)
"""


def test_capture_tells_what_the_other_mode_does() -> None:
    Path("faces.py").write_text(TWO_FACED)
    with pytest.warns(UserWarning, match="mine"):
        result = mofa("capture", "faces.py:TwoFaced", "--input", "1x3x16x16", "--json")
    (warning,) = json.loads(result.stdout)["warnings"]
    assert warning.startswith("TwoFaced ")
    assert "what it does in eval mode, and stays so" in warning


def test_capture_of_what_cannot_be_captured() -> None:
    Path("moody.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x if x.sum() else -x\n"
    )
    result = mofa("capture", "moody.py:Net", "--input", "1x3x16x16")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: cannot trace Net")


def test_passes_are_listed_with_their_options() -> None:
    result = mofa("passes")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line and line[0] != " "] == list(available())
    assert "    portion: fraction (default: 1/4)\n" in result.stdout
    assert "    mode: bilinear | nearest (default: bilinear)\n" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", available())
def test_every_pass_is_documented(name: str) -> None:
    result = mofa("passes", name)
    assert result.exit_code == 0
    described = json.loads(mofa("passes", name, "--json").stdout)
    assert described["name"] == name
    assert described["summary"]
    shown = " ".join(result.stdout.split())  # long lines are wrapped
    for option in described["options"]:
        assert option["doc"], f"{name}: {option['name']} is not documented"
        assert f" {option['name']}: {option['type']}" in shown
        assert option["required"] or option["default"] is not None
    assert not described["after"] or "Comes after" in result.stdout


def test_all_passes_as_json() -> None:
    assert [entry["name"] for entry in json.loads(mofa("passes", "--json").stdout)] == list(available())


def test_an_unknown_pass() -> None:
    result = mofa("passes", "widen")
    assert result.exit_code == 1
    assert result.stderr == "error: there is no pass 'widen' (did you mean 'widen-portion'?)\n"


@dataclass(frozen=True)
class Someones(Pass):
    """Do something.

    More about it,
    on two lines.

    Options:
        size: how large: very.
            Or not.
    """

    name: ClassVar[str] = "someones"

    size: int
    names: tuple[str, ...] = ("a", "b")
    undocumented: Annotated[float | None, Field(gt=0)] = None

    def match(self, layer: Any, network: Any) -> None: ...

    def build(self, layer: Any, modules: Any) -> Any: ...


def test_a_pass_from_elsewhere() -> None:
    assert describe(Someones) == {
        "name": "someones",
        "summary": "Do something.",
        "doc": "Do something.\n\nMore about it, on two lines.",
        "after": [],
        "options": [
            {
                "name": "size",
                "type": "whole number",
                "required": True,
                "default": None,
                "doc": "how large: very. Or not.",
            },
            {"name": "names", "type": "list of text", "required": False, "default": ["a", "b"], "doc": ""},
            {"name": "undocumented", "type": "number | nothing", "required": False, "default": None, "doc": ""},
            {
                "name": "layers",
                "type": "list of text",
                "required": False,
                "default": ["*"],
                "doc": "globs over paths: the pass looks at no other layer.",
            },
        ],
    }


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (bool, "true | false"),
        (Fraction, "fraction"),
        (Literal["a", "b"], "a | b"),
        (list[int], "list of whole number"),
        (Path, "Path"),
    ],
)
def test_types_are_named_for_people(hint: Any, expected: str) -> None:
    assert type_name(hint) == expected


def test_roadmaps_are_listed() -> None:
    result = mofa("roadmaps")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line[0] != " "] == presets()
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", presets())
def test_a_printed_roadmap_can_be_used(name: str) -> None:
    Path("my.toml").write_text(mofa("roadmaps", name).stdout, encoding="utf-8")
    assert Roadmap.load("my.toml") == Roadmap.load(name)


def test_an_unknown_roadmap() -> None:
    result = mofa("roadmaps", "moaf")
    assert result.exit_code == 1
    assert "did you mean 'mofa'?" in result.stderr


def test_version() -> None:
    assert mofa("--version").stdout == f"mofa-compiler {version('mofa-compiler')}\n"


COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_has_examples_and_exit_codes(command: list[str]) -> None:
    result = mofa(*command, "--help")
    assert result.exit_code == 0
    assert f"\n  mofa {' '.join(command)}" in result.stdout
    assert f"Exit codes:\n    0    {'clean' if command == ['lint'] else 'done'}" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "..." not in result.stdout.partition("Commands:")[2]


def examples() -> list[str]:
    """The command lines in the help of all commands."""
    texts = [app.registered_callback.callback.__doc__, *(command.help for command in COMMANDS.values())]  # type: ignore[union-attr]
    text = re.sub(r"\\\n\s*", "", "\n".join(map(inspect.cleandoc, texts)))
    return [re.split(r"   +|#", line.strip())[0] for line in text.splitlines() if line.strip().startswith("mofa ")]


@pytest.mark.parametrize("line", examples())
def test_the_examples_in_the_help_are_command_lines(line: str) -> None:
    _, name, *arguments = shlex.split(line.partition(" > ")[0])
    COMMANDS[name].make_context(name, arguments)  # raises on what is no option, value or argument of it


def test_no_arguments_print_help() -> None:
    assert "Commands:" in mofa().output


def test_help_of_a_process_needs_no_analysis() -> None:
    code = (
        "import sys; from mofa_compiler.cli import main; sys.argv = ['mofa', '--help']\n"
        "try: main()\n"
        "except SystemExit: print({'matplotlib', 'mofa_compiler.passes'} & sys.modules.keys() or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nnone\n")
