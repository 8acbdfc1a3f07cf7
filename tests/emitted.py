"""Source as it was emitted, run."""

from __future__ import annotations

import types

from torch import nn


def run(source: str) -> nn.Module:
    """The network that emitted source makes, without weights."""
    module = types.ModuleType("emitted")
    exec(compile(source, "emitted.py", "exec"), module.__dict__)
    built = module.Model()
    assert isinstance(built, nn.Module)
    return built
