"""What stands around a partial convolution, as the forms need it into which it can be lowered."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer, Step
from mofa_compiler.analysis.nodes import altered, is_plain
from mofa_compiler.nn.branching import Function
from mofa_compiler.nn.partial_conv import PConv2d, PDWConv2d
from mofa_compiler.rewriting import Skip


@dataclass(frozen=True)
class Link:
    """One operation next to a layer: its step, and its node in the graph that was surveyed."""

    step: Step
    node: fx.Node

    @property
    def is_per_channel(self) -> bool:
        """Whether it does the same to a channel whichever other channels there are."""
        module = self.step.module
        if self.step.kind == "norm":
            return is_plain(module, nn.BatchNorm2d)
        if self.step.kind not in ("activation", "identity"):
            return False
        if module is not None:
            return True
        rest = pytree.tree_leaves((self.node.args[1:], self.node.kwargs))
        # True by position is `inplace`, and a method's name that ends so says the same
        plain = not any(isinstance(value, fx.Node) or value is True for value in self.node.args[1:])
        in_place = getattr(self.node.target, "__name__", str(self.node.target)).endswith("_")
        return plain and not in_place and not any(isinstance(value, fx.Node) for value in rest)

    def part(self, modules: Mapping[str, nn.Module], channels: slice, total: int, *, inplace: bool) -> nn.Module:
        """A module that does the same to some of `total` channels."""
        if self.step.path is None:
            return Function(self.node, inplace=inplace)
        new = weights.of_channels(modules[self.step.path], channels, total)
        if not inplace and getattr(new, "inplace", False):
            new.inplace = False  # type: ignore[assignment]
        return new


@dataclass(frozen=True)
class Chain:
    """What lies between a layer and the next convolution on one side, nearest first, and that convolution."""

    between: tuple[Link, ...]
    end: Link

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes, nearest first."""
        return (*(link.node.name for link in self.between), self.end.node.name)

    def convolution(self, modules: Mapping[str, nn.Module]) -> nn.Module:
        """The convolution at the end."""
        return modules[str(self.end.step.path)]

    def relu_behind(self, modules: Mapping[str, nn.Module]) -> str | None:
        """Name of the node of a ReLU that alone reads the convolution at the end; None without one."""
        (reader, *others) = self.end.node.users
        is_function = reader.op == "call_function" and reader.target in (F.relu, torch.relu)
        is_module = reader.op == "call_module" and is_plain(modules.get(str(reader.target)), nn.ReLU)
        return reader.name if not others and (is_function or is_module) else None

    def whole(self, modules: Mapping[str, nn.Module]) -> list[nn.Module]:
        """All modules as they are, nearest first."""
        return [
            Function(link.node) if link.step.path is None else copy.deepcopy(modules[link.step.path])
            for link in (*self.between, self.end)
        ]

    def parts(
        self, modules: Mapping[str, nn.Module], channels: slice, total: int, *, inplace: bool = True
    ) -> OrderedDict[str, nn.Module]:
        """What lies between, for some of the channels, nearest first; identities are left out."""
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for link in self.between:
            if type(link.step.module) is nn.Identity:
                continue
            name = link.step.kind if link.step.kind != "identity" else "dropout"
            number = sum(key.startswith(name) for key in parts)
            parts[f"{name}{number + 1 if number else ''}"] = link.part(modules, channels, total, inplace=inplace)
        return parts


def pointwise_behind(layer: Layer) -> Chain | Skip:
    """The pointwise convolution that alone reads a layer, with what lies between; or why there is none to take."""
    chain = _chain(layer, layer.behind, forward=True)
    if chain is None or not chain.end.step.is_pointwise:
        return Skip("no-neighbour", "has no pointwise convolution behind it that it alone feeds")
    if not chain.end.step.free:
        return Skip("neighbour-held", "the pointwise convolution behind it is shared, hooked or the output's")
    return _refused(chain, "and its pointwise convolution") or chain


def convolution_before(layer: Layer) -> Chain | Skip:
    """The convolution that feeds a layer alone, with what lies between; or why there is none to cut in two."""
    chain = _chain(layer, layer.before, forward=False)
    if chain is None:
        return Skip("no-neighbour", "does not alone read a convolution before it")
    step = chain.end.step
    if not is_plain(step.module, nn.Conv2d, nn.ConvTranspose2d) or step.module.groups > 1:
        return Skip("neighbour", f"the {step.operation} before it cannot be cut in two")
    if not step.free:
        return Skip("neighbour-held", "the convolution before it is shared, hooked or the input's")
    return _refused(chain, "and the convolution before it") or chain


def _chain(layer: Layer, steps: Sequence[Step], *, forward: bool) -> Chain | None:
    if not steps or steps[-1].kind != "conv":
        return None
    links, node = [], layer.nodes[0]
    for step in steps:
        near = node.users if forward else node.all_input_nodes
        node = next(other for other in near if other.name == step.node)
        links.append(Link(step, node))
    return Chain(tuple(links[:-1]), links[-1])


def _refused(chain: Chain, where: str) -> Skip | None:
    for link in chain.between:
        if not link.is_per_channel:
            reason = f"the {link.step.operation} between it {where} does not treat every channel by itself"
            return Skip("between", reason)
        module = link.step.module
        if module is not None and not link.step.free and any(True for _ in module.parameters()):
            return Skip("between", f"the {link.step.operation} between it {where} is shared or hooked")
    if any(link.step.measured for link in (*chain.between, chain.end)):
        return Skip("size-asked", f"the size of what lies between it {where} is asked for")
    return None


_FRESH_MODULES = (
    nn.AvgPool2d,
    nn.BatchNorm2d,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.MaxPool2d,
    nn.Upsample,
    PConv2d,
    PDWConv2d,
)
_FRESH_FUNCTIONS = frozenset(["add", "sub", "mul", "truediv", "cat", "concat", "interpolate"])


def overwritable(layer: Layer) -> Skip | None:
    """Why what a layer reads may not be overwritten; None where, at every call, nothing else reads that memory."""
    for site in layer.sites:
        node = site.node
        source = node.args[0]
        while True:
            if not isinstance(source, fx.Node) or not source.op.startswith("call"):
                return Skip("memory", "its input is the network's, or a parameter")
            if any(_reads(user) for user in source.users if user is not node):
                return Skip("read-elsewhere", "something else reads its input")
            fresh = _is_fresh(source, site.before)
            if fresh:
                break
            if fresh is None:
                return Skip("memory", f"what it reads ({source.name}) may share memory with something else")
            node, source = source, source.args[0]
    return None


def _reads(user: fx.Node) -> bool:
    """Whether a user may read values: everything but a question for the shape."""
    value = user.meta.get("val")
    leaves = pytree.tree_leaves(value)
    return user.op == "output" or value is None or any(isinstance(leaf, Tensor) for leaf in leaves)


def _is_fresh(node: fx.Node, steps: Sequence[Step]) -> bool | None:
    """Whether a call makes a new tensor; False where it hands its input on, None where that is not known."""
    step = next((step for step in steps if step.node == node.name), None)
    name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
    if step is None or step.module is None:
        if node.op != "call_function" or node.kwargs.get("inplace") or "out" in node.kwargs:
            return None
        plain = not any(value is True for value in node.args)
        known = name in _FRESH_FUNCTIONS or (step is not None and step.kind == "activation")
        return True if plain and known else None
    if altered(step.module):
        return None
    if type(step.module) in _FRESH_MODULES:
        return not getattr(step.module, "in_place", False)
    if step.kind == "activation":
        return not getattr(step.module, "inplace", False)
    return False if step.kind == "identity" else None
