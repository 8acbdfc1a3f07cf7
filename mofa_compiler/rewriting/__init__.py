"""Passes and what carries them out: the interface of a pass, the engine, graph work, diffs, roadmaps.

What a pass is written with is imported from here.
"""

from ..base.errors import RewriteError, RoadmapError, nearest
from ..base.option_types import FROZEN, Portion, as_tuple, convolved_channels
from ..graph.program import Program
from ..graph.shape_propagation import meta_twin
from ..numerics.equivalence import EXACT_TOLERANCE, module_error
from .fate import Fate
from .graph_pass import GraphLowering, GraphPass, is_image
from .graph_rewriter import Rewiring
from .layer_surgery import Selection, origin, selection
from .pass_api import (
    SKIP_CODES,
    Bypass,
    Lowering,
    Match,
    Moved,
    Pass,
    Phase,
    Preparation,
    Replacement,
    Skip,
    Watch,
    unknown_subclass,
)

__all__ = [
    "EXACT_TOLERANCE",
    "FROZEN",
    "Fate",
    "GraphLowering",
    "Bypass",
    "GraphPass",
    "Lowering",
    "Match",
    "Moved",
    "Pass",
    "Phase",
    "Portion",
    "Preparation",
    "Program",
    "Replacement",
    "RewriteError",
    "Rewiring",
    "RoadmapError",
    "SKIP_CODES",
    "Selection",
    "Skip",
    "Watch",
    "as_tuple",
    "convolved_channels",
    "is_image",
    "meta_twin",
    "module_error",
    "nearest",
    "origin",
    "selection",
    "unknown_subclass",
]
