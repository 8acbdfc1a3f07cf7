"""Take the mean over channels by a convolution.

Engines for small devices keep images with the channels last and fuse what works on that; a mean over channels of
(N, C, H, W), a permutation or a custom autograd function makes them leave their layout, or their fast path altogether.
A 1x1 convolution to one channel computes the same mean within it.
"""

from __future__ import annotations

import itertools
import operator
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from mofa_compiler.analysis.nodes import altered, function_name, path_of
from mofa_compiler.rewriting import EXACT_TOLERANCE, FROZEN, Fate, GraphLowering, Rewiring, Skip, is_image, module_error

_ELEMENTWISE = frozenset(["add", "sub", "mul", "truediv", "div", "pow", "square", "sqrt", "rsqrt", "mean", "var"])
_USUAL_EPS = (1e-5, 1e-6, 1e-8)
_LARGEST_EPS = 0.1


@dataclass(frozen=True, config=FROZEN)
class LowerLayerNorm(GraphLowering):
    """Compute layer normalization over the channels of (N, C, H, W) with means by 1x1 convolutions to one channel.

    Covers custom autograd functions (NAFNet's), whose forward and backward are run on random values to see that layer
    normalization is what they compute; `LayerNorm` between two permutations (timm's, ConvNeXt's); and the same written
    out with means over dimension 1.
    """

    name: ClassVar[str] = "lower-layer-norm"

    def rewire(self, wiring: Rewiring) -> None:
        found = [norm for norm in _norms(wiring) if self.looks_at(norm.path)]
        ends = {norm.end for norm in found if not norm.why}
        for norm in found:
            if why := norm.why or _shared(wiring, norm, ends):
                wiring.refuse(norm.path, norm.text, why)
        taken = [norm for norm in found if norm.path not in wiring.refusals]
        pieces = [wiring.piece(norm.source, norm.end) for norm in taken]  # before any weight changes its shape
        instead: dict[fx.Node, fx.Node] = {}  # a norm may read another one
        for norm, old in zip(taken, pieces, strict=True):
            source = instead.get(norm.source, norm.source)
            instead[norm.end] = _lower(wiring, replace(norm, source=source), old)


@plain_dataclass(frozen=True)
class _Norm:
    """A layer normalization: from `source` to `end`, or a reason why it stays."""

    path: str
    kind: str
    source: fx.Node
    end: fx.Node
    eps: float = 0.0
    weight: str | None = None
    bias: str | None = None
    why: Skip | None = None
    note: str = ""

    @property
    def channels(self) -> int:
        return int(self.source.meta["val"].shape[1])

    @property
    def text(self) -> str:
        return f"{self.kind}({self.channels})"


def _norms(wiring: Rewiring) -> Iterator[_Norm]:
    inside: set[fx.Node] = set()
    for node in wiring.nodes:
        norm = _autograd(wiring, node) or _permuted(wiring, node)
        if norm is None and node not in inside and (written := _written_out(wiring, node)):
            norm, within = written
            inside |= within
        if norm is not None:
            yield norm


def _shared(wiring: Rewiring, norm: _Norm, ends: set[fx.Node]) -> Skip | None:
    """Why its weights, whose shape changes, have to stay as they are."""
    if norm.path in wiring.modules and (reason := altered(wiring.modules[norm.path])):
        return Skip("altered", f"{reason}, which would be lost")
    if wiring.overwritten(norm.source):
        return Skip("overwritten", "what it reads is changed in place")
    for path in filter(None, (norm.weight, norm.bias)):
        if wiring.tied(path):
            return Skip("tied", f"{path} is held under another name, too")
        readers = {
            user for node in wiring.nodes if node.op == "get_attr" and node.target == path for user in node.users
        }
        if not readers <= {inner for end in ends for inner in (end, *end.all_input_nodes)}:
            return Skip("read-elsewhere", f"{path} is read by something else, too")
    return None


