"""What stands before and behind a call."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from ...frontend.proxies import IN_PLACE
from ...graph.macs import function_name
from ...graph.plain_layers import altered, is_torchs
from ...graph.program import Program
from ...nn.partial_conv import PartialConv2d
from .layer import Site, Step

if TYPE_CHECKING:
    from ..anatomy import Anatomy

ACTIVATIONS = frozenset(
    [
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "rrelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "sigmoid",
        "tanh",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "logsigmoid",
        "softsign",
        "tanhshrink",
    ]
)
_NORM_FUNCTIONS = frozenset(["batch_norm", "instance_norm", "group_norm", "layer_norm", "local_response_norm"])
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
_SILENT = (nn.Identity, nn.modules.dropout._DropoutNd)
_MIXING = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)
_RESIZE_OPTIONS = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")


class Neighbours:
    """How the calls of a program hang together; built once, so that each neighbour is found in constant time."""

    def __init__(self, program: Program, anatomy: Anatomy):
        self.program = program
        self.ends = anatomy.input_paths | anatomy.output_paths
        self.calls = Counter(str(node.target) for node in program.graph.nodes if node.op == "call_module")
        self.holders = Counter(
            id(parameter)
            for module in {id(module): module for module in program.modules.values()}.values()
            for parameter in module.parameters()
        )
        read = (program.tensor(str(node.target)) for node in program.graph.nodes if node.op == "get_attr")
        self.holders.update(id(tensor) for tensor in read)

    def site(self, node: fx.Node) -> Site:
        """One call with its neighbours."""
        feeder = node.args[0]
        assert isinstance(feeder, fx.Node)
        return Site(
            node,
            behind=tuple(self._chain(node, forward=True)),
            before=tuple(self._chain(node, forward=False)),
            fed_by=self._step(feeder) if feeder.op.startswith("call") else None,
        )

    def is_tied(self, module: nn.Module) -> bool:
        """Whether a module shares a parameter with another one, or with a function."""
        return any(self.holders[id(parameter)] > 1 for parameter in module.parameters())

    def _is_free(self, path: str, module: nn.Module) -> bool:
        return self.calls[path] == 1 and path not in self.ends and not self.is_tied(module) and not altered(module)

    def _chain(self, node: fx.Node, *, forward: bool) -> Iterator[Step]:
        """The steps that follow a call, or lead to it, as long as nothing else reads in between."""
        while True:
            following: Any = next(iter(readers(node)), None) if forward else next(iter(node.args), None)
            if not isinstance(following, fx.Node):
                return
            first, second = (node, following) if forward else (following, node)
            if readers(first) != [second] or not second.args or second.args[0] is not first:
                return
            node = following
            step = replace(self._step(node), measured=len(first.users) > 1)
            yield step
            if step.kind in ("conv", "other"):
                return

    def _kind(self, node: fx.Node) -> str:
        return kind_of(node, self.program.modules)

    def _step(self, node: fx.Node) -> Step:
        path = str(node.target) if node.op == "call_module" else None
        module = self.program.modules[path] if path else None
        step = Step(
            node=node.name,
            operation=type(module).__name__ if module else function_name(node),
            kind=self._kind(node),
            path=path,
            module=module,
            free=path is not None and module is not None and self._is_free(path, module),
        )
        if step.kind == "shuffle":
            return replace(step, factor=_factor(node))
        if step.operation in ("cat", "concat", "concatenate"):
            return replace(step, joins=tuple(self._kind(joined) for joined in node.all_input_nodes))
        return _with_resize(step, node) if step.kind == "resize" else step


def readers(node: fx.Node) -> list[fx.Node]:
    """The users of a node that read its values; `x.shape`, and guards on it, do not."""
    return [user for user in node.users if user.op == "output" or user.target is operator.setitem or _is_tensor(user)]


def _is_tensor(node: fx.Node) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(node.meta.get("val")))


def kind_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """What a node does, as `Step.kind` says it."""
    return _module_kind(modules[str(node.target)]) if node.op == "call_module" else _function_kind(node)


def writes_in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node changes its first argument."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    in_place = (name.endswith("_") and not name.endswith("__")) or node.kwargs.get("inplace") is True
    return in_place or node.target in IN_PLACE


def _function_kind(node: fx.Node) -> str:
    name = function_name(node) if node.op in ("call_function", "call_method") else ""
    if name in ACTIVATIONS:
        return "activation"
    if name in _NORM_FUNCTIONS:
        return "norm"
    if name in ("interpolate", "upsample"):
        return "resize"
    if name == "pixel_shuffle":
        return "shuffle"
    return "identity" if node.target in (F.dropout, F.dropout2d) else "other"


def _module_kind(module: nn.Module) -> str:
    if isinstance(module, (_ConvNd, PartialConv2d)):
        return "conv"
    if not is_torchs(module, nn.Module):
        return "other"  # a part that is not seen into, whatever it is derived from
    if isinstance(module, _NORMS):
        return "norm"
    if isinstance(module, nn.Upsample):
        return "resize"
    if isinstance(module, nn.PixelShuffle):
        return "shuffle"
    if isinstance(module, _SILENT):
        return "identity"
    return "activation" if is_activation(module) else "other"


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation of torch's that mixes no values."""
    return type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, _MIXING)


