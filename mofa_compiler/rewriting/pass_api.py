"""Passes, and the engine that carries one out.

A pass says which layers it rewrites (`match`) and what stands there afterwards (`build`). The engine does the rest:
it checks what the pass may not touch, puts the new modules into the graph, checks shapes and claims of exactness, and
writes the diff.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import Tensor, nn

from ..analysis.layers import Layer
from ..analysis.network import Network
from .fate import Fate

OTHER = "other"

Watch = Callable[[Collection[str], Callable[[str, Sequence[Any]], None]], None]
"""Runs a network on every calibration input, and tells what each of these nodes reads, by the node's name"""

SKIP_CODES: Mapping[str, str] = {
    OTHER: "a reason that was given without a code",
    # what no pass touches
    "input": "the input convolution, which only a roadmap that names it changes",
    "output": "the output convolution",
    "functional": "a convolution called in forward, whose weight belongs to no layer",
    "tied": "it, or what has to change with it, shares a parameter or is held under another name, too",
    "altered": "it has hooks, parametrized weights or replaced methods, which a new module would lose",
    "subclass": "its class is derived from one that is known, and may compute something else",
    "complex": "it has complex weights",
    "unbatched": "it reads (C, H, W), or something else that is no batch of images",
    # the layer by itself
    "grouped": "it is a grouped convolution",
    "pointwise": "it has a 1x1 kernel, where a larger one is needed",
    "kernel": "its kernel is not square, has no centre, or has another size than the pass takes",
    "padding": "its padding changes the size, or does not fit what it would be applied to",
    "resolution": "it changes the resolution, where it has to stay",
    "factor": "it enlarges or shrinks by no whole factor",
    "too-far": "it enlarges or shrinks by more at once than the pass takes",
    "not-enlarged": "it reads a tensor that is resized, but not enlarged",
    "geometry": "its stride, dilation, padding or call has no counterpart in what would replace it",
    "bias": "its bias has no counterpart in what would replace it",
    "one-channel": "it has a single channel",
    "all-channels": "it convolves all its channels, so that there is nothing to take apart",
    "mixing": "it mixes channels that would have to stay apart",
    "done": "it is already what the pass would make of it",
    # options of the pass, places in the network
    "place": "it is in none of the places that the pass is for",
    "no-unet": "the network is no U-Net, so that the stages that the pass is for do not exist",
    "threshold": "it is on the other side of a limit that an option sets",
    "stays": "the form that the pass would give it is the one that it has",
    # what is around it
    "no-neighbour": "there is no convolution of the right kind directly next to it",
    "neighbour": "the layer next to it is of a kind, or has a geometry, that the pass does not take",
    "neighbour-held": "the layer next to it is shared, hooked, or the network's first or last",
    "between": "something lies between it and the layer that it would be joined with",
    "taken": "the layer next to it goes to another one that is rewritten",
    "called-twice": "it, or what has to change with it, is called at several places",
    "read-elsewhere": "something else reads what it reads, what it makes, or its weights",
    "overwritten": "a value that it needs is changed in place",
    "memory": "what it reads may share memory with something else, or is the network's own input",
    "size-asked": "the network asks for the size of a value that would have another one, or be gone",
    "joined": "what it reads is joined with other channels first",
    "stream": "what it makes is added to, or joined with, what others make, and keeps its width",
    "parts": "what it makes is cut into parts, or joined with others, of which each goes its own way",
    # norms, scales and gates
    "training": "it is in training mode, where it normalizes every batch by its own statistics",
    "no-statistics": "it has no running statistics",
    "shift": "its shift cannot pass the layer behind it",
    "macs": "the result would take more MACs",
    "dimensions": "it normalizes other dimensions than the pass takes",
    "backward": "its backward pass is not the gradient of what it computes",
    "no-convolution": "what is split is not made by a convolution",
    "overlap": "its output is read in parts that overlap",
    "layout": "something behind it needs another order in memory",
    # calibration
    "no-counterpart": "nothing in the original network stands where its output could be compared",
    "worse": "fitting it made the output worse",
    "too-large": "it has more inputs than a fit in closed form takes",
    "no-scale": "it has no scale and shift to be fitted",
}
"""Every code that the passes and the calibration of this package give, and what it means"""


