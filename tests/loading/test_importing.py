"""Files of repositories without `__init__.py`: their imports are found as Python finds them from the root."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from torch import nn

from mofa_compiler.base.errors import TargetError
from mofa_compiler.loading.import_target import load_target

NET = "\n\ndef net():\n    return nn.Sequential(Block(3, 3, 1))\n"
BLOCK = "from torch import nn\n\nBlock = nn.Conv2d\n"


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def importing(statement: str) -> str:
    return f"from torch import nn\n\n{statement}{NET}"


REPOSITORIES: dict[str, tuple[dict[str, str], str]] = {
    "relative": ({"own/net.py": importing("from .layers import Block"), "own/layers.py": BLOCK}, "own/net.py"),
    "absolute": ({"own/net.py": importing("from own.layers import Block"), "own/layers.py": BLOCK}, "own/net.py"),
    "beside it": ({"own/net.py": importing("from layers import Block"), "own/layers.py": BLOCK}, "own/net.py"),
    "relative, or done without": (
        {
            "own/net.py": importing(
                "try:\n    from .layers import Block\nexcept ImportError:\n    Block = nn.Identity"
            ),
            "own/layers.py": "from torch import nn\n\nBlock = nn.Conv2d\n",
        },
        "own/net.py",
    ),
    "relative, when it is called": (
        {
            "own/net.py": "from torch import nn\n\n\ndef net():\n    from .layers import Block\n\n"
            "    return nn.Sequential(Block(3, 3, 1))\n",
            "own/layers.py": BLOCK,
        },
        "own/net.py",
    ),
    "both": (
        {
            "own/net.py": importing("from own.layers import Block\nfrom . import layers\nimport near"),
            "own/layers.py": BLOCK,
            "own/near.py": "",
        },
        "own/net.py",
    ),
    "two up": (
        {"a/b/c/net.py": importing("from ...x.layers import Block"), "a/x/layers.py": BLOCK},
        "a/b/c/net.py",
    ),
    "relative, and further up from there": (
        {
            "a/b/c/net.py": importing("from .layers import Block"),
            "a/b/c/layers.py": "from ..deep import Block\n",
            "a/b/deep.py": "from a.x.layers import Block\n",
            "a/x/layers.py": BLOCK,
        },
        "a/b/c/net.py",
    ),
    "of another folder of the root": (
        {"scripts/a/net.py": importing("from basic.models import Block"), "basic/models/__init__.py": BLOCK},
        "scripts/a/net.py",
    ),
    "of a module of the root": (
        {"archs/net.py": importing("from blocks import Block"), "blocks.py": BLOCK},
        "archs/net.py",
    ),
    "package below a folder": (
        {
            "basic/archs/__init__.py": "",
            "basic/archs/net.py": importing("from basic.utils.layers import Block"),
            "basic/utils/layers.py": BLOCK,
        },
        "basic/archs/net.py",
    ),
    "no identifier, relative": (
        {"my-own models/net.py": importing("from .layers import Block"), "my-own models/layers.py": BLOCK},
        "my-own models/net.py",
    ),
    "no identifier, absolute": (
        {"my-models/net.py": importing("from utils_of.layers import Block"), "utils_of/layers.py": BLOCK},
        "my-models/net.py",
    ),
    "a library's name": (
        {"email/net.py": importing("from .layers import Block"), "email/layers.py": BLOCK},
        "email/net.py",
    ),
    "a file of no module's name": (
        {"own/net-v2.py": importing("from own.layers import Block"), "own/layers.py": BLOCK},
        "own/net-v2.py",
    ),
}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


@pytest.mark.parametrize("place", ["root", "beside it", "elsewhere"])
@pytest.mark.parametrize(("files", "file"), REPOSITORIES.values(), ids=REPOSITORIES.keys())
@pytest.mark.sample(15)
def test_a_file_is_found_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: None, files: dict[str, str], file: str, place: str
) -> None:
    root, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(root, files)
    where = {"root": root, "beside it": (root / file).parent, "elsewhere": elsewhere}[place]
    monkeypatch.chdir(where)
    source = {"root": file, "beside it": Path(file).name, "elsewhere": str(root / file)}[place]
    model = load_target(f"{source}:net")
    assert isinstance(model, nn.Sequential) and isinstance(model[0], nn.Conv2d)
    assert load_target(f"{source}:net") is not model
    assert "email" not in sys.modules or hasattr(sys.modules["email"], "message_from_string")


@pytest.mark.parametrize("statement", ["from own.layers import Block", "from .layers import Block"])
@pytest.mark.parametrize("second", ["2", "1/old"])
def test_two_versions_of_a_repository_are_told_apart(tmp_path: Path, clean: None, statement: str, second: str) -> None:
    for version, folder in ((1, "1"), (2, second)):
        write(
            tmp_path / folder,
            {
                "own/net.py": importing(statement),
                "own/layers.py": f"from torch import nn\n\ndef Block(*_):\n    return nn.Conv2d(3, {version}, 1)\n",
            },
        )
    models = [load_target(f"{tmp_path}/{folder}/own/net.py:net") for folder in ("1", second, "1")]
    assert [model.get_parameter("0.bias").numel() for model in models] == [1, 2, 1]


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"own/net.py": "from .missing import x\n"}, "missing"),
        (
            {"own/net.py": "from own.layers import x\n", "own/layers.py": "import a_missing_dependency\n"},
            "a_missing_dependency",
        ),
        ({"own/net.py": "from own.layers import x\n", "own/layers.py": "raise ValueError('of mine')\n"}, "of mine"),
        ({"own/net.py": "from ........layers import x\n"}, "relative import"),
    ],
)
def test_what_is_missing_then_is_named(tmp_path: Path, clean: None, files: dict[str, str], missing: str) -> None:
    write(tmp_path, files)
    with pytest.raises(TargetError, match=missing) as raised:
        load_target(f"{tmp_path}/own/net.py:net")
    assert str(raised.value).startswith(f"importing {tmp_path}/own/net.py failed: ")


@pytest.mark.slow
def test_python_agrees(tmp_path: Path) -> None:
    """Where Python imports it from the root by name, its class has that name."""
    write(tmp_path, REPOSITORIES["relative"][0])
    code = "from own.net import net; print(net.__module__)"
    theirs = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    code = "from mofa_compiler.loading.importing import import_source; print(import_source('own/net.py').__name__)"
    ours = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ours.stdout == theirs.stdout
