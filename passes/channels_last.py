"""Keep images with the channels last in memory.

PyTorch's convolutions on a CPU, and those on tensor cores, work on (N, H, W, C); images that come in so stay so through
the whole network. Engines that lay memory out themselves do not care.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import fx

from mofa_compiler.lowering import GraphLowering, Rewiring, is_image
from mofa_compiler.options import FROZEN
from mofa_compiler.tracing.naming import describe


@dataclass(frozen=True, config=FROZEN)
class ChannelsLast(GraphLowering):
    """Convert the network's image inputs to the memory format `channels_last` once; outputs have it, too.

    For PyTorch's own engines. `layers` are globs over the names of inputs.
    """

    name: ClassVar[str] = "channels-last"
    after: ClassVar[tuple[str, ...]] = ("lower-layer-norm", "merge-linear", "lower-gates", "lower-shuffle")

    def rewire(self, wiring: Rewiring) -> None:
        for node in wiring.nodes:
            if node.op == "placeholder" and is_image(node) and self.looks_at(str(node.target)):
                _convert(wiring, node)


def _convert(wiring: Rewiring, image: fx.Node) -> None:
    name, users = str(image.target), list(image.users)
    text = f"Tensor({', '.join(map(str, image.meta['val'].shape))})"
    if not users or any(user.kwargs.get("memory_format") is torch.channels_last for user in users):
        return
    with wiring.at(next(node for node in wiring.nodes if node.op != "placeholder")):
        laid_out = wiring.method("contiguous", image, memory_format=torch.channels_last)
    image.replace_all_uses_with(laid_out, delete_user_cb=lambda user: user is not laid_out)
    if (stuck := wiring.revalue_all()) is not None:
        wiring.refuse(name, text, f"{describe(stuck)} cannot read what comes to it then")
        laid_out.replace_all_uses_with(image)
        wiring.erase(laid_out)
        return
    wiring.tell(name, text, f"{text}, channels last", "exact", error=0.0, note="the same values in another order")