@dataclass(frozen=True)
class Match:
    """A pass will rewrite this layer; the note goes into the diff."""

    note: str = ""


@dataclass(frozen=True)
class Skip:
    """A layer of the right kind that a pass leaves alone, and why.

    Attributes:
        code: a word that programs compare and that stays; those of our passes are in `SKIP_CODES`.
        reason: the same for readers, in words that may change.

    `Skip("some reason")`, as passes wrote before there were codes, has the code `other`.
    """

    code: str = OTHER
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.reason:
            object.__setattr__(self, "reason", self.code)
            object.__setattr__(self, "code", OTHER)


def unknown_subclass(module: nn.Module, base: type[nn.Module]) -> Skip | None:
    """Why a module whose class is derived from `base` is left alone; None for one of `base` itself."""
    if type(module) is base:
        return None
    kind = f"is a {type(module).__name__}, a subclass of {base.__name__} whose behaviour is not known"
    return Skip("subclass", kind)


@dataclass(frozen=True)
class Moved:
    """A functional interpolation, to a size that the network computes, which goes from before a layer to behind it.

    Attributes:
        node: its name.
        like: an interpolation with the mode that it is to have there; the exactness of a move is checked with it.
    """

    node: str
    like: nn.Upsample


@dataclass(frozen=True)
class Replacement:
    """What stands where a matched layer stood.

    Attributes:
        module: the new module; a Sequential is spread into the graph, one node a child, `Branches` one node a call.
        fate: where its weights come from: exact, merged, inherited or fresh. Merged ones are given in float64: they are
            checked so, and rounded to the network's precision afterwards.
        exact: whether it computes what the old one did; checked in float64.
        reference: what it is checked against, where that is more than the old module alone.
        channels: of the tensor that `module` and `reference` read, where those are not the layer's.
        compensated: neighbours, by path, whose weights were adjusted so that the whole changes less.
        bypassed: nodes (resizes, pixel shuffles, neighbours that are part of `module`) that go, by name, nearest
            first.
        moved: a call from before the layer that is repeated behind `module`.
        stands_for: for a partial convolution, the depthwise one over all channels that it approximates in this place.
        note: what a reader of the diff should know.
    """

    module: nn.Module
    fate: Fate = Fate.INHERITED
    exact: bool = False
    reference: nn.Module | None = None
    channels: int | None = None
    compensated: Mapping[str, nn.Module] = field(default_factory=dict)
    bypassed: tuple[str, ...] = ()
    moved: Moved | None = None
    stands_for: nn.Conv2d | None = None
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fate", Fate(self.fate))  # a pass may give the word


@dataclass(frozen=True)
class Bypass:
    """A part of a network that can go by itself: what reads the value that it makes then reads what it was made of.

    Attributes:
        path: by which `layers` names it.
        what: the part, in words.
        source: the value that it is made of, by its name in the captured network.
        value: the one that it makes.
        gone: paths of the layers, and of other bypasses, that go with it.
        by: the pass that takes away whatever its `layers` name.
    """

    path: str
    what: str
    source: str
    value: str
    gone: tuple[str, ...]
    by: Pass


class Phase(IntEnum):
    """Where in a decided roadmap a pass belongs: a pass of a later phase works on whatever the earlier ones made."""

    PREPARE = 0
    """It computes the same, with more for others to choose from: before all others in any roadmap"""
    NARROW = 1
    """It takes away blocks, or channels that several layers share; a layer that it starts at is only lowered"""
    REPLACE = 2
    """It puts other layers where the original's stood"""
    REDUCE = 3
    """It takes away from what stands there: taps of a kernel, products between channels"""
    LOWER = 4
    """It computes the same in another form: behind calibration, and behind all others in any roadmap"""


