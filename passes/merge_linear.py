"""Fold linear operations into the convolutions beside them.

A batch normalization with fixed statistics, a scale or a shift per channel, and a second convolution with nothing in
between cost a pass over memory each and compute nothing that the convolution beside them could not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import readers, signature, writes_in_place
from mofa_compiler.analysis.nodes import conv_macs, describe, function_name, path_of
from mofa_compiler.rewriting import FROZEN, Fate, GraphLowering, Rewiring, Skip, is_image, meta_twin

_TRAINING = Skip("training", "is in training mode, where it normalizes every batch by its own: call eval() first")
_NO_STATISTICS = Skip("no-statistics", "has no running statistics: it normalizes every batch by its own")


@dataclass(frozen=True, config=FROZEN)
class MergeLinear(GraphLowering):
    """Fold what is linear into neighbouring convolutions: batch normalization, scales and shifts, 1x1 convolutions.

    Scales and shifts per channel go into the convolution before, where they alone read it, else into the convolutions
    behind, where those alone read them. A shift does not pass the zeros that a convolution is padded with. Two
    convolutions of which one is 1x1 become one where that takes no more MACs. The network is for inference then: what
    was batch normalization follows no statistics any longer.
    """

    name: ClassVar[str] = "merge-linear"
    after: ClassVar[tuple[str, ...]] = ("lower-layer-norm",)

    def rewire(self, wiring: Rewiring) -> None:
        merged = True
        while merged:
            wiring.refusals.clear()  # what could not be merged before may have another neighbour by now
            merged = False
            for node in wiring.nodes:
                merged |= not node._erased and (self._fold(wiring, node) or self._join(wiring, node))

    def _fold(self, wiring: Rewiring, node: fx.Node) -> bool:
        """Fold a scale or a shift; whether that was possible."""
        linear = _linear(wiring, node)
        if linear is None or not self.looks_at(linear.path):
            return False
        whys = [linear.why] if linear.why else []
        for into in (_into_before, _into_behind) if not linear.why else ():
            done = into(wiring, linear)
            if done is True:
                return True
            whys += [done] if done else []
        if linear.named:
            nowhere = Skip("no-neighbour", "no convolution stands directly before or behind it")
            first, *_ = whys or [nowhere]
            wiring.refuse(linear.path, linear.text, Skip(first.code, "; ".join(w.reason for w in whys or [nowhere])))
        return False

    def _join(self, wiring: Rewiring, node: fx.Node) -> bool:
        """Make one convolution of this one and the one before it; whether that was possible and saves MACs."""
        second, source = wiring.module(node), node.args[0] if node.args else None
        first = wiring.module(source)
        if type(first) is not nn.Conv2d or type(second) is not nn.Conv2d or not is_image(source):
            return False
        assert isinstance(source, fx.Node)
        before, path = str(source.target), str(node.target)
        start = source.args[0]
        if not self.looks_at(path) or len(source.users) > 1 or not isinstance(start, fx.Node):
            return False
        planned = weights.composed(meta_twin(first), meta_twin(second))
        if planned is None:
            return False
        shapes = [tuple(value.meta["val"].shape) for value in (start, source, node)]
        now = conv_macs(first, *shapes[:2]) + conv_macs(second, *shapes[1:])
        merged = conv_macs(planned, shapes[0], shapes[2])
        why = wiring.fixed(before) or wiring.fixed(path)
        if wiring.overwritten(start):
            why = Skip("overwritten", f"what {before} reads, before it, is changed in place")
        if before in wiring.network.anatomy.input_paths:
            why = Skip("neighbour-held", f"{before}, before it, is the input convolution")
        if merged > now:
            if first.kernel_size != (1, 1) or second.kernel_size != (1, 1):
                return False  # a separable convolution, say, which is two for a reason
            why = Skip("macs", f"with {before}, before it, as one it would take {merged} MACs instead of {now}")
        if why:
            wiring.refuse(path, signature(second), why)
            return False
        new = weights.composed(wiring.exactly(before), wiring.exactly(path))
        assert new is not None
        old = wiring.piece(start, node)
        was = wiring.describe(path), wiring.describe(before)
        with wiring.changing(node):
            wiring.put(path, new, wiring.named([before]))
            node.replace_input_with(source, start)
        wiring.erase(source)
        wiring.release(before)
        error = wiring.check(path, old, wiring.piece(start, node), first.in_channels)
        note = f"does the work of {before}, too"
        wiring.tell(path, was[0], wiring.describe(path), Fate.COMPENSATED, error=error, note=note)
        wiring.tell(before, was[1], "", Fate.REMOVED, note=f"merged into {path}")
        return True


@plain_dataclass(frozen=True)
class _Linear:
    """`affine`, one scale and shift a channel, at a node that reads `source`."""

    node: fx.Node
    source: fx.Node
    path: str
    text: str
    affine: weights.Affine | None = None
    weights: tuple[str, ...] = ()
    """Parameters that it reads, which go with it"""
    named: bool = True
    """Whether it is a layer or has weights, so that a reader wants to know why it stays"""
    in_place: bool = False
    why: Skip | None = None


def _into_before(wiring: Rewiring, linear: _Linear) -> Skip | bool:
    """Fold into the convolution before; True where that is done, else why not (False where there is none)."""
    conv, source = wiring.module(linear.source), linear.source
    if type(conv) not in (nn.Conv2d, nn.ConvTranspose2d):
        return False
    path = str(source.target)
    if readers(source) != [linear.node]:
        return Skip("read-elsewhere", f"{path}, before it, is read by something else, too")
    if fixed := wiring.fixed(path):
        return fixed
    assert linear.affine is not None
    start = source.args[0]
    assert isinstance(start, fx.Node)
    old = wiring.piece(start, linear.node)
    wiring.substitute(linear.node, source)
    new = {path: weights.scale_outputs(wiring.exactly(path), linear.affine)}
    _take_up(wiring, linear, new, start, [source], old)
    return True


def _into_behind(wiring: Rewiring, linear: _Linear) -> Skip | bool:
    """Fold into all convolutions behind; True where that is done, else why not (False where there is none)."""
    users = readers(linear.node)
    paths = [str(user.target) for user in users]
    modules = [wiring.module(user) for user in users]
    convs = [m if type(m) in (nn.Conv2d, nn.ConvTranspose2d) else None for m in modules]
    if not any(convs):
        return False
    if linear.in_place or wiring.overwritten(linear.source):
        return Skip("overwritten", "what it reads is changed in place")
    for user, path, conv in zip(users, paths, convs, strict=True):
        if conv is None:
            return Skip("read-elsewhere", f"is read by {describe(user)}, too")
        if fixed := wiring.fixed(path):
            return fixed
        assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) and linear.affine is not None
        if bool(linear.affine.shift.any()) and not weights.passes_shift(conv):
            padded = isinstance(conv, nn.Conv2d)
            why = "the zeros that it is padded with" if padded else "a transposed convolution, which adds pixels"
            return Skip("shift", f"its shift cannot go into {path}, behind it, past {why}")
    assert linear.affine is not None
    old = wiring.piece(linear.source, *users)
    linear.node.replace_all_uses_with(linear.source)
    wiring.erase(linear.node)
    new = {path: weights.scale_inputs(wiring.exactly(path), linear.affine) for path in paths}
    _take_up(wiring, linear, new, linear.source, users, old)
    return True


def _take_up(
    wiring: Rewiring,
    linear: _Linear,
    new: Mapping[str, nn.Module],
    source: fx.Node,
    ends: Sequence[fx.Node],
    old: nn.Module,
) -> None:
    """Drop what is folded away, put convolutions in place that do its work, too, and check and tell that."""
    taken = wiring.named(linear.weights)
    gone = [wiring.release(path) for path in linear.weights]
    if gone and all(gone):
        wiring.tell(linear.path, linear.text, "", Fate.REMOVED, note=f"folded into {', '.join(new)}")
    before = {path: wiring.describe(path) for path in new}
    for path, module in new.items():
        wiring.put(path, module, taken)
    error = wiring.check(linear.path, old, wiring.piece(source, *ends), source.meta["val"].shape[1])
    note = f"took up {linear.path}" if linear.named else ""
    for path, was in before.items():
        wiring.tell(path, was, wiring.describe(path), Fate.COMPENSATED, error=error, note=note)


# What is linear


def _linear(wiring: Rewiring, node: fx.Node) -> _Linear | None:
    if not is_image(node) or not node.args:
        return None
    module = wiring.module(node)
    if type(module) is nn.BatchNorm2d:
        return _batch_norm(wiring, node, module)
    if type(module) is nn.Conv2d and _is_scale(module):
        return _scaling(wiring, node, module)
    if node.target is F.batch_norm:
        return _functional_norm(wiring, node)
    return _arithmetic(wiring, node) if module is None else None


def _functional_norm(wiring: Rewiring, node: fx.Node) -> _Linear | None:
    """A call of `F.batch_norm`, as subclasses of BatchNorm2d make it."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    held = {name: given.get(name) for name in names[1:5] if given.get(name) is not None}
    values = {name: value for name, arg in held.items() if (value := wiring.constant(arg)) is not None}
    paths = [_parameter(value) or "" for value in held.values()]
    if not is_image(given["input"]) or len(values) < len(held) or not all(paths):
        return None
    owner = paths[0].rpartition(".")[0] or path_of(node)
    counter = f"{owner}.num_batches_tracked"
    weights = (*paths, counter) if counter in wiring.tensors else tuple(paths)
    found = _Linear(node, given["input"], owner, f"batch_norm({node.meta['val'].shape[1]})", weights=weights)
    training = given.get("training", False)
    if "running_mean" not in values or "running_var" not in values:
        return replace(found, why=_NO_STATISTICS)
    if training.meta["val"] if isinstance(training, fx.Node) else training:
        return replace(found, why=_TRAINING)
    if any(wiring.tied(path) for path in paths):
        return replace(found, why=Skip("tied", "its weights are held under another name, too"))
    return replace(found, affine=_normalization(eps=float(given.get("eps", 1e-5)), **values))


