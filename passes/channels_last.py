"""Keep images with the channels last in memory.

PyTorch's convolutions on a CPU, and those on tensor cores, work on (N, H, W, C); images that come in so stay so through
the whole network. Engines that lay memory out themselves do not care.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from mofa_compiler.analysis.nodes import describe
from mofa_compiler.rewriting import FROZEN, Fate, GraphLowering, Program, Rewiring, Skip, is_image


@dataclass(frozen=True, config=FROZEN)
class ChannelsLast(GraphLowering):
    """Convert the network's image inputs to the memory format `channels_last` once; outputs have it, too.

    For PyTorch's own engines. `layers` are globs over the names of inputs.
    """

    name: ClassVar[str] = "channels-last"
    after: ClassVar[tuple[str, ...]] = ("lower-layer-norm", "merge-linear", "lower-gates", "lower-shuffle")
    engines: ClassVar[tuple[str, ...]] = ("eager", "cuda")

    def rewire(self, wiring: Rewiring) -> None:
        images = [node for node in wiring.nodes if node.op == "placeholder" and is_image(node)]
        wanted = [node for node in images if self.looks_at(str(node.target)) and node.users and not _is_laid_out(node)]
        first = next(node for node in wiring.nodes if node.op != "placeholder")
        converted = []
        for image in wanted:
            with wiring.at(first):
                converted.append(wiring.method("contiguous", image, memory_format=torch.channels_last))
            image.replace_all_uses_with(converted[-1], delete_user_cb=lambda user: user not in converted)
        stuck = _stuck(wiring.finish().program) if wanted else ""
        for image, laid_out in zip(wanted, converted, strict=True):
            name, text = str(image.target), f"Tensor({', '.join(map(str, image.meta['val'].shape))})"
            if stuck:
                wiring.refuse(name, text, Skip("layout", f"{stuck} cannot read what comes to it then"))
                laid_out.replace_all_uses_with(image)
                wiring.erase(laid_out)
                continue
            note = "the same values in another order"
            wiring.tell(name, text, f"{text}, channels last", Fate.EXACT, error=0.0, note=note)


def _is_laid_out(image: fx.Node) -> bool:
    return any(user.kwargs.get("memory_format") is torch.channels_last for user in image.users)


def _stuck(program: Program) -> str:
    """The first thing that cannot be computed, in words: a view, say, that asks for another order in memory."""
    run = _Followed(copy.deepcopy(program.graph_module).eval())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        example = program.call.example(device=program.device)
        bound = inspect.signature(program.graph_module.forward).bind(*example.args, **example.kwargs)
        bound.apply_defaults()
        try:
            run.run(*bound.arguments.values())
        except Exception:  # whatever the network raises
            return describe(run.node)
    return ""


class _Followed(fx.Interpreter):
    """Remembers the node that it runs."""

    node: fx.Node

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.extra_traceback = False

    def run_node(self, node: fx.Node) -> Any:
        self.node = node
        return super().run_node(node)
