"""Guards on what cannot change with the size of the input, dropped: channels, and the lengths of parameters.

Which dimensions of a value are the network's own follows operation by operation; one that is not known here counts as
one that may change.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _MaxUnpoolNd

from .proxies import check_bool, check_length, check_value

Own = tuple[bool, ...]
"""Of every dimension, whether the network alone says how long it is"""

_GUARDS: tuple[Callable[..., Any], ...] = (check_bool, check_value, check_length)

# fmt: off
_SAME = {
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardtanh",
    "hardswish", "hardsigmoid", "softplus", "softmax", "log_softmax", "dropout", "dropout2d", "batch_norm",
    "instance_norm", "layer_norm", "normalize", "prelu", "group_norm", "contiguous", "clone", "detach", "to",
    "float", "half", "type", "abs", "exp", "log", "sqrt", "rsqrt", "square", "neg", "sin", "cos", "round", "floor",
    "ceil", "sign",
}
_BROADCAST = {"add", "sub", "mul", "div", "truediv", "floordiv", "mod", "iadd", "isub", "imul", "itruediv", "maximum",
              "minimum", "where", "lerp", "addcmul", "pow", "clamp", "eq", "ne", "lt", "le", "gt", "ge"}
_REDUCED = {"mean", "sum", "amax", "amin"}
_SPATIAL = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "interpolate",
            "pad", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"}
_CUT = {"chunk", "split", "tensor_split", "split_with_sizes"}
# fmt: on

_LAYERS = {"activation", "batchnorm", "instancenorm", "normalization", "dropout", "pooling", "upsampling", "padding"}


def drop_certain_guards(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
    """Erase the guards that no input can fail which the network takes, and what was only computed for them."""
    guards = [node for node in graph.nodes if node.op == "call_function" and node.target in _GUARDS]
    if not guards:
        return
    own = _Dimensions(graph, modules)
    for guard in guards:
        (value, *_) = guard.args
        lengthy = guard.target is check_length
        if own.length(value) if lengthy else own.number(value):
            graph.erase_node(guard)
            _erase_unread(graph, value)


def _erase_unread(graph: fx.Graph, value: Any) -> None:
    """Erase the arithmetic on sizes that led to a value which nobody reads any more."""
    pending = [value]
    while pending:
        node = pending.pop()
        plain = isinstance(node, fx.Node) and not isinstance(node.meta.get("val"), Tensor)
        if plain and node.op == "call_function" and not node.users and not node._erased:
            pending += node.all_input_nodes
            graph.erase_node(node)


def _reads_channels(image: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a convolution reads an input as it is: it takes one number of channels, or fails by itself."""
    pending, seen = [image], {image}
    while pending:
        for user in pending.pop().users:
            name = str(user.target) if user.op == "call_method" else getattr(user.target, "__name__", "")
            layer = modules.get(str(user.target)) if user.op == "call_module" else None
            if isinstance(layer, _ConvNd) and user.args[0] in seen:
                rank = len(layer.kernel_size) + 2
                return bool(user.meta["val"].dim() == rank)
            given: Any = user.args[1] if len(user.args) > 1 else None
            padded = name == "pad" and isinstance(given, (list, tuple)) and len(given) <= 4 and _rank(image) == 4
            if (padded or (user.op != "call_module" and name.rstrip("_") in _SAME)) and user not in seen:
                seen.add(user)
                pending.append(user)
    return False


def _rank(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, Tensor) else 0


