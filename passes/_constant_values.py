"""Values that are the same whatever the input: what makes them goes, and what reads them reads a constant."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from torch import Tensor, fx, nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import kind_of, signature
from mofa_compiler.analysis.nodes import GUARDS, function_name, is_plain, path_of
from mofa_compiler.rewriting import Fate, Rewiring, Skip

_ADDING = frozenset(["add", "iadd"])
_SCALING = frozenset(["mul", "imul"])
_SAME_SIZE = frozenset(["activation", "norm", "identity"])


@dataclass(frozen=True)
class Cuts:
    """Where a graph can be cut.

    Attributes:
        facts: what is constant.
        nodes: the values that become constants, in execution order.
        alive: all that is still computed then.
        refused: values that are as constant, and why they stay.
    """

    facts: weights.Facts
    nodes: tuple[fx.Node, ...]
    alive: AbstractSet[fx.Node]
    refused: dict[fx.Node, Skip] = field(default_factory=dict)


def find_cuts(
    wiring: Rewiring, graph: fx.Graph, facts: weights.Facts, ends: Collection[str], looks_at: Callable[[str], bool]
) -> Cuts:
    """The last constant values before something that is none, where that spares a layer.

    `ends` are the network's input and output convolutions, which stay.
    """
    cut = {node for node, fact in facts.items() if not fact.isnan().any() and looks_at(place(node))}
    every, refused = _alive(graph, ()), dict[fx.Node, Skip]()
    while True:
        alive = _alive(graph, cut)
        last = [node for node in graph.nodes if node in cut and any(user in alive for user in node.users)]
        for node in last:
            why = _stays(wiring, node, facts[node], alive, ends, every)
            if why is not None:
                cut.discard(node)
                if why.code != "done":
                    refused[node] = why
                break
        else:
            return Cuts(facts, tuple(last), alive, refused)


def place(node: fx.Node) -> str:
    """The path that a value is told of at."""
    return str(node.target) if node.op == "call_module" else path_of(node) or node.name


def _alive(graph: fx.Graph, cut: Collection[fx.Node]) -> set[fx.Node]:
    """What is computed, directly or not, for the output, or changes something in place."""
    found: set[fx.Node] = set()
    pending = [node for node in graph.nodes if node.op == "placeholder" or not node.users]
    pending = [node for node in pending if node.target not in GUARDS]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += [source for source in node.all_input_nodes if source not in cut]
    return found


def _upstream(node: fx.Node, alive: AbstractSet[fx.Node]) -> Iterator[fx.Node]:
    """What is computed for a value alone, itself included."""
    seen, pending = set(alive), [node]
    while pending:
        one = pending.pop()
        if one not in seen:
            seen.add(one)
            yield one
            pending += one.all_input_nodes


def _stays(
    wiring: Rewiring,
    node: fx.Node,
    fact: Tensor,
    alive: AbstractSet[fx.Node],
    ends: Collection[str],
    every: Collection[fx.Node],
) -> Skip | None:
    """Why a constant value goes on being computed."""
    gone = [str(one.target) for one in _upstream(node, alive) if one.op == "call_module"]
    spared = sum(parameter.numel() for path in gone for parameter in wiring.modules[path].parameters())
    if not spared:
        return Skip("done", "nothing is spared")
    if end := next((path for path in gone if path in ends), None):
        return Skip("input", f"{end} is the network's input or output convolution")
    for user in node.users:
        if user.op == "output":
            return Skip("stream", "is what the network returns")
        if user in alive and not _joins(user, node):
            found = _like(wiring, node, alive)
            if found is None:
                why = f"its size, which {user.name} needs, has no simple relation to that of what is left"
                return Skip("between", why)
            if sum(parameter.numel() for parameter in _image_of(node, fact, *found).parameters()) >= spared:
                return Skip("done", "nothing is spared")
    return None


def _image_of(
    node: fx.Node, fact: Tensor, source: fx.Node, start: Sequence[int], step: Sequence[int], trained: bool = False
) -> nn.Conv2d:
    """A convolution without any weight but its bias: constants at every pixel, where any engine computes the others."""
    width, channels = len(fact), source.meta["val"].shape[1]
    conv = nn.Conv2d(
        channels, width, (start[0] + 1, start[1] + 1), (step[0], step[1]), groups=math.gcd(channels, width)
    ).to(node.meta["val"].dtype)
    nn.init.zeros_(conv.weight).requires_grad_(False)
    conv.bias = nn.Parameter(fact.to(node.meta["val"].dtype), trained)
    return conv


def _joins(user: fx.Node, node: fx.Node) -> bool:
    """Whether a user adds a constant to, or multiplies it by, a value of the same size, so that its size is given."""
    name, others = function_name(user), [arg for arg in user.args if arg is not node]
    if user.op == "call_module" or len(others) != 1 or len(user.args) != 2 or user.kwargs:
        return False
    other = others[0]
    if not isinstance(other, fx.Node) or not isinstance(other.meta.get("val"), Tensor):
        return False
    same = other.meta["val"].shape == user.meta["val"].shape
    return bool(same) and name in (*_ADDING, *_SCALING)


def _like(
    wiring: Rewiring, node: fx.Node, alive: AbstractSet[fx.Node]
) -> tuple[fx.Node, Sequence[int], Sequence[int]] | None:
    """A value that is still computed, and the first row and column, and the steps, of as many of its pixels.

    None where a layer in between makes another size of it.
    """
    strided: list[tuple[list[int], tuple[int, ...]]] = []
    while node not in alive:
        images = [one for one in node.all_input_nodes if _is_image(one)]
        module = wiring.module(node)
        if is_plain(module, nn.Conv2d):
            first = _first(module)
            if min(first) < 0:
                return None
            strided.append((first, module.stride))
        else:
            images = [one for one in images if one.meta["val"].shape[2:] == node.meta["val"].shape[2:]]
            if kind_of(node, wiring.modules) not in _SAME_SIZE and function_name(node) not in (*_ADDING, *_SCALING):
                return None
        if not images:
            return None
        node = images[0]
    start, step = [0, 0], [1, 1]
    for first, stride in reversed(strided):
        start = [one + by * more for one, by, more in zip(start, step, first, strict=True)]
        step = [by * more for by, more in zip(step, stride, strict=True)]
    return node, start, step


def _is_image(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dim() == 4 and node.op != "get_attr"


def _first(conv: nn.Conv2d) -> list[int]:
    """The first row and column of the pixels that, a stride apart, are as many as a convolution makes, at any size."""
    spans = [dilation * (size - 1) for size, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]
    around = conv.padding if not isinstance(conv.padding, str) else None
    added = [2 * one for one in around] if around else spans if conv.padding == "same" else [0, 0]
    return [span - padding for span, padding in zip(spans, added, strict=True)]


def cut(wiring: Rewiring, cuts: Cuts, because: str) -> None:
    """Put constants in the place of values, and take away all that was computed for these alone."""
    for node in cuts.nodes:
        if node._erased:
            continue
        fact, path, before = cuts.facts[node], place(node), described(wiring, node)
        what = called(wiring, _upstream(node, cuts.alive))
        trained = any(named[1].requires_grad for named in wiring.named(what))
        constant = _Constant(wiring, node, fact, trained, cuts.alive)
        after = constant.replace()
        released = release(wiring, what, f"works for {path} alone, which is constant", path)
        wiring.tell(path, before, after, Fate.REMOVED if released else Fate.INHERITED, note=because)
        if constant.added is not None:
            wiring.tell(constant.added, "", f"{len(fact)} constants", Fate.INHERITED, note=f"what {path} was")


def called(wiring: Rewiring, nodes: Iterable[fx.Node]) -> dict[str, str]:
    """What nodes call and read, by path, in execution order, in a few words."""
    paths = [str(node.target) for node in nodes if node.op in ("call_module", "get_attr")]
    return {path: _named(wiring, path) for path in reversed(dict.fromkeys(paths))}


def release(wiring: Rewiring, what: Mapping[str, str], note: str, last: str = "") -> bool:
    """Take away what is no longer called, as `called` gave it, and tell so; but for `last`: returns whether it went."""
    released = [path for path in what if wiring.release(path)]
    for path in released:
        if path != last:
            wiring.tell(path, what[path], "", Fate.REMOVED, note=note)
    return last in released


def pass_on(wiring: Rewiring, node: fx.Node, value: fx.Node) -> None:
    """Let what reads a node read a value that it was made from; what was computed for it alone goes."""
    new = value
    if wiring.overwritten(node) and (len(value.users) > 1 or value.op == "placeholder"):
        with wiring.at(node):
            new = wiring.method("clone", value)  # which may be written into
    node.replace_all_uses_with(new)
    wiring.erase(node)


def described(wiring: Rewiring, node: fx.Node) -> str:
    """What a node calls, in a few words."""
    module = wiring.module(node)
    return signature(module) if module is not None else f"{function_name(node)}()"


def _named(wiring: Rewiring, path: str) -> str:
    return wiring.describe(path) if path in wiring.modules else path.rpartition(".")[2]


class _Constant:
    """One constant value, put into each of its readers."""

    def __init__(self, wiring: Rewiring, node: fx.Node, fact: Tensor, trained: bool, alive: AbstractSet[fx.Node]):
        self.wiring, self.node, self.fact, self.trained, self.alive = wiring, node, fact, trained, alive
        called = node.op == "call_module"
        owner = str(node.target).rpartition(".")[0] if called else path_of(node)
        last = str(node.target).rpartition(".")[2] if called else node.name
        self.name = f"{owner}.{last}" if owner else last
        self.added: str | None = None
        """The path of a parameter with the constants"""
        self._whole: fx.Node | None = None

    def replace(self) -> str:
        """Returns what stands there now, in a few words."""
        for user in list(self.node.users):
            if user not in self.alive:
                continue
            if _joins(user, self.node):
                self._join(user)
            else:
                user.replace_input_with(self.node, self._image())
        self.wiring.erase(*_ends(list(self.node.users)), self.node)
        return "constant" if bool(self.fact.any()) else "zero"

    def _join(self, user: fx.Node) -> None:
        """Let a sum or product be one with a constant for every channel; nothing is added where that is zero."""
        other = next(arg for arg in user.args if arg is not self.node)
        assert isinstance(other, fx.Node)
        adding = function_name(user) in _ADDING
        if not adding or (bool(self.fact.any()) and not self._in_bias(user, other)):
            with self.wiring.at(user):
                new = self.wiring.call(operator.add if adding else operator.mul, other, self._read())
                new.meta |= {"origin": user.meta["origin"], "selection": user.meta.get("selection")}
        else:
            pass_on(self.wiring, user, other)
            return
        user.replace_all_uses_with(new)
        self.wiring.erase(user)

    def _in_bias(self, user: fx.Node, other: fx.Node) -> bool:
        """Whether the convolution that makes the other summand took it into its bias."""
        module, path = self.wiring.module(other), str(other.target)
        anatomy = self.wiring.network.anatomy
        ends = anatomy.input_paths | anatomy.output_paths
        if not is_plain(module, nn.Conv2d, nn.ConvTranspose2d) or list(other.users) != [user] or path in ends:
            return False
        if self.wiring.fixed(path) is not None or module.weight.is_complex():
            return False
        before, new = self.wiring.describe(path), self.wiring.exactly(path)
        weights.add_bias(new, self.fact.to(new.weight.device))
        self.wiring.put(path, new)
        self.wiring.tell(
            path, before, self.wiring.describe(path), Fate.COMPENSATED, note=f"adds what {place(self.node)} was"
        )
        return True

    def _read(self) -> fx.Node:
        """A new node with the constants, (1, C, 1, 1)."""
        if self.added is None:
            self.added = f"{self.name}_constant"
            held = self.fact.to(self.wiring.network.program.device, self.node.meta["val"].dtype)
            self.wiring.put_tensor(self.added, nn.Parameter(held.view(1, -1, 1, 1), self.trained))
        return self.wiring.read(self.added)

    def _image(self) -> fx.Node:
        """A new node with the constants at every pixel, of the size that the value had."""
        if self._whole is None:
            found = _like(self.wiring, self.node, self.alive)
            assert found is not None
            program, path = self.wiring.network.program, f"{self.name}_image"
            conv = _image_of(self.node, self.fact, *found, self.trained)
            self.wiring.add(path, conv.to(program.device).train(program.training))
            with self.wiring.at(self.node):
                self._whole = self.wiring.call(path, found[0])
            self.wiring.tell(path, "", self.wiring.describe(path), Fate.INHERITED, note="makes the constant image")
        return self._whole


def _ends(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Of nodes that nothing needs, those at the end of what is computed from them, that nothing reads."""
    found, pending, seen = list[fx.Node](), list(nodes), set[fx.Node]()
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending += node.users
            found += [] if node.users else [node]
    return found
