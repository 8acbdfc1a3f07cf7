"""Lower partial convolutions into the form that an engine runs best.

Splitting channels off and concatenating them again costs nothing in MACs and much in time (MOFA's conclusion names it
as the open problem). A partial convolution and what surrounds it can be computed in other ways, with the same result.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import inherit
from mofa_compiler.branches import BornApart, BornApartJoined, TwoProducts
from mofa_compiler.layers import PartialConv2d, PConv2d, PDWConv2d
from mofa_compiler.network import Network
from mofa_compiler.options import FROZEN
from mofa_compiler.rewriting import Lowering, Match, Replacement, Skip
from mofa_compiler.surroundings import Chain, convolution_before, overwritable, pointwise_behind
from mofa_compiler.survey import Layer

Form = Literal["split-cat", "in-place", "identity-kernels", "two-products", "born-apart", "merged"]


@dataclass(frozen=True, config=FROZEN)
class LowerPConv(Lowering):
    """Compute partial convolutions in another form: the same function, checked in float64.

    The forms, and what an exported graph has none of where a layer was lowered so:
    - `split-cat`: as it is.
    - `in-place`: the convolved channels are written over those of the input. Eager PyTorch without gradients only: with
      them, compiled or exported, it is `split-cat`. Only where nothing else reads the input.
    - `identity-kernels`: a `PDWConv2d` as a depthwise convolution over all channels, the kernels of the untouched ones
      a centred 1. No split, no cat, no slice.
    - `two-products`: with the pointwise convolution behind it, and per-channel operations between, a sum of two
      pointwise convolutions: one of the convolved channels, and one of the whole input that leaves them out of account.
      No split and no cat; one slice stays.
    - `born-apart`: the convolution before it, which it alone reads, is cut in two, and so is the pointwise one behind
      it. No split, no slice, no cat; one cat stays where there is no pointwise convolution behind it.
    - `merged`: with the pointwise convolution directly behind it (or behind batch normalization in evaluation mode) one
      dense convolution. No split, no cat, no slice; more MACs.

    Options:
        form: one of these, or `auto`, a rule of thumb for what was not measured: `two-products` where the pointwise
            convolution behind contracts; else `identity-kernels` for a `PDWConv2d`; else `born-apart`; where the layer
            allows none of them, `split-cat`.
    """

    name: ClassVar[str] = "lower-pconv"
    after: ClassVar[tuple[str, ...]] = (
        "sepconv-to-pconv",
        "widen-portion",
        "restore-kernels",
        "decouple-upsampling",
        "decouple-downsampling",
        "pconv-to-pdwconv",
    )

    form: Form | Literal["auto"] = "auto"

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        partial = layer.module
        if not isinstance(partial, PartialConv2d):
            return None
        if type(partial) not in (PConv2d, PDWConv2d):
            return Skip(f"is a {type(partial).__name__}, a subclass of PartialConv2d whose behaviour is not known")
        if partial.in_place:
            return Skip("is lowered already, to in-place")
        form = self._form(layer)
        if form == "split-cat":
            return Skip("stays as it is: split-cat")
        reason = self._refuse(form, layer, network)
        return Skip(f"{reason} (form {form})") if reason else Match(form)

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        partial = modules[layer.path]
        assert isinstance(partial, PartialConv2d)
        behind, before = pointwise_behind(layer), convolution_before(layer)
        match self._form(layer):
            case "in-place":
                new: nn.Module = copy.deepcopy(partial)
                new.in_place = True  # type: ignore[assignment]
                return _exact(new)
            case "identity-kernels":
                return _exact(inherit.over_all_channels(partial))
            case "merged":
                assert isinstance(behind, Chain)
                return _merged(partial, behind, modules)
            case "two-products":
                assert isinstance(behind, Chain)
                return _two_products(partial, behind, modules)
            case _:
                assert isinstance(before, Chain)
                return _born_apart(partial, before, behind if isinstance(behind, Chain) else None, modules)

    def _form(self, layer: Layer) -> Form:
        if self.form != "auto":
            return self.form
        partial, behind = layer.module, pointwise_behind(layer)
        assert isinstance(partial, PartialConv2d)
        if partial.convolved == partial.channels:
            return "split-cat"
        if isinstance(behind, Chain):
            pointwise = behind.end.step.module
            assert isinstance(pointwise, nn.Conv2d)
            if pointwise.out_channels <= partial.channels // 2:
                return "two-products"
        if partial.depthwise and not _refuse_centre(partial):
            return "identity-kernels"
        return "born-apart" if isinstance(convolution_before(layer), Chain) else "split-cat"

    def _refuse(self, form: Form, layer: Layer, network: Network) -> str | None:
        partial, behind = layer.module, pointwise_behind(layer)
        assert isinstance(partial, PartialConv2d)
        if form == "identity-kernels":
            mixed = "mixes the channels that it convolves: no depthwise convolution does that"
            return _refuse_centre(partial) if partial.depthwise else mixed
        if form == "merged":
            return behind if isinstance(behind, str) else _refuse_centre(partial) or _refuse_merging(behind)
        if partial.convolved == partial.channels:
            return "convolves all channels: nothing is split or concatenated"
        if form == "in-place":
            return overwritable(layer)
        if form == "two-products":
            return behind if isinstance(behind, str) else None
        before = convolution_before(layer)
        if isinstance(before, str):
            return before
        if self._takes(str(before.end.step.path), network):
            return "the convolution before it is already cut for the partial convolution before that"
        return None

    def _takes(self, pointwise: str, network: Network) -> bool:
        """Whether this pass makes a convolution part of a partial one before it."""
        before = network.layers[pointwise].before
        layer = network.layers.get(str(before[-1].path)) if before else None
        if layer is None or not any(fnmatchcase(layer.path, pattern) for pattern in self.layers):
            return False
        if not isinstance(layer.module, PartialConv2d) or not isinstance(self.match(layer, network), Match):
            return False
        return self._form(layer) in ("two-products", "born-apart", "merged") and pointwise in _pointwise_path(layer)


def _pointwise_path(layer: Layer) -> tuple[str, ...]:
    behind = pointwise_behind(layer)
    return (str(behind.end.step.path),) if isinstance(behind, Chain) else ()


def _refuse_centre(partial: PartialConv2d) -> str | None:
    """Why a kernel of that size has no 1 that leaves a channel as it is, if so."""
    sizes = zip(partial.conv.kernel_size, partial.conv.dilation, strict=True)
    off = any(kernel % 2 == 0 and dilation > 1 for kernel, dilation in sizes)
    return f"its kernel {partial.conv.kernel_size}, dilated, has no centre" if off else None


def _refuse_merging(behind: Chain) -> str | None:
    pointwise = behind.end.step.module
    assert isinstance(pointwise, nn.Conv2d)
    if pointwise.padding not in ((0, 0), "same", "valid"):
        return f"the pointwise convolution behind it pads by {pointwise.padding}"
    norms = [link.step.module for link in behind.between if link.step.kind == "norm"]
    others = [
        link.step.operation
        for link in behind.between
        if link.step.kind != "norm" and type(link.step.module) is not nn.Identity
    ]
    if others or len(norms) > 1:
        return f"the {others[0] if others else 'second BatchNorm2d'} between it and its pointwise convolution stays"
    if any(norm is None or norm.training or norm.running_mean is None for norm in norms):
        return "the batch normalization between it and its pointwise convolution is in training mode (model.eval())"
    return None


def _exact(module: nn.Module) -> Replacement:
    return Replacement(module, fate="exact", exact=True)


def _merged(partial: PartialConv2d, behind: Chain, modules: Mapping[str, nn.Module]) -> Replacement:
    pointwise = behind.convolution(modules)
    assert isinstance(pointwise, nn.Conv2d)
    norm = next((modules[str(link.step.path)] for link in behind.between if link.step.kind == "norm"), None)
    return Replacement(
        inherit.merged(partial, pointwise, norm),
        fate="merged",
        exact=True,
        reference=nn.Sequential(partial, *behind.whole(modules)),
        bypassed=behind.nodes,
    )


def _two_products(partial: PartialConv2d, behind: Chain, modules: Mapping[str, nn.Module]) -> Replacement:
    pointwise, first, total = behind.convolution(modules), slice(partial.convolved), partial.channels
    assert isinstance(pointwise, nn.Conv2d)
    convolved = _convolved(partial, behind.parts(modules, first, total), pointwise)
    untouched = behind.parts(modules, slice(total), total, inplace=False)
    untouched["pointwise"] = inherit.without_inputs(pointwise, first)
    return Replacement(
        TwoProducts(partial.convolved, nn.Sequential(convolved), nn.Sequential(untouched)),
        fate="exact",
        exact=True,
        reference=nn.Sequential(partial, *behind.whole(modules)),
        bypassed=behind.nodes,
    )


def _born_apart(
    partial: PartialConv2d, before: Chain, behind: Chain | None, modules: Mapping[str, nn.Module]
) -> Replacement:
    total, producer = partial.channels, before.convolution(modules)
    assert isinstance(producer, (nn.Conv2d, nn.ConvTranspose2d))
    first, rest = slice(partial.convolved), slice(partial.convolved, total)
    ways = []
    for channels in (first, rest):
        way: OrderedDict[str, nn.Module] = OrderedDict(born=inherit.of_outputs(producer, channels))
        parts = before.parts(modules, channels, total)
        way.update((f"before_{name}", part) for name, part in reversed(parts.items()))
        ways.append(way)
    convolved, untouched = ways
    if behind is None:
        convolved["spatial"] = copy.deepcopy(partial.conv)
    else:
        pointwise = behind.convolution(modules)
        assert isinstance(pointwise, nn.Conv2d)
        convolved.update(_convolved(partial, behind.parts(modules, first, total), pointwise))
        untouched.update(behind.parts(modules, rest, total))
        untouched["pointwise"] = inherit.of_inputs(pointwise, rest, bias=True)
    old = [*reversed(before.whole(modules)), partial, *(behind.whole(modules) if behind else ())]
    kind = BornApart if behind else BornApartJoined
    return Replacement(
        kind(nn.Sequential(convolved), nn.Sequential(untouched)),
        fate="exact",
        exact=True,
        reference=nn.Sequential(*old),
        channels=producer.in_channels,
        bypassed=(*before.nodes, *(behind.nodes if behind else ())),
    )


def _convolved(
    partial: PartialConv2d, between: OrderedDict[str, nn.Module], pointwise: nn.Conv2d
) -> OrderedDict[str, nn.Module]:
    """What the convolved channels pass through: convolution, what follows, and their part of the pointwise one."""
    way: OrderedDict[str, nn.Module] = OrderedDict(spatial=copy.deepcopy(partial.conv))
    way.update(between)
    way["pointwise"] = inherit.of_inputs(pointwise, slice(partial.convolved), bias=False)
    return way
