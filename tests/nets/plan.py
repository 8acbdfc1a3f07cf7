"""What a generated network is made of, and the hypothesis strategy that draws it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from hypothesis import strategies as st
from torch import Tensor

# In every list the plainest kind comes first: hypothesis shrinks towards it.
DEPTHS = (1, 2, 3)
WIDTHS = (4, 8, 6, 5, 10, 7, 3, 12, 20)
GROWTHS = (2.0, 1.0, 1.5)
BLOCKS = (
    *("dense", "double", "separable", "separable-norm", "inverted", "inverted-se", "gated", "residual", "chain"),
    *("convnext", "dilated", "grouped", "tokens", "windows", "recurrent", "growing", "ghost", "oblong", "shuffled"),
    *("pyramid", "large", "even", "functional", "wise", "preact"),
)
NORMS = ("none", "batch", "group", "instance", "layer", "layer-function", "batch-act", "frozen")
ACTIVATIONS = ("relu", "relu_", "relu6", "gelu", "leaky", "leaky_", "silu", "hardswish_", "prelu", "function", "method")
DOWNS = (
    *("max", "conv2", "conv3", "conv4", "conv5", "separable", "average", "adaptive", "unshuffle", "blur", "half"),
    *("slices", "pointwise", "grouped"),
)
UPS = (
    *("transposed2", "transposed4", "transposed3", "shuffle1", "shuffle3", "shuffle-act", "bilinear", "nearest1"),
    *("nearest3", "size", "factor", "late", "bare", "grouped", "aligned", "output-size", "module-size"),
)
SKIPS = ("cat", "add", "both", "multiply", "gate", "refined")
PADDINGS = ("zeros", "same", "reflect", "replicate", "circular", "explicit")
SHARINGS = ("none", "twice", "alias", "across", "ups")
NESTINGS = ("lists", "sequential", "flat", "dict", "encoder-list", "encoder-dict", "recursive")
SIZES = ("multiple", "pad", "pad-if", "pad-while", "pad-ceil", "pad-write", "assert", "crop", "fit", "resize")
INPUTS = ("image", "condition", "level", "both")
OUTPUTS = ("one", "tuple", "dict", "list", "deep", "named", "dataclass")
CHECKPOINTS = ("none", "reentrant", "saved")

FREE_SIZES = ("crop", "fit", "resize")
"""Ways of merging that take any size"""

WHOLE_DOWNS = ("unshuffle", "slices")
"""Downsamplings that need a multiple"""


@dataclass(frozen=True, repr=False)
class Plan:
    """What a generated network is made of; the defaults are a plain U-Net.

    Its repr names what differs from that, and in a failing example is enough to build the network again.
    """

    depth: int = 1
    factor: int = 2
    """By which a level is smaller than the one above; 4 only at depth 1, so that some size is left"""
    width: int = 4
    growth: float = 2.0
    block: str = "dense"
    right: str = "dense"
    """The decoder's blocks"""
    norm: str = "none"
    activation: str = "relu"
    down: str = "max"
    up: str = "transposed2"
    skip: str = "cat"
    skipless: bool = False
    """Whether the deepest level has no skip"""
    padding: str = "zeros"
    bias: bool = True
    sharing: str = "none"
    nesting: str = "lists"
    size: str = "multiple"
    odd_first: bool = False
    """Whether the example, rather than the other size, is no multiple"""
    inputs: str = "image"
    outputs: str = "one"
    residual: bool = False
    in_place: bool = False
    stochastic: bool = False
    """Whether the bottleneck has a stochastic depth, a branch on `self.training`"""
    checkpoint: str = "none"
    training: bool = False

    def __repr__(self) -> str:
        said = (f for f in fields(self) if getattr(self, f.name) != f.default)
        return f"Plan({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in said)})"

    @property
    def ratio(self) -> int:
        """By which one level is smaller than the one above."""
        return self.factor if self.depth == 1 else 2

    @property
    def multiple(self) -> int:
        return self.ratio**self.depth

    @property
    def widths(self) -> list[int]:
        """Channels of each level, the deepest one last."""
        return [int(self.width * self.growth**level) for level in range(self.depth + 1)]

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the example, and another size."""
        takes_odd = self.size.startswith("pad") or (self.size in FREE_SIZES and self.down not in WHOLE_DOWNS)
        if not takes_odd:
            return (32, 48), (24, 40)
        return ((29, 43), (40, 24)) if self.odd_first else ((32, 48), (27, 37))

    def example(self, batch: int, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Inputs: an image (N, 3, H, W), and where the plan says so a map (N, 1, H, W) and a noise level (N)."""
        image, side = torch.rand(batch, 3, *size, dtype=dtype), torch.rand(batch, 1, *size, dtype=dtype)
        level = torch.rand(batch, dtype=dtype)
        return {"image": (image,), "condition": (image, side), "level": (image, level), "both": (image, side, level)}[
            self.inputs
        ]


def _one_of(kinds: tuple[object, ...]) -> st.SearchStrategy[object]:
    return st.sampled_from(kinds)


plans: st.SearchStrategy[Plan] = st.builds(
    Plan,
    depth=_one_of(DEPTHS),
    factor=_one_of((2, 4)),
    width=_one_of(WIDTHS),
    growth=_one_of(GROWTHS),
    block=_one_of(BLOCKS),
    right=_one_of(BLOCKS),
    norm=_one_of(NORMS),
    activation=_one_of(ACTIVATIONS),
    down=_one_of(DOWNS),
    up=_one_of(UPS),
    skip=_one_of(SKIPS),
    skipless=st.booleans(),
    padding=_one_of(PADDINGS),
    bias=st.booleans().map(lambda drawn: not drawn),
    sharing=_one_of(SHARINGS),
    nesting=_one_of(NESTINGS),
    size=_one_of(SIZES),
    odd_first=st.booleans(),
    inputs=_one_of(INPUTS),
    outputs=_one_of(OUTPUTS),
    residual=st.booleans(),
    in_place=st.booleans(),
    stochastic=st.booleans(),
    checkpoint=_one_of(CHECKPOINTS),
    training=st.booleans(),
)
