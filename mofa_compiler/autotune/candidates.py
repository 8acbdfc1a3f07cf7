"""What a layer could become: short lists of passes for it alone."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from graphlib import TopologicalSorter
from typing import Any

from ..rewriting.pass_api import Lowering, Pass
from ..rewriting.registry import available
from ..rewriting.roadmap import Roadmap

ORIGINAL = "original"

FORMS = "lower-pconv"
"""The pass that gives partial convolutions the form that an engine runs best"""

ONLY_ON = {"in-place": ("eager", "channels-last"), "fused": ("cuda",), "channels-last": ("eager", "cuda")}
"""Forms and exact passes that can make a difference on these engines alone"""


@dataclass(frozen=True)
class Candidate:
    """Passes that are carried out one after the other on a layer, and a name for them."""

    name: str
    passes: tuple[Pass, ...] = ()

    def at(self, paths: Iterable[str]) -> list[Pass]:
        """The passes for these layers, and for what earlier ones put below them."""
        globs = tuple(dict.fromkeys(glob for path in paths for glob in (path, f"{path}.*")))
        return [replace(pass_, layers=globs) for pass_ in self.passes]


def candidates(roadmap: Roadmap, *, removing: bool = False) -> list[Candidate]:
    """Everything that a roadmap's passes, and those that are always offered, could make of one layer.

    Most of it does not fit a given layer: a pass then refuses, or changes nothing.

    Args:
        roadmap: its passes, with their options, are what is tried.
        removing: whether a spatial convolution may go altogether, for a bound on the loss to decide.
    """
    by_name = {pass_.name: pass_ for pass_ in roadmap}
    known = available()
    found = [Candidate(ORIGINAL)]

    def offered(name: str, **options: Any) -> Iterator[Pass]:
        given = by_name.get(name)
        if given is not None:
            yield replace(given, **options) if options else given
        elif name in known:
            yield known[name](**options)

    shrink = tuple(offered("shrink-kernels"))
    mixed = tuple(offered("pointwise-first"))
    found += [_named(shrink), _named(mixed), _named((*mixed, *shrink))]
    if removing and mixed:
        found.append(Candidate("pointwise alone", tuple(offered("pointwise-first", contraction=1e-9, spatial=False))))
    restored = tuple(one for one in roadmap if one.name == "restore-kernels")
    for base in ("sepconv-to-pconv", "decouple-upsampling", "decouple-downsampling"):
        if base not in by_name:
            continue
        for start in _kinds(by_name[base]):
            partial = getattr(start, "convolution", "pconv") == "pconv"
            if not partial:
                found.append(_named((start,)))
                continue
            mixing = [(start, *restored), *((start, wide, *restored) for wide in _widened(roadmap))]
            narrow = [pass_ for pass_ in roadmap if pass_.name == "pconv-to-pdwconv"][:1]
            depthwise = [replace(pass_, **_options(pass_, threshold=0)) for pass_ in narrow]
            found += [_named(passes) for passes in mixing]
            found += [_named((*passes, one)) for passes in mixing for one in depthwise]
    return _unique(found)


def formed(candidate: Candidate, roadmap: Roadmap, engine: str) -> list[Candidate]:
    """A candidate with a partial convolution, in every form that an engine could run it in but as it is."""
    kind = available().get(FORMS)
    partial = ("sepconv-to-pconv", "decouple-upsampling", "decouple-downsampling")
    if kind is None or not any(
        pass_.name in partial and getattr(pass_, "convolution", "pconv") == "pconv" for pass_ in candidate.passes
    ):
        return []
    given = next((pass_ for pass_ in roadmap if pass_.name == FORMS), None)
    if given is not None and getattr(given, "form", "auto") != "auto":
        return [_named((*candidate.passes, given))]
    names = _literals(typing.get_type_hints(kind)["form"])
    names = [name for name in names if name not in ("auto", "split-cat") and engine in ONLY_ON.get(name, (engine,))]
    return [_named((*candidate.passes, kind(**_options_of(kind, form=name)))) for name in names]


def _literals(hint: Any) -> list[str]:
    """All words that an annotation allows."""
    arguments = typing.get_args(hint)
    return [word for one in arguments for word in (_literals(one) if typing.get_args(one) else [str(one)])]


def lowerings(roadmap: Roadmap, engine: str) -> list[Pass]:
    """Exact passes that are tried on the whole network, one after the other: the roadmap's, then all others."""
    own: list[Pass] = [pass_ for pass_ in roadmap if isinstance(pass_, Lowering) and pass_.name != FORMS]
    names = {pass_.name for pass_ in own}
    others = {
        name: kind
        for name, kind in available().items()
        if issubclass(kind, Lowering) and name not in {*names, FORMS} and engine in ONLY_ON.get(name, (engine,))
    }
    before = {name: [earlier for earlier in kind.after if earlier in others] for name, kind in others.items()}
    return own + [others[name]() for name in TopologicalSorter(before).static_order()]


def merged(chosen: Mapping[Candidate, Iterable[str]], roadmap: Roadmap) -> list[Pass]:
    """One list of passes that makes of all layers what was chosen for each; in the order that roadmaps need."""
    paths: dict[Pass, list[str]] = {}
    for candidate, layers in chosen.items():
        for pass_ in candidate.passes:
            paths.setdefault(pass_, []).extend(layers)
    known = [pass_.name for pass_ in roadmap]
    order = {name: index for index, name in enumerate(dict.fromkeys(["pointwise-first", *_before_depthwise(known)]))}
    passes = sorted(paths, key=lambda pass_: (isinstance(pass_, Lowering), order.get(pass_.name, len(order))))
    return [one for pass_ in passes for one in Candidate("", (pass_,)).at(paths[pass_])]


def _before_depthwise(names: list[str]) -> list[str]:
    """A roadmap's order of passes, with kernels shrunk before partial convolutions become depthwise."""
    rest = [name for name in names if name not in ("pconv-to-pdwconv", "shrink-kernels")]
    return [*rest, "shrink-kernels", "pconv-to-pdwconv"]


def _kinds(pass_: Pass) -> list[Pass]:
    """A resampling pass with each kind of convolution that it knows; another pass as it is."""
    if not hasattr(pass_, "convolution"):
        return [pass_]
    return [replace(pass_, **_options(pass_, convolution=kind)) for kind in ("pconv", "separable", "dense")]


def _widened(roadmap: Roadmap) -> list[Pass]:
    """The roadmap's widenings, of any layer: time decides where, not the stage."""
    found = (replace(p, **_options(p, where=("*",))) for p in roadmap if p.name == "widen-portion")
    return list(dict.fromkeys(found))


def _options(pass_: Pass, **options: Any) -> dict[str, Any]:
    return _options_of(type(pass_), **options)


def _options_of(kind: type[Pass], **options: Any) -> dict[str, Any]:
    """Those of the options that a pass has; another package may provide one of the same name."""
    return {name: value for name, value in options.items() if name in {field.name for field in fields(kind)}}


def _named(passes: tuple[Pass, ...]) -> Candidate:
    parts = []
    for pass_ in passes:
        if pass_.name == "restore-kernels":
            continue
        detail = getattr(pass_, "convolution", None) or getattr(pass_, "form", None)
        parts.append(f"{pass_.name} ({detail})" if detail else pass_.name)
    return Candidate(" + ".join(parts), passes)


def _unique(found: Iterable[Candidate]) -> list[Candidate]:
    return list({candidate.passes: candidate for candidate in reversed(list(found))}.values())[::-1]