def _lower(wiring: Rewiring, norm: _Norm, old: nn.Module) -> fx.Node:
    """Put a norm's new form in its place; returns the node that has its value."""
    channels = norm.channels
    held = norm.weight or norm.bias
    owner = held.rpartition(".")[0] if held else norm.path
    for path in filter(None, (norm.weight, norm.bias)):
        _reshape(wiring, path)
    mean = f"{owner}.mean" if owner else "mean"
    parts = 1 << (channels - 1).bit_length()  # a power of 2: 1/parts has no rounding, and no sum is above the mean
    if mean not in wiring.tensors:
        value: Tensor = norm.source.meta["val"]
        device = wiring.network.program.device
        share = torch.full((1, channels, 1, 1), 1 / parts, dtype=value.dtype, device=device)
        wiring.put_tensor(mean, share, fixed=True)
    with wiring.at(norm.end):

        def averaged(value: fx.Node) -> fx.Node:
            share = wiring.call(F.conv2d, value, wiring.read(mean))
            return share if parts == channels else wiring.call(operator.mul, share, parts / channels)

        centred = wiring.call(operator.sub, norm.source, averaged(norm.source))
        variance = averaged(wiring.call(operator.mul, centred, centred))
        inverse = wiring.call(torch.rsqrt, wiring.call(operator.add, variance, norm.eps))
        new = wiring.call(operator.mul, centred, inverse)
        if norm.weight:
            new = wiring.call(operator.mul, new, wiring.read(norm.weight))
        if norm.bias:
            new = wiring.call(operator.add, new, wiring.read(norm.bias))
    wiring.substitute(norm.end, new)
    if norm.path in wiring.modules and wiring.release(norm.path):
        wiring.containers[norm.path] = nn.Module
    error = wiring.check(norm.path, old, wiring.piece(norm.source, new), channels)
    after = f"{norm.text}, means by Conv2d({channels}→1, k1)"
    wiring.tell(norm.path, norm.text, after, Fate.EXACT, error=error, note=norm.note)
    return new


def _reshape(wiring: Rewiring, path: str) -> None:
    """Let a parameter be one for (N, C, H, W), of a container where it was a layer's."""
    old = wiring.tensors[path] if path in wiring.tensors else wiring.network.program.tensor(path)
    if path not in wiring.tensors or old.dim() != 4:
        new = old.detach().clone().view(1, -1, 1, 1)
        wiring.put_tensor(path, nn.Parameter(new, requires_grad=old.requires_grad))


# What is layer normalization


def _autograd(wiring: Rewiring, node: fx.Node) -> _Norm | None:
    """A custom autograd function that computes it, whatever it is called: its values on random input tell."""
    function = getattr(node.target, "autograd_function", None)
    if function is None or node.kwargs or not is_image(node) or not node.args or not is_image(node.args[0]):
        return None
    source, *rest = node.args
    assert isinstance(source, fx.Node)
    weights = [arg for arg in rest if isinstance(arg, fx.Node) and isinstance(arg.meta["val"], Tensor)]
    channels = source.meta["val"].shape[1]
    if any(arg.op != "get_attr" or arg.meta["val"].shape != (channels,) for arg in weights) or len(weights) > 2:
        return None
    plain = [arg.meta["val"] if isinstance(arg, fx.Node) and arg not in weights else arg for arg in rest]
    given = [arg for arg in plain if isinstance(arg, float) and 0 < arg < _LARGEST_EPS]
    for eps, swapped in itertools.product((*given, *_USUAL_EPS), (False, True)[: len(weights)] or (False,)):
        verdict = _computes_norm(function, plain, weights, channels, eps, swapped=swapped)
        if verdict is None:
            continue
        held = [_target(arg) for arg in (reversed(weights) if swapped else weights)]
        weight, bias = (*held, None, None)[:2]
        owner = weight.rpartition(".")[0] if weight else path_of(node)
        note = (
            f"{function.__name__} is layer normalization over dimension 1 with eps={eps:g}: so say its output and its "
            "gradients, in float64 on random input and weights"
        )
        why = Skip("backward", verdict) if verdict else None
        return _Norm(owner, function.__name__, source, node, eps, weight, bias, why=why, note=note)
    return None


def _target(node: fx.Node) -> str:
    return str(node.target)


