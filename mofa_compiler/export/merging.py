"""Batch normalizations merged before an exporter does it: XNNPACK's fusion fails on grouped transposed convolutions."""

from __future__ import annotations

import copy

from torch import nn

from ..errors import MofaError
from ..inputs import CallSpec
from .silence import calm


def merged_norms(module: nn.Module, call: CallSpec) -> nn.Module | None:
    """The network after the pass `merge-linear`, which is exact; None where it finds nothing, or cannot look."""
    from ..anatomy import infer
    from ..network import Network
    from ..registry import available
    from ..rewriting import rewrite
    from ..tracing import capture

    try:
        with calm():
            program = capture(copy.deepcopy(module).eval(), call)
            after, diff = rewrite(Network(program, infer(program)), available()["merge-linear"]())
    except MofaError:
        return None
    return after.program.graph_module.eval() if diff.rewritten and diff.exact else None
