"""The folders that pages are executed in."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from PIL import Image

from examples.architectures.unet import UNet

from .executor import ROOT, Page


def prepared(path: Path, folder: Path) -> Page:
    """A page in an empty folder that its reader might be in: with a checkout's examples."""
    (folder / "examples").symlink_to(ROOT / "examples")
    if path == ROOT / "README.md":
        _prepare_readme(folder, path.read_text(encoding="utf-8"))
    return Page(path, folder)


def _prepare_readme(folder: Path, text: str) -> None:
    """What its commands take for granted: photographs, and the models that its own configuration names."""
    (folder / "out").mkdir()
    (folder / "photos").mkdir()
    for index in range(3):
        pixels = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(index)).mul(255).byte().numpy()
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    unet = (ROOT / "examples" / "architectures" / "unet.py").read_text(encoding="utf-8")
    (folder / "net.py").write_text(unet.replace("UNet", "Net").replace("depth: int = 4", "depth: int = 1"))
    torch.save(UNet(width=32, depth=1).state_dict(), folder / "net.pth")
    (configuration,) = re.findall(r"```toml\n(\[tool\.mofa\].*?)```", text, re.DOTALL)
    (folder / "pyproject.toml").write_text(configuration.replace("256x256", "32x32"))
    (folder / "known.json").write_text('{"schema": "mofa-lint-baseline/1", "models": {}}')