def _computes_norm(
    function: Any, plain: Sequence[Any], weights: Sequence[fx.Node], channels: int, eps: float, *, swapped: bool
) -> str | None:
    """None where a function computes something else, else why it must stay or an empty string.

    Inputs are large and small, so that eps counts.
    """
    generator = torch.Generator().manual_seed(0)
    reason = ""
    for shape, size in (((2, channels, 3, 4), 1.0), ((1, channels, 5, 1), eps**0.5), ((3, channels, 2, 2), 100.0)):
        x = (size * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        held = [torch.randn(channels, generator=generator, dtype=torch.float64).requires_grad_() for _ in weights]
        values = iter(held)
        arguments = [next(values) if arg in weights else arg for arg in plain]
        upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
        in_order = held[::-1] if swapped else held
        expected = _reference(x, eps, *in_order)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the author's business, not ours
                got = function.apply(x, *arguments)
                if not _agree(got, expected):
                    return None
                gradients = torch.autograd.grad(got, [x, *held], upstream)
        except Exception as error:  # whatever a user's function raises
            return None if "got" not in locals() else f"its backward pass fails: {error}"
        for one, other in zip(gradients, torch.autograd.grad(expected, [x, *held], upstream), strict=True):
            if not _agree(one, other):
                reason = "its backward pass is not the gradient of layer normalization, which it computes"
    return reason


def _agree(got: Any, expected: Tensor) -> bool:
    if not isinstance(got, Tensor) or got.shape != expected.shape:
        return False
    return bool((got - expected).abs().max() <= EXACT_TOLERANCE * expected.abs().max())


def _reference(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias, eps).permute(0, 3, 1, 2)


def _permuted(wiring: Rewiring, node: fx.Node) -> _Norm | None:
    """A LayerNorm of the last dimension between two permutations."""
    module = wiring.module(node)
    if type(module) is nn.LayerNorm:
        path, kind, eps = str(node.target), "LayerNorm", module.eps
        shape: tuple[int, ...] = module.normalized_shape
        affine = dict(module.named_parameters())
        weight, bias = (f"{path}.{name}" if name in affine else None for name in ("weight", "bias"))
    elif node.op == "call_function" and node.target is F.layer_norm:
        names = ("input", "normalized_shape", "weight", "bias", "eps")
        given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        path, kind, eps = path_of(node), "layer_norm", float(given.get("eps", 1e-5))
        shape = tuple(fx.map_arg(given["normalized_shape"], lambda n: n.meta["val"]))
        held = [given.get(name) for name in ("weight", "bias")]
        if any(value is not None and getattr(value, "op", "") != "get_attr" for value in held):
            return None
        weight, bias = (_target(value) if value is not None else None for value in held)
        path = (weight or bias or f"{path}.").rpartition(".")[0]
    else:
        return None
    first = node.args[0] if node.args else None
    last = next(iter(node.users), None)
    into, out = _permutation(first), _permutation(last)
    if into != (0, 2, 3, 1) or out != (0, 3, 1, 2) or len(node.users) > 1 or len(shape) > 1:
        reason = "normalizes the last dimension, and does not stand between two permutations of (N, C, H, W) for that"
        return _Norm(path, kind, node, node, why=Skip("dimensions", reason))
    assert isinstance(first, fx.Node) and last is not None
    source = first.args[0]
    assert isinstance(source, fx.Node)
    return _Norm(path, kind, source, last, eps, weight, bias)


def _permutation(value: Any) -> tuple[int, ...] | None:
    """The dimensions of a permutation of (N, C, H, W), None for any other node."""
    if not is_image(value) or function_name(value) != "permute" or not isinstance(value.args[0], fx.Node):
        return None
    dims = value.kwargs.get("dims", value.args[1:])
    dims = dims[0] if len(dims) == 1 else dims
    return tuple(dim % 4 for dim in dims) if all(isinstance(dim, int) for dim in dims) else None


def _written_out(wiring: Rewiring, node: fx.Node) -> tuple[_Norm, set[fx.Node]] | None:
    """Plain operations from a mean over dimension 1 on, as far as they normalize; weights behind them stay."""
    if function_name(node) != "mean" or not node.args or not is_image(node.args[0]) or not is_image(node):
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if node.meta["val"].shape[1] != 1:
        return None
    cone = {source: None, **dict.fromkeys(_cone(source))}
    channels = source.meta["val"].shape[1]
    for end in reversed(cone):
        within = _between(source, end, cone)
        if end is source or end.meta["val"].shape != source.meta["val"].shape or node not in within:
            continue
        if any(user not in within for inner in within - {end} for user in inner.users):
            continue
        numbers = [arg for inner in within for arg in inner.args if isinstance(arg, float) and 0 < arg < _LARGEST_EPS]
        piece = wiring.piece(source, end)
        for eps in dict.fromkeys(numbers):
            if module_error(piece, _Normalized(eps), channels) <= EXACT_TOLERANCE:
                note = "means, differences and a square root that are layer normalization over dimension 1"
                return _Norm(path_of(node), "layer norm, written out", source, end, eps, note=note), within
    return None


class _Normalized(nn.Module):
    def __init__(self, eps: float):
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _reference(x, self.eps)


def _cone(source: fx.Node) -> Iterator[fx.Node]:
    """What is computed from one value alone, by elementwise functions and means, in execution order."""
    found = {source}
    node = source.next
    waiting = len(source.users)
    while node.op != "output" and waiting:
        if is_image(node) and not found.isdisjoint(node.all_input_nodes):
            waiting -= len(found & set(node.all_input_nodes))
            plain = node.op in ("call_function", "call_method") and not str(node.target).endswith("_")
            if plain and function_name(node) in _ELEMENTWISE and found.issuperset(node.all_input_nodes):
                found.add(node)
                waiting += len(node.users)
                yield node
        node = node.next


def _between(source: fx.Node, end: fx.Node, cone: dict[fx.Node, None]) -> set[fx.Node]:
    """The nodes of a cone that lead to `end`, without the source."""
    found: set[fx.Node] = set()
    pending = [end]
    while pending:
        node = pending.pop()
        if node is not source and node not in found:
            found.add(node)
            pending += node.all_input_nodes
    return found
