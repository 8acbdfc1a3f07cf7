"""Batch normalizations merged before an exporter does it: XNNPACK's fusion fails on grouped transposed convolutions."""

from __future__ import annotations

import copy

from torch import nn

from ..base.errors import MofaError
from ..formats.quiet_exporters import calm
from ..graph.call_spec import CallSpec


def merged_norms(module: nn.Module, call: CallSpec) -> nn.Module | None:
    """The network after the pass `merge-linear`, which is exact; None where it finds nothing, or cannot look."""
    from ..analysis.anatomy import infer
    from ..analysis.network import Network
    from ..frontend import capture
    from ..rewriting.engine import rewrite
    from ..rewriting.registry import available

    try:
        with calm():
            program = capture(copy.deepcopy(module).eval(), call)
            after, diff = rewrite(Network(program, infer(program)), available()["merge-linear"]())
    except MofaError:
        return None
    return after.program.graph_module.eval() if diff.rewritten and diff.exact else None