def resize_options(node: fx.Node) -> dict[str, Any]:
    """How a functional interpolation is called, by parameter name but for the input; values may be nodes."""
    given = {**dict(zip(("input", *_RESIZE_OPTIONS), node.args, strict=False)), **node.kwargs}
    return {name: given[name] for name in _RESIZE_OPTIONS if given.get(name) is not None}


def _with_resize(step: Step, node: fx.Node) -> Step:
    """A step with what is known about the resizing that it does."""
    options = resize_options(node)
    if step.module:
        options = {name: value for name in _RESIZE_OPTIONS if (value := getattr(step.module, name, None)) is not None}
    scale, factor = options.get("scale_factor"), _factor(node)
    exact = _is(scale, factor) and "size" not in options and not options.get("antialias")
    scales = scale if isinstance(scale, (tuple, list)) else (scale,)
    to_size = "size" in options or any(isinstance(value, fx.Node) for value in scales)
    return replace(
        step,
        factor=factor if exact else None,
        to_size=_nearest_factor(node) if to_size and not options.get("antialias") else None,
        enlarges=all(after > before for before, after in _sizes(node)),
        mode=str(options.get("mode", "nearest")) + (", aligned" if options.get("align_corners") else ""),
    )


def _is(scale_factor: Any, factor: int | None) -> bool:
    """Whether the scale factor of a resize is this whole factor in both directions, not only at the example size."""
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,)
    return factor is not None and all(isinstance(f, (int, float)) and f == factor for f in factors)


def _sizes(node: fx.Node) -> list[tuple[int, int]]:
    """Height and width (before, after) a call on the example input; nothing where it is no call on images."""
    source = node.args[0] if node.args else None
    value = node.meta.get("val")
    if not isinstance(source, fx.Node) or not isinstance(value, Tensor) or value.dim() != 4:
        return []
    return list(zip(source.meta["val"].shape[2:], value.shape[2:], strict=True))


def _factor(node: fx.Node) -> int | None:
    factors = {Fraction(after, before) for before, after in _sizes(node)}
    factor = next(iter(factors)) if len(factors) == 1 else Fraction(1, 2)
    return int(factor) if factor.denominator == 1 else None


def _nearest_factor(node: fx.Node) -> int | None:
    """The factor of a resize to a size, where the size is that of a tensor which was made smaller by that factor."""
    factors = {round(after / before) for before, after in _sizes(node)}
    factor = next(iter(factors)) if len(factors) == 1 else 0
    close = all(abs(after - factor * before) < factor for before, after in _sizes(node))
    return factor if factor > 1 and close else None
