"""A bundle for the commands that take one, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from architectures import UNet
from mofa_compiler import apply


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle "out" of a UNet(width=4, depth=1) and its checkpoint "net.pth": to be copied."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("made")
    model = UNet(width=4, depth=1).eval()
    torch.save(model.state_dict(), folder / "net.pth")
    apply(model, "mofa", torch.rand(1, 3, 16, 16)).save(folder / "out")
    return folder
