"""What is fitted, in which order, and against what: decided from the two graphs before any image is looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, fx, nn

from ..analysis.layers import is_pointwise
from ..analysis.network import Network
from ..graph.plain_layers import altered, is_plain, is_torchs
from ..graph.program import Program
from ..nn.partial_conv import PartialConv2d, PConv2d, PDWConv2d
from ..rewriting.layer_surgery import origin, selection
from ..rewriting.pass_api import Skip
from .correspondence import commutes, link, sole_reader
from .fit_base import Fit, Site
from .fit_kinds import (
    ConvolutionFit,
    DepthwiseFit,
    FeederFit,
    KernelFit,
    LinearFit,
    NormFit,
    ProductFit,
    TransposedFit,
    kernel_of,
)
from .lockstep import is_harmless, writes_into_input

MOST_FEATURES = 5000
"""Inputs of a fit; the normal equations of more would take minutes"""

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Step:
    """One fit, and how far the networks have to be run for it: numbers of nodes in their orders."""

    fit: Fit
    original: int
    rewritten: int


@dataclass
class Plan:
    """The steps, the order in which the rewritten network's nodes are run, and why rewritten layers are not fitted.

    `wanted` are, for each network, the last steps at which nodes' values are asked for. `differing` are the rewritten
    network's nodes whose values may differ from those of the nodes that they stand for.
    """

    order: list[fx.Node] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    refused: dict[str, Skip] = field(default_factory=dict)
    wanted: Mapping[str, dict[str, int]] = field(default_factory=lambda: {"original": {}, "rewritten": {}})
    differing: frozenset[fx.Node] = frozenset()


class Planner:
    """Goes through the rewritten graph once, in execution order.

    Every convolution and normalization from the first rewritten one on is fitted, where its output, perhaps behind
    operations that commute with it, stands for a value of the original network.
    """

    def __init__(self, original: Program, network: Network, inherited: Program, *, repeated: bool = True):
        """`inherited` is the network's graph with the weights and modules that the passes left.

        Without `repeated`, layers that are called several times are not fitted.
        """
        self.repeated = repeated
        self.original, self.network, self.program, self.inherited = original, network, network.program, inherited
        self.nodes = {node.name: node for node in original.graph.nodes}
        self.place = {node: index for index, node in enumerate(original.graph.nodes)}
        self.index = {node: index for index, node in enumerate(self.program.graph.nodes)}
        self.calls: dict[str, list[fx.Node]] = defaultdict(list)
        for node in self.program.graph.nodes:
            if node.op == "call_module":
                self.calls[str(node.target)].append(node)
        module = self.program.graph_module
        self.pure = all(is_harmless(n, module) for n in self.program.graph.nodes if writes_into_input(n, module))
        self.plan = Plan(differing=frozenset(self._differing()))
        self.emitted: set[fx.Node] = set()
        self.waiting = list(reversed(self.program.graph.nodes))
        self.done: set[str] = set()

    def make(self) -> Plan:
        for node in self.program.graph.nodes:  # what the network is called with is there from the beginning
            if node.op == "placeholder":
                self._emit(node)
        for node in self.program.graph.nodes:
            path = str(node.target)
            if node.op == "call_module" and node in self.plan.differing and path not in self.done:
                self.done.add(path)
                why = self._layer(path, self.program.modules[path])
                if why and self._is_changed(path):
                    self.plan.refused[path] = why
        while self.waiting:
            self._emit(self.waiting.pop())
        return self.plan

    def _differing(self) -> Iterator[fx.Node]:
        found: set[fx.Node] = set()
        for node in self.program.graph.nodes:
            twin = self.nodes.get(origin(node) or "")
            same = twin is not None and (twin.op, twin.target) == (node.op, node.target)
            if same and twin is not None:  # what it reads may have been taken out
                same = [origin(source) for source in node.all_input_nodes] == [one.name for one in twin.all_input_nodes]
            if same and node.op == "call_module":
                same = not self._is_changed(str(node.target))
            if not same or any(source in found for source in node.all_input_nodes):
                found.add(node)
                yield node

    def _is_changed(self, path: str) -> bool:
        return self.original.modules.get(path) is not self.inherited.modules[path]

    def _layer(self, path: str, module: nn.Module) -> Skip | None:
        """Plan the fit of a layer; why there is none."""
        conv = kernel_of(module)
        if not self.repeated and len(self.calls[path]) > 1:
            return Skip("worse", "is called several times, and fitting that made the output worse")
        if isinstance(module, _NORMS):
            return self._norm(path, module)
        if isinstance(module, nn.Linear) and self._is_changed(path):
            return self._linear(path, module)
        if conv is None and not isinstance(module, nn.ConvTranspose2d):
            return None
        layer = self.network.layers.get(path)
        if layer is None or not layer.is_batched:
            return Skip("unbatched", "reads no batch of images")
        if layer.tied or any(parameter.is_complex() for parameter in module.parameters()):
            return Skip("tied", "shares a parameter, or has complex weights")
        if layer.altered:
            return Skip("altered", layer.altered)
        if isinstance(module, PartialConv2d) and (behind := self._pointwise(path)):
            return self._product(path, module, behind) if isinstance(module, PConv2d) else None
        if isinstance(module, nn.ConvTranspose2d):
            return self._transposed(path, module)
        assert conv is not None
        if conv.weight[0].numel() > MOST_FEATURES:
            reason = f"has {conv.weight[0].numel()} inputs, more than a fit in closed form takes ({MOST_FEATURES})"
            return Skip("too-large", reason)
        if isinstance(module, PConv2d):
            sites = self._sites(path, alone=True)
            return self._add(KernelFit(path, module, sites), path)
        if isinstance(module, PDWConv2d) or conv.groups == conv.in_channels == conv.out_channels > 1:
            if self._pointwise(path):
                return None  # that has the last word
            return self._add(DepthwiseFit(path, conv, self._sites(path, alone=True)), path)
        if conv.groups > 1:
            return Skip("grouped", f"is a grouped convolution (groups={conv.groups})")
        if not is_plain(module, nn.Conv2d):
            return Skip("subclass", "is a subclass of Conv2d")
        if self._feeder(path, conv):
            return None
        return self._add(ConvolutionFit(path, conv, self._sites(path)), path)

    def _norm(self, path: str, module: nn.Module) -> Skip | None:
        node = self.calls[path][0]
        value = node.meta.get("val")
        if not isinstance(value, Tensor) or value.dim() != 4 or not isinstance(module.weight, Tensor):
            return Skip("no-scale", "has no scale and shift to be fitted")
        if not is_torchs(module, *_NORMS):
            if reason := altered(module):
                return Skip("altered", reason)
            return Skip("subclass", f"is a {type(module).__name__}, whose behaviour is not known")
        if not isinstance(node.args[0], fx.Node):
            return Skip("no-counterpart", "does not read a value of the network")
        return self._add(NormFit(path, module, value.shape[1], self._sites(path, alone=True)), path)

    def _linear(self, path: str, module: nn.Linear) -> Skip | None:
        if reason := altered(module):
            return Skip("altered", reason)
        if module.in_features > MOST_FEATURES:
            reason = f"has {module.in_features} inputs, more than a fit in closed form takes ({MOST_FEATURES})"
            return Skip("too-large", reason)
        return self._add(LinearFit(path, module, self._sites(path, alone=True)), path)

    def _transposed(self, path: str, module: nn.ConvTranspose2d) -> Skip | None:
        stride = module.stride[0]
        apart = {module.stride, module.kernel_size} == {(stride, stride)}
        if (
            not apart
            or module.groups > 1
            or any((*module.padding, *module.output_padding))
            or set(module.dilation) != {1}
        ):
            return Skip("overlap", "is a transposed convolution whose outputs overlap")
        sites = [site for site in self._sites(path) if not site.link.mixing]
        return self._add(TransposedFit(path, module, sites), path)

    def _product(self, path: str, module: PConv2d, behind: str) -> Skip | None:
        pointwise = self.program.modules[behind]
        assert isinstance(pointwise, nn.Conv2d)
        if module.conv.weight[0].numel() + module.channels > MOST_FEATURES or self._is_bound(behind):
            return None  # the pointwise one is fitted on its own
        sites: list[Site] = []
        for node in self.calls[path]:
            between, end = self._next_pointwise(node)
            assert end is not None
            sites += self._site(node, between, end, first=not sites)
        why = self._add(ProductFit([path, behind], module, pointwise, sites), path)
        if why is None:
            self.done.add(behind)
        return why

    def _feeder(self, path: str, conv: nn.Conv2d) -> bool:
        """Plan that a convolution which only a lone partial one reads takes up what that leaves undone."""
        if len(self.calls[path]) != 1:
            return False
        node = self.calls[path][0]
        reader = sole_reader(node)
        if reader is None or reader.op != "call_module" or len(self.calls[str(reader.target)]) != 1:
            return False
        partial = self.program.modules[str(reader.target)]
        if not isinstance(partial, PartialConv2d) or self._pointwise(str(reader.target)):
            return False
        norm = sole_reader(reader)
        if norm is not None and norm.op == "call_module" and is_torchs(self.program.modules[str(norm.target)], *_NORMS):
            return False  # that takes it up
        own, there = origin(node), origin(reader)
        source = node.args[0]
        if own is None or there is None or not isinstance(source, fx.Node):
            return False
        found = link(reader, self.program, lambda _: False, here=True)
        if found is None:
            return False
        fit = FeederFit(path, conv, [Site(source, True, (), replace(found, clipped=False))], node, partial.convolved)
        self._add(fit, path)
        self._want(own, len(self.plan.steps) - 1)
        return True

    def _is_bound(self, path: str) -> bool:
        layer = self.network.layers.get(path)
        return layer is None or layer.tied or bool(layer.altered)

    def _pointwise(self, path: str) -> str | None:
        """The path of the pointwise convolution that alone reads a convolution, at every call."""
        ends = [self._next_pointwise(node)[1] for node in self.calls[path]]
        found = {str(end.target) if end else None for end in ends}
        behind = found.pop() if len(found) == 1 else None
        return behind if behind is not None and len(self.calls[behind]) == len(ends) else None

    def _next_pointwise(self, node: fx.Node) -> tuple[tuple[fx.Node, ...], fx.Node | None]:
        """What lies between a call and that of the pointwise convolution behind it, and that; all of it commutes."""
        between: list[fx.Node] = []
        while True:
            reader = sole_reader(node)
            if reader is None or reader.args[:1] != (node,):
                return (), None
            node = reader
            if node.op == "call_module" and is_pointwise(self.program.modules[str(node.target)]):
                return tuple(between), node
            if not commutes(node, self.program):
                return (), None
            between.append(node)

    def _sites(self, path: str, alone: bool = False) -> list[Site]:
        """The calls of a layer that can be compared; `alone` at its own place only."""
        sites: list[Site] = []
        for node in self.calls[path]:
            sites += self._site(node, (), node, first=not sites, alone=alone)
        return sites

    def _site(
        self, node: fx.Node, between: tuple[fx.Node, ...], end: fx.Node, first: bool, alone: bool = False
    ) -> list[Site]:
        source = node.args[0]
        if not isinstance(source, fx.Node):
            return []
        found = link(end, self.program, self._known_before(node) if first and not alone else lambda _: False, alone)
        if found is None:
            return []
        if first:
            return [Site(source, True, between, found)]
        twin = self.nodes.get(origin(source) or "")
        whole = selection(source) is None
        return [Site(twin, False, (), found)] if twin and whole and not between and not found.mixing else []

    def _known_before(self, layer: fx.Node) -> Callable[[fx.Node], bool]:
        """Whether a value can be had before a layer's own; if so, it is from now on computed before that."""
        self._emit_before(layer)

        def known(node: fx.Node) -> bool:
            waiting, needed = [node], set[fx.Node]()
            while waiting:
                one = waiting.pop()
                if one in self.emitted or one in needed:
                    continue
                own = self.program.modules[str(one.target)].parameters() if one.op == "call_module" else ()
                to_be_fitted = one in self.plan.differing and any(True for _ in own)
                if one is layer or to_be_fitted or not self.pure:
                    return False
                needed.add(one)
                waiting += one.all_input_nodes
            for one in sorted(needed, key=self.index.__getitem__):
                self._emit(one)
            return True

        return known

    def _emit(self, node: fx.Node) -> None:
        if node not in self.emitted:
            self.emitted.add(node)
            self.plan.order.append(node)

    def _emit_before(self, node: fx.Node) -> None:
        """Everything that comes before a node in the graph."""
        while self.waiting and self.waiting[-1] is not node:
            self._emit(self.waiting.pop())

    def _want(self, name: str, step: int) -> int:
        """Ask for a value of the original network; how far that has to be run for it."""
        self.plan.wanted["original"][name] = step
        return self.place[self.nodes[name]] + 1

    def _add(self, fit: Fit, path: str) -> Skip | None:
        if not fit.sites:
            reason = "nothing in the original network stands where its output could be compared"
            return Skip("no-counterpart", reason)
        self._emit_before(self.calls[path][0])
        step, ahead = len(self.plan.steps), 0
        for site in fit.sites:
            ahead = max(ahead, self._want(site.link.origin, step))
            if site.rewritten:
                self.plan.wanted["rewritten"][site.source.name] = step
            else:
                ahead = max(ahead, self._want(site.source.name, step))
            for _, node in site.link.known:
                self.plan.wanted["rewritten"][node.name] = step
        self.plan.steps.append(Step(fit, ahead, len(self.plan.order)))
        return None
