"""The generated network: levels, how they are nested, what goes in and what comes out."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .blocks import block
from .plan import Plan
from .resampling import Merge, Up, down, fitted


class Named(NamedTuple):
    sample: Tensor
    features: Tensor


@dataclass
class Output:
    sample: Tensor
    features: Tensor


class StochasticDepth(nn.Module):
    """A block that is left out at random in training."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x + self.body(x)
        kept = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.8)
        return x + kept.div_(0.8) * self.body(x)


class Modulation(nn.Module):
    """Scales and shifts (N, C, H, W) by a noise level (N)."""

    def __init__(self, channels: int, frequencies: int = 4):
        super().__init__()
        self.frequencies, self.project = frequencies, nn.Linear(2 * frequencies, 2 * channels)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        steps = torch.arange(self.frequencies, device=level.device, dtype=level.dtype)
        angles = level[:, None] * torch.exp(-math.log(100) * steps / self.frequencies)[None, :]
        scale, shift = self.project(torch.cat([angles.sin(), angles.cos()], dim=-1)).chunk(2, dim=1)
        return x * (1 + scale[..., None, None]) + shift[..., None, None]


class Levels:
    """Modules of several levels, registered on an owner in the way that a nesting style has it."""

    def __init__(self, owner: nn.Module, name: str, style: str, modules: Sequence[nn.Module]):
        self.name, self.style = name, style
        if style == "flat":
            for i, module in enumerate(modules):
                setattr(owner, f"{name}{i + 1}", module)
        elif style == "dict":
            setattr(owner, name, nn.ModuleDict({f"level{i}": module for i, module in enumerate(modules)}))
        else:
            setattr(owner, name, nn.ModuleList(modules))

    def of(self, owner: nn.Module, level: int) -> Any:
        if self.style == "flat":
            return getattr(owner, f"{self.name}{level + 1}")
        held = getattr(owner, self.name)
        return held[f"level{level}"] if self.style == "dict" else held[level]


class Encoder(nn.Module):
    """(N, C, H, W) → features, the finest first, as a list or a dict."""

    def __init__(self, plan: Plan, lefts: Sequence[nn.Module], downs: Sequence[nn.Module]):
        super().__init__()
        self.plan = plan
        style = "dict" if plan.nesting == "encoder-dict" else plan.nesting
        if style == "sequential":
            lefts = [nn.Sequential(nn.Sequential(left), nn.Identity()) for left in lefts]
        self.lefts, self.downs = Levels(self, "left", style, lefts), Levels(self, "down", style, downs)

    def forward(self, x: Tensor) -> Any:
        features = []
        for level in range(self.plan.depth):
            x = _called(self.plan, self.lefts.of(self, level), x)
            features.append(x)
            x = self.downs.of(self, level)(x)
        features.append(x)
        if self.plan.nesting == "encoder-dict":
            return OrderedDict((f"stage{i}", feature) for i, feature in enumerate(features))
        return features


class Decoder(nn.Module):
    """Features, the finest first → the decoder's, the finest last."""

    def __init__(self, plan: Plan, ups: Sequence[nn.Module], merges: Sequence[nn.Module], rights: Sequence[nn.Module]):
        super().__init__()
        self.plan = plan
        style = "dict" if plan.nesting == "encoder-dict" else plan.nesting
        self.ups, self.merges = Levels(self, "up", style, ups), Levels(self, "merge", style, merges)
        self.rights = Levels(self, "right", style, rights)

    def forward(self, *features: Tensor) -> list[Tensor]:
        *skips, x = features
        found = []
        for level, skip in reversed(list(enumerate(skips))):
            x = self.ups.of(self, level)(x, skip)
            x = self.merges.of(self, level)(x, skip)
            x = self.rights.of(self, level)(x)
            found.append(x)
        return found


class Nested(nn.Module):
    """One level with all the deeper ones inside."""

    def __init__(self, plan: Plan, left: nn.Module, lower: nn.Module, right: nn.Module, *around: nn.Module):
        super().__init__()
        self.plan = plan
        self.left, self.inner, self.right = left, lower, right
        self.down, self.up, self.merge = around

    def forward(self, x: Tensor) -> Tensor:
        skip = _called(self.plan, self.left, x)
        return self.right(self.merge(self.up(self.inner(self.down(skip)), skip), skip))


class Skipless(nn.Module):
    """In a merge's place where a level has no skip."""

    def __init__(self, plan: Plan, channels: int):
        super().__init__()
        self.size, self.merged = plan.size, channels

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return fitted(self.size, x, skip)


def _called(plan: Plan, module: nn.Module, x: Tensor) -> Tensor:
    if plan.checkpoint == "none":
        return module(x)
    return checkpoint(module, x, use_reentrant=plan.checkpoint == "reentrant")