def _normalization(
    running_mean: Tensor, running_var: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None
) -> weights.Affine:
    """What batch normalization does with fixed statistics."""
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight.detach()
    shift = -running_mean * scale
    return weights.Affine(scale, shift if bias is None else shift + bias.detach())


def _batch_norm(wiring: Rewiring, node: fx.Node, module: nn.BatchNorm2d) -> _Linear:
    path, source = str(node.target), node.args[0]
    assert isinstance(source, fx.Node)
    found = _Linear(node, source, path, signature(module), weights=(path,), why=wiring.fixed(path))
    if module.running_mean is None or module.running_var is None:
        return replace(found, why=_NO_STATISTICS)
    if module.training:
        return replace(found, why=_TRAINING)
    exact = wiring.exactly(path)
    affine = _normalization(exact.running_mean, exact.running_var, exact.eps, exact.weight, exact.bias)
    return replace(found, affine=affine)


def _is_scale(module: nn.Conv2d) -> bool:
    geometry = (module.kernel_size, module.stride, module.padding)
    return 1 < module.groups == module.in_channels == module.out_channels and geometry == ((1, 1), (1, 1), (0, 0))


def _scaling(wiring: Rewiring, node: fx.Node, module: nn.Conv2d) -> _Linear:
    """A depthwise 1x1 convolution."""
    path, source = str(node.target), node.args[0]
    assert isinstance(source, fx.Node)
    exact = wiring.exactly(path)
    scale = exact.weight.detach().flatten()
    shift = torch.zeros_like(scale) if exact.bias is None else exact.bias.detach()
    fixed = wiring.fixed(path)
    return _Linear(node, source, path, signature(module), weights.Affine(scale, shift), (path,), why=fixed)