class _Dimensions:
    """Which dimensions of each value are the network's own."""

    def __init__(self, graph: fx.Graph, modules: Mapping[str, nn.Module]):
        self.modules = modules
        self.of: dict[fx.Node, Own] = {}
        self.channels = {node: _reads_channels(node, modules) for node in graph.nodes if node.op == "placeholder"}
        for node in graph.nodes:
            value = node.meta.get("val")
            if isinstance(value, Tensor):
                found = self._of(node, value)
                self.of[node] = found if found is not None and len(found) == value.dim() else (False,) * value.dim()

    # Numbers

    def number(self, value: Any) -> bool:
        """Whether a number, a sequence of them, or a comparison is the same at every size."""
        if isinstance(value, (list, tuple)):
            return all(map(self.number, value))
        if not isinstance(value, fx.Node):
            return True
        if (sequence := self.sequence(value)) is not None:
            return all(sequence)
        name = getattr(value.target, "__name__", value.target)
        of = value.args[0] if value.args else None
        if value.op == "call_method" and isinstance(of, fx.Node) and of in self.of:
            if name == "size" and len(value.args) > 1 and isinstance(value.args[1], int):
                return self.of[of][value.args[1]]
            return name in ("numel", "nelement") and all(self.of[of])
        if value.target is operator.getitem and isinstance(of, fx.Node):
            parts, which = self.sequence(of), value.args[1]
            return parts[which] if parts is not None and isinstance(which, int) else False
        if (
            value.op != "call_function"
            or isinstance(value.meta.get("val"), Tensor)
            or any(source in self.of for source in value.all_input_nodes)
        ):
            return False
        home = getattr(value.target, "__module__", "")
        return (
            home in ("_operator", "builtins", "math")
            and value.target is not getattr
            and all(map(self.number, (*value.args, *value.kwargs.values())))
        )

    def sequence(self, node: fx.Node) -> Own | None:
        """Of every number in the shape of a value, or in a part of it, whether it is the same at every size."""
        of = node.args[0] if node.args else None
        if not isinstance(of, fx.Node):
            return None
        if of in self.of and (node.args[1:] == ("shape",) or (node.target == "size" and len(node.args) == 1)):
            return self.of[of]
        if node.target is operator.getitem and isinstance(cut := node.args[1], slice):
            plain = not any(isinstance(end, fx.Node) for end in (cut.start, cut.stop, cut.step))
            whole = self.sequence(of) if plain else None
            return None if whole is None else whole[cut]
        return None

    def length(self, value: Any) -> bool:
        """Whether as many parts come from a value at every size."""
        if not isinstance(value, fx.Node):
            return True
        if value in self.of:
            return bool(self.of[value]) and self.of[value][0]
        name, (of, *rest) = getattr(value.target, "__name__", value.target), value.args or (None,)
        if name == "meshgrid":
            return True
        if not isinstance(of, fx.Node) or of not in self.of or name not in (*_CUT, "unbind"):
            return False
        position = 0 if name == "unbind" else 1
        dim = value.kwargs.get("dim", rest[position] if len(rest) > position else 0)
        sizes = rest[:position]
        return isinstance(dim, int) and self.of[of][dim] and self.number(tuple(sizes))

    # Tensors

    def _of(self, node: fx.Node, value: Tensor) -> Own | None:
        rank = value.dim()
        if node.op == "get_attr":
            return (True,) * rank
        if node.op == "placeholder":
            return tuple(self.channels[node] and d == 1 for d in range(rank))
        if node.op == "output" or not node.args:
            return None
        if node.op == "call_module":
            return self._of_layer(self.modules.get(str(node.target)), node, rank)
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        name = name if name.startswith("__") else name.rstrip("_")
        rule = _RULES.get(name)
        if rule is not None:
            return rule(self, node, rank)
        if name in _BROADCAST:
            return self._broadcast(node, rank)
        first = self._first(node)
        if first is None:
            return None
        if name in _SAME:
            return first
        if name in _SPATIAL:
            return self._spatial(name, node, first, rank)
        if name in _REDUCED:
            return self._reduced(node, first)
        return None

    def _first(self, node: fx.Node) -> Own | None:
        first = node.args[0]
        return self.of.get(first) if isinstance(first, fx.Node) else None

    def _of_layer(self, layer: nn.Module | None, node: fx.Node, rank: int) -> Own | None:
        first = self._first(node)
        if layer is None or first is None:
            return None
        if isinstance(layer, _ConvNd):
            channels = rank - len(layer.kernel_size) - 1
            return tuple(d == channels or first[d] for d in range(rank))
        if isinstance(layer, nn.Linear):
            return (*first[:-1], True)
        kind = type(layer).__module__.rpartition(".")
        if kind[0] != "torch.nn.modules":
            return None
        each_for_itself = kind[2] in _LAYERS and not isinstance(layer, (nn.GLU, nn.MultiheadAttention, _MaxUnpoolNd))
        return first if each_for_itself else None  # a dimension of what it returns follows from the same of its input

    def _spatial(self, name: str, node: fx.Node, first: Own, rank: int) -> Own | None:
        if name.startswith("conv"):
            weight: Any = node.args[1] if len(node.args) > 1 else None
            if weight not in self.of or rank != weight.meta["val"].dim():
                return None
            kernels = self.of[weight]
            rest = self.number((*node.args[3:], *node.kwargs.values()))  # groups of a transposed one count
            channels = rest and all(kernels[:2]) if name.startswith("conv_transpose") else kernels[0]
            return (first[0], channels, *(False,) * (rank - 2))
        if name == "pad":
            given: Any = node.kwargs.get("pad", node.args[1] if len(node.args) > 1 else None)
            if not isinstance(given, (list, tuple)):
                return None
            touched = len(given) // 2
            return (*first[: rank - touched], *(False,) * touched)
        return tuple(d < 2 and first[d] for d in range(rank)) if rank == 4 else None

    def _broadcast(self, node: fx.Node, rank: int) -> Own | None:
        sources = [self.of.get(source) for source in node.all_input_nodes if isinstance(source.meta.get("val"), Tensor)]
        aligned = [(True,) * (rank - len(each)) + each for each in sources if each is not None]
        return tuple(map(all, zip(*aligned, strict=True))) if len(aligned) == len(sources) and aligned else None

    def _reduced(self, node: fx.Node, first: Own) -> Own | None:
        dims: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        dims = (dims,) if isinstance(dims, int) else dims
        if not isinstance(dims, (list, tuple)) or not all(isinstance(d, int) for d in dims):
            return None
        gone = {d % len(first) for d in dims}
        keep = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
        if keep is True:
            return tuple(d in gone or own for d, own in enumerate(first))
        return tuple(own for d, own in enumerate(first) if d not in gone) if keep is False else None

    def _joined(self, node: fx.Node, rank: int) -> Own | None:
        parts: Any = node.args[0]
        dim: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if not isinstance(parts, (list, tuple)) or not isinstance(dim, int):
            return None
        own = [self.of.get(part) for part in parts]
        known = [each for each in own if each is not None]
        if len(known) != len(own):
            return None
        place = dim % rank
        if node.target is not None and getattr(node.target, "__name__", "") == "stack":
            known = [(*each[:place], True, *each[place:]) for each in known]
        columns = list(zip(*known, strict=True))  # dimensions that are not joined are equal: one known one will do
        return tuple([all(column) if d == place else any(column) for d, column in enumerate(columns)])

    def _permuted(self, node: fx.Node, rank: int) -> Own | None:
        first, order = self._first(node), node.args[1:]
        if len(order) == 1 and isinstance(order[0], (list, tuple)):
            order = tuple(order[0])
        if first is None or len(order) != rank or not all(isinstance(d, int) for d in order):
            return None
        return tuple(first[int(str(d))] for d in order)

    def _transposed(self, node: fx.Node, rank: int) -> Own | None:
        first, dims = self._first(node), node.args[1:]
        if first is None or len(dims) != 2 or not all(isinstance(d, int) for d in dims):
            return None
        order = list(range(rank))
        one, other = (int(str(d)) for d in dims)
        order[one], order[other] = order[other], order[one]
        return tuple(first[d] for d in order)

    def _reshaped(self, node: fx.Node, rank: int) -> Own | None:
        first, sizes = self._first(node), node.args[1:]
        if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)):
            sizes = tuple(sizes[0])
        if first is None or len(sizes) != rank:
            return None
        given = [bool(size != -1) and self.number(size) for size in sizes]
        rest = all(first) and all(own for own, size in zip(given, sizes, strict=True) if bool(size != -1))
        return tuple(rest if bool(size == -1) else own for own, size in zip(given, sizes, strict=True))

    def _flattened(self, node: fx.Node, rank: int) -> Own | None:
        first = self._first(node)
        start: Any = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
        end: Any = node.kwargs.get("end_dim", node.args[2] if len(node.args) > 2 else -1)
        if first is None or not isinstance(start, int) or not isinstance(end, int):
            return None
        start, end = start % len(first), end % len(first)
        return (*first[:start], all(first[start : end + 1]), *first[end + 1 :])

    def _unsqueezed(self, node: fx.Node, rank: int) -> Own | None:
        first = self._first(node)
        dim: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        if first is None or not isinstance(dim, int):
            return None
        place = dim % rank
        return (*first[:place], True, *first[place:])

    def _picked(self, node: fx.Node, rank: int) -> Own | None:
        source, index = node.args[0], node.args[1]
        if not isinstance(source, fx.Node):
            return None
        if source not in self.of:  # one of the pieces that a tensor was cut into
            return self._piece(source)
        first, own = self.of[source], []
        items = index if isinstance(index, tuple) else (index,)
        if any(isinstance(item, (fx.Node, Tensor, list, bool)) for item in items):
            return None
        taken = sum(item is not None and item is not ... for item in items)
        if ... not in items:
            items = (*items, ...)
        place = 0
        for item in items:
            if item is None:
                own.append(True)
            elif item is ...:
                own += first[place : place + len(first) - taken]
                place += len(first) - taken
            else:
                if isinstance(item, slice):
                    ends = (item.start, item.stop, item.step)
                    own.append(first[place] and not any(isinstance(end, fx.Node) for end in ends))
                place += 1
        return tuple(own)

    def _piece(self, cut: fx.Node) -> Own | None:
        """Of the tensors that one is cut into."""
        whole, name = self._first(cut) if cut.args else None, getattr(cut.target, "__name__", cut.target)
        dim: Any = cut.kwargs.get("dim", cut.args[1] if name == "unbind" and len(cut.args) > 1 else 0)
        if whole is None or name not in (*_CUT, "unbind") or not isinstance(dim, int):
            return None
        if name == "unbind":
            return tuple(own for d, own in enumerate(whole) if d != dim % len(whole))
        return whole if self.number(cut.args[1:]) and self.number(list(cut.kwargs.values())) else None


_RULES: dict[str, Callable[[_Dimensions, fx.Node, int], Own | None]] = {
    "cat": _Dimensions._joined,
    "stack": _Dimensions._joined,
    "permute": _Dimensions._permuted,
    "transpose": _Dimensions._transposed,
    "view": _Dimensions._reshaped,
    "reshape": _Dimensions._reshaped,
    "flatten": _Dimensions._flattened,
    "unsqueeze": _Dimensions._unsqueezed,
    "getitem": _Dimensions._picked,
}
