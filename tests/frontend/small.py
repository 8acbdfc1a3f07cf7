"""Small networks that several tests of the front end capture."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Computing(nn.Module):
    """A convolution, and what a function, called with the network and its output, computes of that."""

    def __init__(self, function: Any, **parts: nn.Module):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 3, 1), function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, self.conv(x))


class Sizes(nn.Module):
    """A convolution, then whatever `body` does with sizes."""

    def __init__(self, body):
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, 4, 3, padding=1), body

    def forward(self, x):
        return self.body(self.conv(x))


class WithMode(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.conv(x)


class Noisy(nn.Module):
    def __init__(self, disturb):
        super().__init__()
        self.conv, self.disturb = nn.Conv2d(3, 3, 1), disturb

    def forward(self, x):
        return self.disturb(self.conv(x))
