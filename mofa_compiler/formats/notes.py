"""What is remarkable about an exported file: what its target is known to run slowly, or not as one may think."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from torch import fx, nn

from .base import Source, Use, module_stack, operator_calls, operator_name
from .executorch import PORTABLE
from .observing import Observed

_SHOWN = 3
_PARTIAL = ("PConv2d", "PDWConv2d")
_SPLITS = ("split", "split_with_sizes", "slice.Tensor", "narrow", "chunk")


def notes(source: Source, seen: Observed, uses: Sequence[Use]) -> list[str]:
    """Sentences, the weightiest first."""
    found = [*_portable(uses), *_autograd(seen, uses)]
    if source.program is not None:
        calls = operator_calls(source.program.graph)
        found += [*_partial(calls), *_shuffled(calls, uses)]
        if any("pad" in use.kind.lower() for use in uses):  # some exporters drop what does nothing
            found += _padding(calls)
    else:
        found += _partial_modules(source.module)
    return found


def _portable(uses: Sequence[Use]) -> Iterable[str]:
    """Operators that XNNPACK left to the portable kernels, one sentence a kind."""
    kinds = Counter(use.kind for use in uses if use.backend == PORTABLE)
    for kind, count in kinds.most_common():
        layers = [use.layer for use in uses if use.kind == kind and use.backend == PORTABLE]
        yield f"not delegated to XNNPACK: {kind} ({count}), left to an unoptimized portable kernel, in {where(layers)}"


def _autograd(seen: Observed, uses: Sequence[Use]) -> Iterable[str]:
    for name, paths in seen.autograd.items():
        inside = Counter(use.kind for use in uses if use.layer in paths)
        made = f": {', '.join(f'{kind} ({count})' for kind, count in inside.most_common())}" if inside else ""
        yield f"{name} is a custom autograd function, in {where(paths)}: exported as its forward pass, traced{made}"


def _partial(calls: Sequence[fx.Node]) -> Iterable[str]:
    """Splits and concatenations that partial convolutions brought along."""
    counts: Counter[str] = Counter()
    layers: list[str] = []
    for node in calls:
        kind = operator_name(node).partition(".")[0]
        inside = next((path for path, name in module_stack(node) if name in _PARTIAL), None)
        if inside is None or kind not in ("cat", *(one.partition(".")[0] for one in _SPLITS)):
            continue
        counts["cat" if kind == "cat" else "split"] += 1
        if inside not in layers:
            layers.append(inside)
    if counts:
        made = " and ".join(f"{counts[kind]} {kind}" for kind in ("split", "cat") if counts[kind])
        yield f"{made} from partial convolutions copy memory on most engines, in {where(layers)}"


def _partial_modules(module: nn.Module) -> Iterable[str]:
    layers = [
        path
        for path, inner in module.named_modules()
        if type(inner).__name__ in _PARTIAL and getattr(inner, "convolved", 0) < getattr(inner, "channels", 0)
    ]
    if layers:
        yield (
            f"{len(layers)} split and {len(layers)} cat from partial convolutions copy memory on most engines, in "
            f"{where(layers)}"
        )


def _shuffled(calls: Sequence[fx.Node], uses: Sequence[Use]) -> Iterable[str]:
    """Pixel shuffles for which the format has no operator of its own."""
    shuffles = [node for node in calls if operator_name(node) in ("pixel_shuffle", "pixel_unshuffle")]
    if shuffles and any("permute" in use.kind for use in uses):
        yield (
            f"{len(shuffles)} pixel (un)shuffle run as reshapes and a permutation, which copy memory, in "
            f"{where(_layers(shuffles))}: pass lower-shuffle makes one with the 1x1 convolution before it a transposed "
            "convolution"
        )


def _padding(calls: Sequence[fx.Node]) -> Iterable[str]:
    pads = [node for node in calls if operator_name(node) in ("pad", "constant_pad_nd")]
    computed = [node for node in pads if any(isinstance(size, fx.Node) for size in _amounts(node))]
    if computed:
        yield (
            f"padding computed from the input's size ({len(computed)}), in {where(_layers(computed))}: engines cannot "
            "plan for it"
        )
    idle = [node for node in pads if not any(_amounts(node))]
    if idle:
        yield f"padding by nothing at this size ({len(idle)}), in {where(_layers(idle))}: some engines copy it all"


def _amounts(node: fx.Node) -> list[object]:
    amounts = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad", ())
    return list(amounts) if isinstance(amounts, (list, tuple)) else []


def _layers(nodes: Iterable[fx.Node]) -> list[str]:
    return [stack[-1][0] if (stack := module_stack(node)) else "" for node in nodes]


def where(layers: Iterable[str | None]) -> str:
    """The first few of these paths, and how many more there are."""
    paths = list(dict.fromkeys(path or "the network's own forward" for path in layers))
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