class GeneratedUNet(nn.Module):
    """(N, 3, H, W) and what else `Plan.example` gives → what the plan's `outputs` says, of (N, 3, H, W)."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        widths, depth = plan.widths, plan.depth
        self.first = nn.Conv2d(4 if plan.inputs in ("condition", "both") else 3, widths[0], 3, padding=1)
        lefts = [block(plan, plan.block, width, width) for width in widths[:-1]]
        downs = [down(plan, *widths[level : level + 2]) for level in range(depth)]
        ups: list[nn.Module] = [Up(plan, widths[level + 1], widths[level]) for level in range(depth)]
        merges = [self._merge(level) for level in range(depth)]
        rights = [block(plan, plan.right, merge.merged, width) for merge, width in zip(merges, widths, strict=False)]
        self._share(lefts, rights, ups, merges)
        bottom = block(plan, plan.block, widths[-1], widths[-1])
        bottom = StochasticDepth(bottom) if plan.stochastic else bottom
        if plan.nesting == "recursive":
            body = bottom
            for level in reversed(range(depth)):
                around = downs[level], ups[level], merges[level]
                body = Nested(plan, lefts[level], body, rights[level], *around)
            self.body = body
        else:
            self.encoder, self.decoder = Encoder(plan, lefts, downs), Decoder(plan, ups, merges, rights)
            self.bottom = bottom
            if plan.sharing == "alias":
                self.again = bottom
        if plan.inputs in ("level", "both"):
            self.modulation = Modulation(widths[0])
        self.last = nn.Conv2d(widths[0], 3, 3, padding=1)
        if plan.outputs == "deep":
            shown = widths[:1] if plan.nesting == "recursive" else reversed(widths[:-1])
            self.heads = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in shown)

    def _merge(self, level: int) -> Merge | Skipless:
        width, last = self.plan.widths[level], level == self.plan.depth - 1
        return Skipless(self.plan, width) if self.plan.skipless and last and level else Merge(self.plan, level, width)

    def _share(self, lefts: list[nn.Module], rights: list[nn.Module], ups: list[nn.Module], merges: list[Any]) -> None:
        """Let several places hold the same module, where the plan says so and they fit."""
        plan = self.plan
        if plan.sharing == "across" and merges[0].merged == plan.widths[0]:
            rights[0] = lefts[0]
        if plan.sharing == "ups" and plan.growth == 1:
            ups[:] = ups[:1] * len(ups)

    def forward(self, image: Tensor, side: Tensor | None = None, other: Tensor | None = None) -> Any:
        plan = self.plan
        h, w = image.shape[-2:]
        level = side if plan.inputs == "level" else other
        x = image
        if plan.inputs in ("condition", "both"):
            x = torch.cat([x, side], dim=1)
        x = self.first(self.enlarged(x))
        if level is not None:
            x = self.modulation(x, level)
        found = self.features(x)
        x = self.last(found[-1])
        if plan.size.startswith("pad"):
            x = x[..., :h, :w]
        if plan.residual:
            x = fitted(plan.size, x, image)
            x = x + (image[..., : x.shape[2], : x.shape[3]] if plan.size == "crop" else image)
        if plan.in_place:
            x[:, :1] *= 2
            x[:, 1, 0] = 0.5
        return self.returned(x, found)

    def features(self, x: Tensor) -> list[Tensor]:
        """The decoder's features, the finest last."""
        if self.plan.nesting == "recursive":
            return [self.body(x)]
        features = self.encoder(x)
        *skips, x = features.values() if isinstance(features, dict) else features
        x = self.bottom(x)
        if self.plan.sharing == "twice":
            x = self.bottom(x)
        if self.plan.sharing == "alias":
            x = self.again(x)
        return self.decoder(*skips, x)

    def enlarged(self, x: Tensor) -> Tensor:
        """The input at a size that every level divides, where the plan cares for that."""
        m, (h, w) = self.plan.multiple, x.shape[-2:]
        match self.plan.size:
            case "assert":
                assert h % m == 0 and w % m == 0, f"{h}x{w} is no multiple of {m}"
            case "pad":
                x = F.pad(x, (0, (m - w % m) % m, 0, (m - h % m) % m))
            case "pad-if":
                if h % m != 0 or w % m != 0:
                    x = F.pad(x, (0, -w % m, 0, -h % m), mode="reflect")
            case "pad-while":
                height, width = h, w
                while height % m:
                    height += 1
                while width % m:
                    width += 1
                x = F.pad(x, [0, width - w, 0, height - h], mode="replicate")
            case "pad-ceil":
                below = int(math.ceil(h / m)) * m - h  # noqa: RUF046 - as people write it
                x = F.pad(x, (0, math.ceil(w / m) * m - w, 0, below))
            case "pad-write":
                side = max(h, w)
                side += (m - side) % m
                larger = x.new_zeros(x.shape[0], x.shape[1], side, side)
                larger[:, :, :h, :w] = x
                x = larger
        return x

    def returned(self, x: Tensor, features: list[Tensor]) -> Any:
        outputs: dict[str, Callable[[], Any]] = {
            "tuple": lambda: (x, features[0]),
            "list": lambda: [x, *features],
            "dict": lambda: {"out": x, "features": features[-1]},
            "named": lambda: Named(x, features[-1]),
            "dataclass": lambda: Output(sample=x, features=features[-1]),
        }
        if self.plan.outputs == "deep" and self.training:
            return [x, *(head(feature) for head, feature in zip(self.heads, features, strict=True))]
        return outputs[self.plan.outputs]() if self.plan.outputs in outputs else x
