"""Passes told what values are like on calibration inputs, before anything is carried out."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from ..analysis.network import Network
from ..base.errors import RoadmapError
from ..base.progress import Progress
from ..base.torch_state import own_randomness
from ..graph.call_spec import CallSpec, map_tree
from ..graph.interpreter import Interpreter
from ..numerics.error_sums import Figures
from ..numerics.running import evaluating, rounding, run, values
from ..rewriting.engine import rewrite
from ..rewriting.pass_api import Pass
from ..rewriting.roadmap import Roadmap
from .batches import Batches, gather
from .lockstep import bound_arguments
from .settings import Calibration

EXPOSURES = (0.25, 0.5, 2.0)
"""By which every calibration input is also multiplied"""

NOISES = (0.05, 0.2)
"""Standard deviations, relative to that of the input, of noise that is also added to each"""


def informed(
    roadmap: Roadmap, network: Network, calibration: Calibration, tell: Progress
) -> tuple[Roadmap, Calibration]:
    """The roadmap with every pass told what it asks of values on calibration inputs, and the calibration, unspent.

    A pass sees what is fitted to, also at other exposures and with more noise. One that promises to keep the output
    goes without, with a warning, where on what is held out the network returns anything else, beyond rounding.

    Raises:
        CalibrationError: there are no inputs, or the network does not take them.
        RoadmapError: another pass comes before one that asks: what it sees would not be there any longer.
    """
    asking = [pass_ for pass_ in roadmap if type(pass_).informed is not Pass.informed]
    if not asking:
        return roadmap, calibration
    first = [type(pass_) for pass_ in roadmap.passes[: len(asking)]]
    if late := next((pass_ for pass_ in asking if type(pass_) not in first), None):
        raise RoadmapError(
            f"roadmap {roadmap.name!r}: {late.name} asks what values are like in the original, which "
            f"{roadmap.passes[0].name} has changed before: put {late.name} first",
            code="order",
        )
    if iter(calibration.batches) is calibration.batches:  # which can be gone through once
        calibration = replace(calibration, batches=list(calibration.batches))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mofa-calibration-")))
        stack.enter_context(evaluating(network.program.graph_module))
        like = next((t for t in network.program.state().values() if t.is_floating_point()), torch.empty(0))
        batches = gather(calibration.batches, network, folder, like, network.program.inputs)

        fitting, held_out = batches.apart()

        def watching(names: Collection[str], told: Callable[[str, Sequence[Any]], None]) -> None:
            watch(network, fitting, names, told, tell)

        passes = [_kept(network, pass_, pass_.informed(network, watching), held_out) for pass_ in roadmap]
    return Roadmap(passes, roadmap.name, roadmap.description, roadmap.target), calibration


def watch(
    network: Network,
    batches: Batches,
    names: Collection[str],
    told: Callable[[str, Sequence[Any]], None],
    tell: Progress,
) -> None:
    """Tell what nodes read on every input, as it is and in its `variations`."""

    class Watching(Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n.name in names:
                told(n.name, self.fetch_args_kwargs_from_env(n)[0])
            return super().run_node(n)

    module = network.program.graph_module
    watching = Watching(module, graph=network.program.graph)
    for index, call in enumerate(batches):
        tell("looking at values", index, len(batches))
        for one in variations(call):
            with torch.no_grad(), own_randomness():
                watching.run(*bound_arguments(module, one))


def variations(call: CallSpec) -> Iterator[CallSpec]:
    """The call itself, then with its images at other exposures, then with more noise."""
    generator = torch.Generator().manual_seed(0)

    def noisier(x: Tensor, noise: float) -> Tensor:
        drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        return x + noise * x.std() * drawn

    def changed(function: Callable[[Tensor], Tensor]) -> CallSpec:
        images = lambda x: function(x) if x.dim() == 4 and x.is_floating_point() else x.clone()  # noqa: E731
        args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, images)
        return CallSpec(args, kwargs)

    yield changed(Tensor.clone)
    for exposure in EXPOSURES:
        yield changed(lambda x, factor=exposure: x * factor)  # type: ignore[misc]
    for noise in NOISES:
        yield changed(lambda x, noise=noise: noisier(x, noise))  # type: ignore[misc]


def _kept(network: Network, pass_: Pass, informed: Pass, held_out: Batches) -> Pass:
    """The informed pass, unless it breaks its promise on what was held out."""
    if informed == pass_ or not pass_.keeps_output:
        return informed
    after, _ = rewrite(network, informed)
    figures = Figures()
    for call in held_out:
        one, other = (values("the network", run(n.program.graph_module, call)) for n in (network, after))
        figures.add(one, other)
    if figures.relative_error <= rounding(network.program):
        return informed
    warnings.warn(
        f"{pass_.name}: what was seen on calibration inputs does not hold on those that were held out, where the "
        f"output would change by {figures.relative_error:.2g} (relative): it goes by the weights alone",
        stacklevel=2,
    )
    return pass_
