"""The folders that pages are executed in."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from PIL import Image

from .executor import ROOT, Page


def prepared(path: Path, folder: Path) -> Page:
    """A page in an empty folder that its reader might be in: with a checkout's examples."""
    (folder / "examples").symlink_to(ROOT / "examples")
    if path.name == "quality.md":
        _photographs(folder / "photos")
        _photographs(folder / "val")
    if path.name == "CONTRIBUTING.md":
        _entry_points(folder / "site" / "contributing-1.dist-info", path.read_text(encoding="utf-8"))
    return Page(path, folder)


def _photographs(folder: Path) -> None:
    folder.mkdir()
    for index in range(3):
        pixels = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(index)).mul(255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{index}.png")


def _entry_points(folder: Path, text: str) -> None:
    """The passes that a page adds to `passes/`, as the metadata of a package that is installed."""
    found = re.findall(r'^```python title="passes/(\w+)\.py"$.*?^class (\w+)', text, re.MULTILINE | re.DOTALL)
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: contributing\nVersion: 1\n")
    lines = [f"{file.replace('_', '-')} = passes.{file}:{name}\n" for file, name in found]
    (folder / "entry_points.txt").write_text("".join(["[mofa_compiler.passes]\n", *lines]))