def _arithmetic(wiring: Rewiring, node: fx.Node) -> _Linear | None:
    """An image times, plus, minus or divided by one number a channel, be it a parameter or a plain number."""
    name = function_name(node).removeprefix("i" if node.op == "call_function" else "")
    kinds = {"add": "add", "sub": "sub", "mul": "mul", "multiply": "mul", "truediv": "div", "div": "div"}
    if name not in kinds or node.kwargs or len(node.args) != 2 or node.op not in ("call_function", "call_method"):
        return None
    values = [wiring.constant(arg) for arg in node.args]
    if (values[0] is None) == (values[1] is None):
        return None
    first = values[1] is not None
    source, given = node.args if first else node.args[::-1]
    value = values[1] if first else values[0]
    if not is_image(source) or source.meta["val"].shape != node.meta["val"].shape:  # type: ignore[union-attr]
        return None
    assert isinstance(source, fx.Node) and value is not None
    channels = node.meta["val"].shape[1]
    shape = (1,) * (4 - value.dim()) + tuple(value.shape)
    if shape not in ((1, channels, 1, 1), (1, 1, 1, 1)):
        return None
    number = value.flatten().expand(channels)
    one, zero = torch.ones_like(number), torch.zeros_like(number)
    affine = {
        "add": weights.Affine(one, number),
        "sub": weights.Affine(one, -number) if first else weights.Affine(-one, number),
        "mul": weights.Affine(number, zero),
        "div": weights.Affine(1 / number, zero) if first else None,
    }[kinds[name]]
    if affine is None or not bool(affine.scale.isfinite().all()):
        return None
    parameter = _parameter(given)
    in_place = writes_in_place(node, wiring.modules)
    if parameter is None:
        return _Linear(node, source, path_of(node), "", affine, named=False, in_place=in_place)
    shared = Skip("tied", "is held under another name, too") if wiring.tied(parameter) else None
    text = f"{kinds[name]} of {channels} channels"
    return _Linear(node, source, parameter, text, affine, (parameter,), in_place=in_place, why=shared)


def _parameter(value: Any) -> str | None:
    """The path of the parameter or buffer that a constant comes from."""
    while isinstance(value, fx.Node) and value.op != "get_attr":
        value = value.args[0]
    return str(value.target) if isinstance(value, fx.Node) else None
