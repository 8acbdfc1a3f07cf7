"""What the deployment benchmark times: the networks, and every way in which each of them is rewritten."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from architectures import PMRID, NAFNet
from architectures.nafnet import LayerNorm2d
from mofa_compiler import Roadmap, apply, capture
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network, Totals
from mofa_compiler.autotune import Decisions
from mofa_compiler.autotune.search import LOWERED
from mofa_compiler.base.errors import MofaError
from mofa_compiler.passes import LowerPConv, PConvToPDWConv
from mofa_compiler.rewriting.pass_api import Phase
from tests.paper_rows import PCONV, wide

IDENTITY = "identity-kernels"
"""The form of `lower-pconv` that the issue's table has"""

ORIGINAL = "original"
LIMIT = "the original without its stride-1 depthwise convolutions (limit)"
AUTHORS = "the authors' final network"
OURS = "ours: preset `mofa`, decided on this engine"
ALONE = "the exact lowerings of that alone"


@dataclass(frozen=True)
class Subject:
    """A network of the benchmark.

    Attributes:
        make: makes it, in eval mode, with the same weights each time.
        preset: what the paper's authors did to it.
        threshold: d·p above which they made partial convolutions depthwise.
    """

    make: Callable[[], nn.Module]
    preset: str
    threshold: int


@dataclass(frozen=True)
class Variant:
    """One network to be timed, or why there is none.

    Attributes:
        name: what it is; the same for all subjects.
        module: the network in eval mode.
        totals: its parameters and MACs for the benchmark's input.
        problem: why it cannot be had; empty where there is a module.
    """

    name: str
    module: nn.Module | None = None
    totals: Totals | None = None
    problem: str = ""


def _pmrid() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = PMRID()
    return network.eval()


def _nafnet() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = NAFNet()
    return network.eval()


def _nafnet_without_norm() -> nn.Module:
    network = _nafnet()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, LayerNorm2d):
                setattr(module, name, nn.Identity())
    return network


SUBJECTS: Mapping[str, Mapping[str, Subject]] = {
    "PMRID": {"PMRID": Subject(_pmrid, "paper-pmrid", 32)},
    "NAFNet": {
        "NAFNet": Subject(_nafnet, "paper-nafnet", 16),
        "NAFNet without LayerNorm": Subject(_nafnet_without_norm, "paper-nafnet", 16),
    },
}
"""By what `--models` names; the issue's table has NAFNet without its normalizations"""


def without_depthwise(network: Network) -> Network:
    """The network with its stride-1 depthwise convolutions taken out, for its time alone."""
    modules = dict(network.program.modules)
    for path, layer in network.layers.items():
        if layer.is_depthwise and layer.stride == (1, 1) and layer.input_shape == layer.output_shape:
            modules[path] = nn.Identity()
    return Network(replace(network.program, modules=modules), network.anatomy)


def fixed(subject: Subject, x: Tensor) -> list[Variant]:
    """The original, its limit, and what the paper does to it: the same for every engine."""
    original = subject.make()
    program = capture(original, x)
    network = Network(program, infer(program))
    bare = without_depthwise(network)
    everywhere = (*wide("middle", "cheap"), PConvToPDWConv(threshold=0))
    steps = {
        AUTHORS: lambda: Roadmap.load(subject.preset),
        "sepconv → PConv": lambda: Roadmap(PCONV),
        "full roadmap without resampling": lambda: Roadmap(
            [*wide("middle", "cheap"), PConvToPDWConv(threshold=subject.threshold)]
        ),
        "PDWConv everywhere (threshold 0)": lambda: Roadmap(everywhere),
        "… the same with identity kernels": lambda: Roadmap([*everywhere, LowerPConv(form=IDENTITY)]),
    }
    return [
        Variant(ORIGINAL, original, network.totals),
        Variant(LIMIT, bare.program.graph_module.eval(), bare.totals),
        *(_rewritten(name, original, roadmap, x) for name, roadmap in steps.items()),
    ]


def decided(subject: Subject, engine: str, threads: int, x: Tensor) -> tuple[list[Variant], Decisions | None]:
    """Our network for an engine, the same with nothing but its exact lowerings, and the decisions behind them."""
    original = subject.make()
    try:
        result = apply(original, Roadmap.load("mofa").with_target(engine, threads=threads), x)
    except MofaError as error:
        return [Variant(name, problem=str(error)) for name in (OURS, ALONE)], None
    found = [Variant(OURS, result.model.eval(), result.after)]
    decisions = result.decisions
    assert decisions is not None
    exact = [pass_ for pass_ in result.roadmap if pass_.phase is Phase.LOWER and not pass_.per_layer]
    compared = next((one for one in decisions.networks if one.name == LOWERED), None)
    if compared is None:
        found.append(Variant(ALONE, problem="none of them made the original faster"))
    elif not exact:
        measured = f"{compared.ratio:.2f} ({compared.interval[0]:.2f} to {compared.interval[1]:.2f})"
        found.append(Variant(ALONE, problem=f"not kept: {measured} of the original's time when that was decided"))
    elif len(exact) == len(result.roadmap):
        found.append(Variant(ALONE, problem="that is our network"))
    else:
        found.append(_rewritten(ALONE, original, lambda: Roadmap(exact), x))
    return found, decisions


def macs(module: nn.Module, x: Tensor) -> int:
    """MACs of a network, counted as those of all variants are; no activation is computed."""
    program = capture(module, x)
    return Network(program, infer(program)).totals.macs


def _rewritten(name: str, original: nn.Module, roadmap: Callable[[], Roadmap], x: Tensor) -> Variant:
    try:
        result = apply(original, roadmap(), x)
    except MofaError as error:
        return Variant(name, problem=str(error))
    return Variant(name, result.model.eval(), result.after)


def subjects(models: Sequence[str]) -> dict[str, Subject]:
    """The networks of these models, by name."""
    return {name: subject for model in models for name, subject in SUBJECTS[model].items()}
