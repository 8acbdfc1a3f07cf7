"""What commands are tried on: a bundle, made once, and a folder with a file of small networks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from architectures import UNet
from mofa_compiler import apply
from tests.cli.linted import NET


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle "out" of a UNet(width=4, depth=1) and its checkpoint "net.pth": to be copied."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("made")
    model = UNet(width=4, depth=1).eval()
    torch.save(model.state_dict(), folder / "net.pth")
    apply(model, "mofa", torch.rand(1, 3, 16, 16)).save(folder / "out")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To lint in: an empty one with the file net.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MOFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("net.py").write_text(NET)