@dataclass(frozen=True)
class Pass(ABC):
    """One rewrite. A subclass is a frozen dataclass whose fields are its options.

    `after` names passes that have to come earlier when a roadmap has both. What follows it is for roadmaps with a
    target, which are decided by measurement:

    - `phase`: where the pass belongs, and so which others it may follow on the same layer, next to those of `after`.
    - `engines`: names of those on which it can make a network faster; None: all.
    - `offered`: whether it is tried, with default options, where the roadmap does not name it.
    - `offered_under_bound`: the same, but only where a bound on the loss of quality picks.
    - `per_layer`: whether it is decided layer by layer, or else for the network as a whole.

    `keeps_output`: whether `informed` promises that the output on inputs like those that it saw stays as it is. Where
    it does not on inputs that were held out, the pass goes without what it saw.

    Options:
        layers: globs over paths: the pass looks at no other layer.
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    phase: ClassVar[Phase] = Phase.REPLACE
    engines: ClassVar[tuple[str, ...] | None] = None
    offered: ClassVar[bool] = False
    offered_under_bound: ClassVar[bool] = False
    per_layer: ClassVar[bool] = True
    keeps_output: ClassVar[bool] = False

    layers: tuple[str, ...] = field(default=("*",), kw_only=True)

    @abstractmethod
    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        """Whether to rewrite a layer: yes, no for a reason, or None where it is not this pass's kind."""

    @abstractmethod
    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        """What stands there instead; `modules` are the network's as they are by now, for neighbours' weights."""

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        """This pass with the options that are worth trying on a layer, for a roadmap with a target; by default its own.

        `match` is asked afterwards which of them fit.

        Args:
            bounded: whether a bound on the loss of quality picks among them. Otherwise the fastest is taken: then what
                may lose much is better left out.
        """
        return (self,)

    def reach(self, layer: Layer, network: Network) -> Collection[str]:
        """Paths of layers, farther off than those next to it, that take another time once this one is rewritten.

        A search times them together with it.
        """
        return ()

    def bypasses(self, network: Network) -> Sequence[Bypass]:
        """Parts of the network that go one by one, where a bound on the loss of quality picks; by default none."""
        return ()

    @classmethod
    def offer(cls) -> Pass:
        """The pass as it is tried where a roadmap does not name it; by default with its default options."""
        return cls()

    def informed(self, network: Network, watch: Watch) -> Pass:
        """This pass with what it has to know of values on calibration inputs among its options; by default itself.

        It is asked before anything is carried out, and what it finds goes into recipes as any other option does.
        """
        return self

    def pays_on(self, engine: str) -> bool:
        """Whether the pass, with these options, can make a network faster on an engine."""
        return self.engines is None or engine in self.engines

    @classmethod
    def example(cls) -> tuple[Pass, nn.Module, Tensor] | None:
        """This pass with its options, a model of which it has to rewrite something, and the image that the model takes.

        `mofa_compiler.testing.check_pass` goes over it. None: a test has the model.
        """
        return None

    @property
    def options(self) -> dict[str, Any]:
        """The options by name, as they go into a roadmap; `layers` only where it names some."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        layers = values.pop("layers")
        return values if layers == ("*",) else {**values, "layers": layers}

    def prepare(self, network: Network) -> None:  # noqa: B027 - most passes have nothing to check
        """Refuse a network that this pass makes no sense on, by an error that names the option at fault."""

    def looks_at(self, path: str) -> bool:
        """Whether `layers` names this path."""
        return path in self.layers or any(fnmatchcase(path, pattern) for pattern in self.layers)


class Lowering(Pass):
    """A promise: every edit is exact, a form of what was there that an engine runs faster.

    Lowerings come last in a roadmap, and are carried out after calibration: what is fitted to the original is what the
    passes before them made.
    """

    phase: ClassVar[Phase] = Phase.LOWER
    offered: ClassVar[bool] = True
    per_layer: ClassVar[bool] = False


class Preparation(Pass):
    """A promise: every edit is exact, and a node's value is what it was; what comes behind has more freedom.

    Preparations come first in a roadmap. To what they make of a network the others are fitted, and of it they are
    decided. One that finds nothing of its kind is left out of what was carried out.
    """

    phase: ClassVar[Phase] = Phase.PREPARE
    per_layer: ClassVar[bool] = False
