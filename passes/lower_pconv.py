"""Lower partial convolutions into the form that an engine runs best.

Splitting channels off and concatenating them again costs nothing in MACs and much in time (MOFA's conclusion names it
as the open problem). A partial convolution and what surrounds it can be computed in other ways, with the same result.
"""

from __future__ import annotations

import copy
import importlib.util
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import ClassVar, Literal, get_args

from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.analysis.nodes import is_plain
from mofa_compiler.nn.branching import BornApart, BornApartJoined, TwoProducts, TwoSlices
from mofa_compiler.nn.partial_conv import FusedPConv2d, PartialConv2d, PConv2d, PDWConv2d
from mofa_compiler.rewriting import FROZEN, Fate, Lowering, Match, Pass, Replacement, Skip, unknown_subclass

from ._partial_neighbours import Chain, convolution_before, overwritable, pointwise_behind

Form = Literal[
    "split-cat", "in-place", "identity-kernels", "two-products", "two-slices", "born-apart", "merged", "fused"
]


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
    - `two-slices`: the same with a product of the other channels only. No split and no cat; two slices stay.
    - `born-apart`: the convolution before it, which it alone reads, is cut in two, and so is the pointwise one behind
      it. No split, no slice, no cat; one cat stays where there is no pointwise convolution behind it.
    - `merged`: with the pointwise convolution directly behind it (or behind batch normalization in evaluation mode) one
      dense convolution. No split, no cat, no slice; more MACs.
    - `fused`: with the pointwise convolution directly behind it, and a ReLU behind that, one `FusedPConv2d`, which one
      Triton kernel computes on CUDA without gradients (extra `cuda`); elsewhere it is `split-cat`.

    Options:
        form: one of these, or `auto`, a rule of thumb for what was not measured: `identity-kernels` for a `PDWConv2d`,
            unless the pointwise convolution behind it halves the channels; else the first that the layer allows of
            `born-apart`, `two-slices` and `split-cat`.
    """

    name: ClassVar[str] = "lower-pconv"
    after: ClassVar[tuple[str, ...]] = (
        "sepconv-to-pconv",
        "widen-portion",
        "narrow-portion",
        "restore-kernels",
        "decouple-upsampling",
        "decouple-downsampling",
        "pconv-to-pdwconv",
    )
    per_layer: ClassVar[bool] = True

    removes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "identity-kernels": ("split", "cat", "slice"),
        "two-products": ("split", "cat"),
        "two-slices": ("split", "cat"),
        "born-apart": ("split", "cat", "slice"),
        "merged": ("split", "cat", "slice"),
    }
    """By form, what an exported graph has none of where a layer was lowered so (`born-apart`: with a pointwise
    convolution behind the layer)"""

    only_on: ClassVar[Mapping[str, tuple[str, ...]]] = {"in-place": ("eager", "channels-last"), "fused": ("cuda",)}
    """Engines by form: what else computes the others runs these as `split-cat`"""

    form: Form | Literal["auto"] = "auto"

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return [replace(self, form=form) for form in get_args(Form)] if self.form == "auto" else (self,)

    def pays_on(self, engine: str) -> bool:
        return engine in self.only_on.get(self.form, (engine,))

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        partial = layer.module
        if not isinstance(partial, PartialConv2d):
            return None
        if type(partial) not in (PConv2d, PDWConv2d):
            return unknown_subclass(partial, PartialConv2d)
        if partial.in_place:
            return Skip("done", "is lowered already, to in-place")
        taken = layer.path in self._taken(network)
        form = self._form(layer, taken=taken)
        if form == "split-cat":
            return Skip("stays", "stays as it is: split-cat")
        why = self._refuse(form, layer, taken=taken)
        return replace(why, reason=f"{why.reason} (form {form})") if why else Match()

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        before = convolution_before(layer)
        taken = isinstance(before, Chain) and before.end.step.path not in modules  # by the partial one before it
        form = self._form(layer, taken=taken)
        built = self._built(form, layer, modules)
        return replace(built, note="; ".join(filter(None, (form, built.note))))

    def _built(self, form: Form, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        partial = modules[layer.path]
        assert isinstance(partial, PartialConv2d)
        behind, before = pointwise_behind(layer), convolution_before(layer)
        match form:
            case "in-place":
                new: nn.Module = copy.deepcopy(partial)
                new.in_place = True  # type: ignore[assignment]
                return _exact(new)
            case "identity-kernels":
                return _exact(weights.over_all_channels(partial))
            case "merged":
                assert isinstance(behind, Chain)
                return _merged(partial, behind, modules)
            case "two-products" | "two-slices":
                assert isinstance(behind, Chain)
                return _two_products(partial, behind, modules, slices=form == "two-slices")
            case "fused":
                assert isinstance(behind, Chain)
                return _fused(partial, behind, modules)
            case _:
                assert isinstance(before, Chain)
                return _born_apart(partial, before, behind if isinstance(behind, Chain) else None, modules)

    def _form(self, layer: Layer, *, taken: bool) -> Form:
        """The form to try; `taken` if the convolution before it is part of another lowered layer."""
        if self.form != "auto":
            return self.form
        partial, behind = layer.module, pointwise_behind(layer)
        assert isinstance(partial, PartialConv2d)
        if partial.convolved == partial.channels:
            return "split-cat"
        contracts = False
        if isinstance(behind, Chain):
            pointwise = behind.end.step.module
            assert isinstance(pointwise, nn.Conv2d)
            contracts = pointwise.out_channels <= partial.channels // 2
        if partial.depthwise and not contracts and not _refuse_centre(partial):
            return "identity-kernels"
        if isinstance(convolution_before(layer), Chain) and not taken:
            return "born-apart"
        return "two-slices" if isinstance(behind, Chain) else "split-cat"

    def _refuse(self, form: Form, layer: Layer, *, taken: bool) -> Skip | None:
        partial, behind = layer.module, pointwise_behind(layer)
        assert isinstance(partial, PartialConv2d)
        if form == "identity-kernels":
            mixed = Skip("mixing", "mixes the channels that it convolves: no depthwise convolution does that")
            return _refuse_centre(partial) if partial.depthwise else mixed
        if form == "merged":
            return behind if isinstance(behind, Skip) else _refuse_centre(partial) or _refuse_merging(behind)
        if partial.convolved == partial.channels:
            return Skip("all-channels", "convolves all channels: nothing is split or concatenated")
        if form == "in-place":
            return overwritable(layer)
        if form == "fused":
            return behind if isinstance(behind, Skip) else _refuse_fusing(partial, behind)
        if form in ("two-products", "two-slices"):
            return behind if isinstance(behind, Skip) else None
        before = convolution_before(layer)
        if isinstance(before, Skip):
            return before
        if taken:
            return Skip("taken", "the convolution before it is already cut for the partial convolution before that")
        return None

    def _taken(self, network: Network) -> Set[str]:
        """Layers before which the convolution is made, by this pass, part of the partial one that stands before that.

        Whether a layer takes the one behind it depends on whether the one before it was taken from it: they are decided
        in execution order, once per network.
        """
        if self not in network.memo:
            taken: set[str] = set()
            for path, layer in network.layers.items():
                other = self._partial_before(layer, network)
                if other is not None and self._takes(other, taken=other.path in taken):
                    taken.add(path)
            network.memo[self] = taken
        found: set[str] = network.memo[self]
        return found

    def _partial_before(self, layer: Layer, network: Network) -> Layer | None:
        """The partial convolution that this pass looks at and whose pointwise one is the convolution before a layer."""
        chain = convolution_before(layer) if isinstance(layer.module, PartialConv2d) else None
        if not isinstance(chain, Chain):
            return None
        path = str(chain.end.step.path)
        ahead = network.layers[path].before
        other = network.layers.get(str(ahead[-1].path)) if ahead else None
        if other is None or not self.looks_at(other.path) or not is_plain(other.module, PConv2d, PDWConv2d):
            return None
        behind = pointwise_behind(other)
        return other if isinstance(behind, Chain) and behind.end.step.path == path else None

    def _takes(self, layer: Layer, *, taken: bool) -> bool:
        """Whether a layer becomes one with the pointwise convolution behind it."""
        form = self._form(layer, taken=taken)
        return form not in ("split-cat", "in-place", "identity-kernels") and not self._refuse(form, layer, taken=taken)


def _refuse_centre(partial: PartialConv2d) -> Skip | None:
    """Why a kernel of that size has no 1 that leaves a channel as it is, if so."""
    sizes = zip(partial.conv.kernel_size, partial.conv.dilation, strict=True)
    off = any(kernel % 2 == 0 and dilation > 1 for kernel, dilation in sizes)
    return Skip("kernel", f"its kernel {partial.conv.kernel_size}, dilated, has no centre") if off else None


def _refuse_merging(behind: Chain) -> Skip | None:
    pointwise = behind.end.step.module
    assert isinstance(pointwise, nn.Conv2d)
    if pointwise.padding not in ((0, 0), "same", "valid"):
        return Skip("neighbour", f"the pointwise convolution behind it pads by {pointwise.padding}")
    norms = [link.step.module for link in behind.between if link.step.kind == "norm"]
    others = [
        link.step.operation
        for link in behind.between
        if link.step.kind != "norm" and type(link.step.module) is not nn.Identity
    ]
    if others or len(norms) > 1:
        first = others[0] if others else "second BatchNorm2d"
        return Skip("between", f"the {first} between it and its pointwise convolution stays")
    if any(norm is None or norm.training or norm.running_mean is None for norm in norms):
        reason = "the batch normalization between it and its pointwise convolution is in training mode (model.eval())"
        return Skip("training", reason)
    return None


def _refuse_fusing(partial: PartialConv2d, behind: Chain) -> Skip | None:
    if any(kernel % 2 == 0 for kernel in partial.conv.kernel_size):
        return Skip("kernel", f"the kernel of the GPU has no even sizes as {partial.conv.kernel_size}")
    if partial.conv.padding_mode != "zeros":
        return Skip("padding", f"the kernel of the GPU pads with zeros, not {partial.conv.padding_mode}")
    if any(link.step.kind == "norm" for link in behind.between):
        return Skip("between", "the BatchNorm2d between it and its pointwise convolution stays")
    return _refuse_merging(behind)


def _exact(module: nn.Module) -> Replacement:
    return Replacement(module, fate=Fate.EXACT, exact=True)


def _merged(partial: PartialConv2d, behind: Chain, modules: Mapping[str, nn.Module]) -> Replacement:
    pointwise = behind.convolution(modules)
    assert isinstance(pointwise, nn.Conv2d)
    norm = next((modules[str(link.step.path)] for link in behind.between if link.step.kind == "norm"), None)
    return Replacement(
        weights.merged(partial, pointwise, norm),
        fate=Fate.MERGED,
        exact=True,
        reference=nn.Sequential(partial, *behind.whole(modules)),
        bypassed=behind.nodes,
    )


def _two_products(
    partial: PartialConv2d, behind: Chain, modules: Mapping[str, nn.Module], *, slices: bool
) -> Replacement:
    pointwise, total = behind.convolution(modules), partial.channels
    first, rest = slice(partial.convolved), slice(partial.convolved, total)
    assert isinstance(pointwise, nn.Conv2d)
    convolved = _convolved(partial, behind.parts(modules, first, total), pointwise)
    untouched = behind.parts(modules, rest if slices else slice(total), total, inplace=False)
    if slices:
        untouched["pointwise"] = weights.of_inputs(pointwise, rest, bias=True)
    else:
        untouched["pointwise"] = weights.without_inputs(pointwise, first)
    kind = TwoSlices if slices else TwoProducts
    return Replacement(
        kind(partial.convolved, nn.Sequential(convolved), nn.Sequential(untouched)),
        fate=Fate.EXACT,
        exact=True,
        reference=nn.Sequential(partial, *behind.whole(modules)),
        bypassed=behind.nodes,
    )


def _fused(partial: PartialConv2d, behind: Chain, modules: Mapping[str, nn.Module]) -> Replacement:
    pointwise, old = behind.convolution(modules), partial.conv
    assert isinstance(pointwise, nn.Conv2d)
    relu = behind.relu_behind(modules)
    new = FusedPConv2d(
        partial.channels,
        partial.convolved,
        pointwise.out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        depthwise=partial.depthwise,
        dilation=(old.dilation[0], old.dilation[1]),
        spatial_bias=old.bias is not None,
        pointwise_bias=pointwise.bias is not None,
        relu=relu is not None,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    assert isinstance(partial, (PConv2d, PDWConv2d))
    new.partial, new.pointwise = copy.deepcopy(partial), copy.deepcopy(pointwise)
    last = [nn.ReLU()] if relu else []
    return Replacement(
        new,
        fate=Fate.EXACT,
        exact=True,
        reference=nn.Sequential(partial, *behind.whole(modules), *last),
        bypassed=(*behind.nodes, *([relu] if relu else [])),
        note="" if importlib.util.find_spec("triton") else "needs Triton: pip install 'mofa-compiler[cuda]'",
    )


def _born_apart(
    partial: PartialConv2d, before: Chain, behind: Chain | None, modules: Mapping[str, nn.Module]
) -> Replacement:
    total, producer = partial.channels, before.convolution(modules)
    assert isinstance(producer, (nn.Conv2d, nn.ConvTranspose2d))
    first, rest = slice(partial.convolved), slice(partial.convolved, total)
    ways = []
    for channels in (first, rest):
        way: OrderedDict[str, nn.Module] = OrderedDict(born=weights.of_outputs(producer, channels))
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
        untouched["pointwise"] = weights.of_inputs(pointwise, rest, bias=True)
    old = [*reversed(before.whole(modules)), partial, *(behind.whole(modules) if behind else ())]
    kind = BornApart if behind else BornApartJoined
    return Replacement(
        kind(nn.Sequential(convolved), nn.Sequential(untouched)),
        fate=Fate.EXACT,
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
    way["pointwise"] = weights.of_inputs(pointwise, slice(partial.convolved), bias=False)
    return way
