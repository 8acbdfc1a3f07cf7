"""A file of small networks to lint, and commands in its folder."""

from __future__ import annotations

import json

import torch
from typer.testing import CliRunner, Result

from mofa_compiler.cli import app

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=16, dense=False):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=1 if dense else width),
            nn.Conv2d(width, width, 1),
        )
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        return x + self.tail(self.body(self.head(x)))

class Clean(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 3, 3, padding=1))

class Shuffling(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 64, 1, bias=False), nn.PixelShuffle(2),
                         nn.Conv2d(16, 3, 3, padding=1))

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return self.conv(x) if x.mean() > 0 else x

class Linear(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 3))

class Needs(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Conv2d(3, width, 1))
"""


def mofa(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def lint(*arguments: str) -> Result:
    return mofa("lint", *arguments)


def codes(result: Result) -> list[str]:
    return [finding["code"] for model in json.loads(result.stdout)["models"] for finding in model["findings"]]


def model() -> torch.nn.Module:
    namespace: dict[str, object] = {}
    exec(NET, namespace)
    return namespace["Net"]()  # type: ignore[operator, no-any-return]
