"""Nodes of the traced graph, as a pass asks of them: where they come from, what they call, what they cost."""

from ..frontend.proxies import GUARDS
from ..graph.macs import conv_macs, function_name
from ..graph.node_names import describe, path_of
from ..graph.plain_layers import altered, is_plain

__all__ = ["GUARDS", "altered", "conv_macs", "describe", "function_name", "is_plain", "path_of"]
