"""A network run node by node, in float64 if it can."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..analysis.network import Network
from ..base.torch_state import kept_buffers, own_randomness
from ..graph.call_spec import CallSpec, map_tree
from ..graph.interpreter import Interpreter
from ..graph.node_names import describe
from .running import values

_LOWER = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = {"float": "double", "half": "double", "bfloat16": "double"}

Watch = Callable[[fx.Node, Any], None]
"""Is shown every node with its value."""


class Interpreted(Interpreter):
    """A copy of a network in eval mode.

    With `double`, it computes in float64, also where its own code names a lower precision.

    Attributes:
        node: the node that is being run, or that failed.
        lowest: the lowest precision that anything was computed in so far; a part that is not seen into, or a library,
            may lower it whatever the weights are. `lowered` says where it was below float64 first.
    """

    def __init__(self, network: Network, *, double: bool):
        module = copy.deepcopy(network.program.graph_module).eval()
        if double:
            module.double()
            for node in module.graph.nodes:
                node.args, node.kwargs = (pytree.tree_map(_widened, tree) for tree in (node.args, node.kwargs))
                if node.op == "call_method":
                    node.target = _CASTS.get(node.target, node.target)
        super().__init__(module)
        self.double = double
        self.name = network.program.name
        self.signature = inspect.signature(network.program.graph_module.forward)
        self.node: fx.Node | None = None
        self.lowest = torch.float64
        self.lowered = ""
        self._watch: Watch | None = None

    def outputs(self, call: CallSpec, watch: Watch | None = None) -> Tensor:
        """All tensors that it returns, flattened into one.

        Raises:
            VerificationError: it returns none.
            Exception: whatever the network raises.
        """
        self._watch = watch
        args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, self._copied)
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        default = torch.float64 if self.double else torch.get_default_dtype()
        kept = kept_buffers(self.module)
        with torch.no_grad(), own_randomness(seed=0), kept, _default_dtype(default), _Precision(self):
            return values(self.name, self.run(*bound.arguments.values()))

    def run_node(self, node: fx.Node) -> Any:
        self.node = node
        value = super().run_node(node)
        if self._watch is not None:
            self._watch(node, value)
        return value

    def computed_in(self, dtype: torch.dtype) -> None:
        """Take notice of a precision that something was computed in."""
        if torch.finfo(dtype).eps > torch.finfo(self.lowest).eps:
            self.lowered = self.lowered or (describe(self.node) if self.node else "")
            self.lowest = dtype

    def _copied(self, tensor: Tensor) -> Tensor:
        """A copy, as some networks write into their input; what counts or says yes or no is never float64."""
        return tensor.to(torch.float64, copy=True) if self.double and tensor.is_floating_point() else tensor.clone()


class _Precision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells a network that is run which precisions its operations compute in, inside modules too."""

    def __init__(self, interpreted: Interpreted):
        super().__init__()  # type: ignore[no-untyped-call]
        self.interpreted = interpreted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
                self.interpreted.computed_in(leaf.dtype)
        return result


def _widened(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _LOWER else value


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What a network makes on the way (positions, masks) has the default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
