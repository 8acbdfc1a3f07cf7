"""Targets: everything that can be named on the command line, and one clear line for everything that cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mofa_compiler.base.errors import TargetError
from mofa_compiler.loading.import_target import load_target, parse_args
from mofa_compiler.loading.importing import class_text
from tests.raising import raising

ARCHITECTURE = """
import torch
from torch import nn

print("this must not reach stdout")


class Net(nn.Module):
    def __init__(self, width, depth: int = 1):
        super().__init__()
        print("nor this")
        if width < 0:
            raise ValueError("width must be positive")
        self.conv = nn.Conv2d(3, width, 3)
        self.depth = depth


def factory(width=4):
    return Net(width)


def wrong():
    return 3


def stops():
    raise SystemExit("bye")


class Holder:
    Net = Net


instance = Net(2)
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "arch.py").write_text(ARCHITECTURE)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "args"),
    [
        ("arch.py:Net", {"width": 4}),
        ("./arch.py:Net", {"width": 4}),
        ("arch:Net", {"width": 4}),
        ("arch.py:factory", {}),
        ("arch.py:Holder.Net", {"width": 4}),
        ("arch.py:instance", {}),
    ],
)
def test_targets_are_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str, args: dict[str, Any]
) -> None:
    assert isinstance(load_target(target, args), nn.Module)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "this must not reach stdout\nnor this\n" in captured.err


def test_an_absolute_path(folder: Path) -> None:
    assert isinstance(load_target(f"{folder / 'arch.py'}:factory"), nn.Module)


def test_a_file_is_imported_once_under_a_private_name(folder: Path) -> None:
    first, second = load_target("arch.py:factory"), load_target("./arch.py:factory")
    assert type(first) is type(second)
    assert type(first).__module__.startswith("_mofa_target_")
    assert (class_text(type(first)), class_text(nn.Conv2d)) == ("Net", "torch.nn.modules.conv.Conv2d")
    assert "arch" not in sys.modules


def write_package(root: Path, name: str) -> Path:
    package = root / name / "inner"
    package.mkdir(parents=True)
    (root / name / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "blocks.py").write_text("from torch import nn\nBlock = nn.Conv2d\n")
    (package / "net.py").write_text(
        "from torch import nn\nfrom .blocks import Block\n\n\ndef net():\n    return nn.Sequential(Block(3, 3, 1))\n"
    )
    return package / "net.py"


def test_a_file_in_a_package_may_import_relatively(folder: Path) -> None:
    write_package(folder, "someones_package")
    model = load_target("someones_package/inner/net.py:net")
    assert isinstance(model, nn.Sequential)
    assert "someones_package.inner.net" in sys.modules


def test_a_package_whose_name_is_taken(folder: Path) -> None:
    write_package(folder, "email")
    assert isinstance(load_target("email/inner/net.py:net"), nn.Sequential)
    assert sys.modules.get("email") is None or "inner" not in vars(sys.modules["email"])


def test_a_file_may_import_its_neighbours(folder: Path) -> None:
    (folder / "neighbour_of_net.py").write_text("from torch import nn\n")
    (folder / "net.py").write_text("from neighbour_of_net import nn\n\ndef net():\n    return nn.Identity()\n")
    assert isinstance(load_target("net.py:net"), nn.Identity)


@pytest.mark.parametrize(
    ("target", "args", "said"),
    [
        ("arch.py", {}, ("unknown-name",)),
        ("arch", {}, ("unknown-name",)),
        ("arch.py:", {}, ("unknown-name",)),
        ("none.py:Net", {}, ("not-found", "none.py")),
        ("some/where:Net", {}, ("not-found", "some/where")),
        (".:Net", {}, ("wrong-kind",)),
        ("./:Net", {}, ("not-found", "./")),
        ("nowhere:Net", {}, ("not-found", "'nowhere'")),
        ("json.nowhere:Net", {}, ("not-found", "'json.nowhere'")),
        ("arch.py:Nett", {}, ("unknown-name", "arch.py", "'Nett'", "'Net'")),
        ("arch.py:Net.x", {}, ("unknown-name", "arch.py", "'x'")),
        ("arch.py:number", {}, ("wrong-kind", "number")),
        ("arch.py:Holder", {}, ("wrong-kind", "Holder")),
        ("arch.py:instance", {"width": 1}, ("unknown-option", "width")),
        ("arch.py:wrong", {}, ("wrong-kind", "wrong")),
        ("arch.py:Net", {}, ("failed", "'width'", "Net(width, depth=1)")),
        (
            "arch.py:Net",
            {"wdth": 1},
            ("unknown-option", "'wdth'", "'width'", "Net(width, depth=1)"),
        ),
        ("arch.py:Net", {"width": -1}, ("failed", "width=-1", "ValueError: width must be positive", "arch.py:13")),
        ("arch.py:Net", {"width": "x"}, ("failed", "TypeError", "arch.py:12")),
        ("arch.py:stops", {}, ("failed", "SystemExit: bye", "arch.py:27")),
    ],
)
def test_what_is_wrong_with_a_target(folder: Path, target: str, args: dict[str, Any], said: tuple[str, ...]) -> None:
    with raising(TargetError, *said) as raised:
        load_target(target, args)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import a_missing_dependency\n", ("ModuleNotFoundError", "a_missing_dependency", "broken.py:1")),
        ("x = 1\nx.y\n", ("AttributeError", "broken.py:2")),
        ("def f(:\n", ("SyntaxError", "broken.py:1")),
        ("from .sibling import x\n", ("Error: ", "broken.py:1")),
        ("from torch import nn\n\nnn.Conv2d(3, 4, 3, groups=2)\n", ("ValueError", "broken.py:3")),
    ],
)
@pytest.mark.parametrize("target", ["broken.py:Net", "broken:Net"])
def test_a_file_that_fails(folder: Path, source: str, named: tuple[str, ...], target: str) -> None:
    (folder / "broken.py").write_text(source)
    with raising(TargetError, "failed", *named) as raised:
        load_target(target)
    assert str(raised.value).startswith("importing broken")


def test_a_file_without_its_ending_is_explained(folder: Path) -> None:
    (folder / "my-arch.py").write_text(ARCHITECTURE)
    with raising(TargetError, "wrong-kind"):
        load_target("my-arch:Net")
    assert isinstance(load_target("my-arch.py:factory"), nn.Module)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("[1, 1]", [1, 1]),
        ("None", None),
        ("False", False),
        ("1e-3", 1e-3),
        ("'16'", "16"),
        ("foo", "foo"),
        ("a=b", "a=b"),
        ("", ""),
        ("[1,", "[1,"),
        ("../x y", "../x y"),
    ],
)
def test_arguments_are_literals_or_text(text: str, value: object) -> None:
    assert parse_args([f"name={text}"]) == {"name": value}


@pytest.mark.parametrize("text", ["width", "=3", "a b=3", "a.b=3"])
def test_arguments_need_a_name_and_a_value(text: str) -> None:
    with raising(TargetError, "bad-value"):
        parse_args([text])


def test_an_argument_twice() -> None:
    with raising(TargetError, "ambiguous"):
        parse_args(["a=1", "a=2"])
