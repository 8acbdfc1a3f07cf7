"""Downsampling, upsampling and merging in generated networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import activation, depthwise, finish, norm
from .plan import Plan


class Blur(nn.Module):
    """A fixed binomial filter on every channel, then every `ratio`-th pixel."""

    def __init__(self, channels: int, ratio: int):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.ratio = ratio
        self.register_buffer("kernel", (row[:, None] * row).expand(channels, 1, 3, 3).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(x, self.kernel, stride=self.ratio, groups=x.shape[1])


class Shrink(nn.Module):
    """Pooling to a size or by a factor, as a function."""

    def __init__(self, ratio: int, adaptive: bool):
        super().__init__()
        self.ratio, self.adaptive = ratio, adaptive

    def forward(self, x: Tensor) -> Tensor:
        if self.adaptive:
            return F.adaptive_avg_pool2d(x, (x.size(2) // self.ratio, x.size(3) // self.ratio))
        return F.interpolate(x, scale_factor=1 / self.ratio, mode="bilinear", align_corners=False)


class Slices(nn.Module):
    """Every `ratio`-th pixel of each offset, side by side in the channels, as patch merging has it."""

    def __init__(self, ratio: int):
        super().__init__()
        self.ratio = ratio

    def forward(self, x: Tensor) -> Tensor:
        r = self.ratio
        return torch.cat([x[..., i::r, j::r] for i in range(r) for j in range(r)], dim=1)


def down(plan: Plan, inputs: int, outputs: int) -> nn.Module:
    """(N, I, H, W) → (N, O, about H / ratio, about W / ratio)."""
    r = plan.ratio
    match plan.down:
        case "max":
            return nn.Sequential(nn.MaxPool2d(r), nn.Conv2d(inputs, outputs, 1))
        case "average":
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.AvgPool2d(r))
        case "adaptive" | "half":
            return nn.Sequential(Shrink(r, plan.down == "adaptive"), nn.Conv2d(inputs, outputs, 3, padding=1))
        case "unshuffle":
            return nn.Sequential(nn.PixelUnshuffle(r), nn.Conv2d(inputs * r * r, outputs, 1))
        case "slices":
            return nn.Sequential(Slices(r), nn.Conv2d(inputs * r * r, outputs, 1, bias=False))
        case "blur":
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), *finish(plan, outputs), Blur(outputs, r))
        case "separable":
            spatial = nn.Conv2d(inputs, inputs, 3, r, 1, groups=inputs)
            return nn.Sequential(spatial, *finish(plan, inputs), nn.Conv2d(inputs, outputs, 1))
        case "pointwise":
            return nn.Conv2d(inputs, outputs, 1, stride=r)
        case "grouped":
            spatial = nn.Conv2d(inputs, 2 * inputs, r, r, groups=inputs)
            return nn.Sequential(spatial, nn.Conv2d(2 * inputs, outputs, 1))
    if plan.down == "conv2":
        return nn.Conv2d(inputs, outputs, r, r, bias=plan.bias)
    if plan.down == "conv4":
        return nn.Conv2d(inputs, outputs, 2 * r, r, r // 2, bias=plan.bias)
    size = int(plan.down[-1])
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, r, size // 2, bias=plan.bias), *finish(plan, outputs))


class Up(nn.Module):
    """(N, I, h, w), (N, ·, H, W) → (N, O, about H, about W)."""

    def __init__(self, plan: Plan, inputs: int, outputs: int):
        super().__init__()
        self.kind, self.ratio = plan.up, plan.ratio
        self.body = _enlarging(plan, inputs, outputs)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        if self.kind == "size":
            return self.body(F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True))
        if self.kind == "factor":
            return self.body(F.interpolate(x, scale_factor=self.ratio, mode="nearest"))
        if self.kind == "late":
            return F.interpolate(self.body(x), scale_factor=float(self.ratio), mode="bilinear")
        if self.kind == "output-size":
            return self.body(x, output_size=(x.shape[2] * self.ratio, x.shape[3] * self.ratio))
        if self.kind == "module-size":
            h, w = like.shape[-2], like.shape[-1]
            return self.body(nn.UpsamplingBilinear2d(size=(h, w))(x))
        return self.body(x)


def _enlarging(plan: Plan, inputs: int, outputs: int) -> nn.Module:
    r = plan.ratio
    three = nn.Conv2d(inputs, outputs, 3, padding=1, bias=plan.bias)
    match plan.up:
        case "transposed2":
            return nn.ConvTranspose2d(inputs, outputs, r, r, bias=plan.bias)
        case "transposed4":
            return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 2 * r, r, r // 2), *finish(plan, outputs))
        case "transposed3":
            return nn.ConvTranspose2d(inputs, outputs, 3, r, 1, output_padding=r - 1)
        case "output-size":
            return nn.ConvTranspose2d(inputs, outputs, 3, r, padding=1)
        case "grouped":
            spatial = nn.ConvTranspose2d(inputs, inputs, r, r, groups=inputs)
            return nn.Sequential(spatial, nn.Conv2d(inputs, outputs, 1))
        case "shuffle1":
            return nn.Sequential(nn.Conv2d(inputs, r * r * outputs, 1, bias=False), nn.PixelShuffle(r))
        case "shuffle3":
            return nn.Sequential(nn.Conv2d(inputs, r * r * outputs, 3, padding=1), nn.PixelShuffle(r))
        case "shuffle-act":
            wide = nn.Conv2d(inputs, r * r * outputs, 3, padding=1)
            return nn.Sequential(wide, activation(plan, r * r * outputs), nn.PixelShuffle(r))
        case "bilinear":
            return nn.Sequential(nn.Upsample(scale_factor=r, mode="bilinear"), three)
        case "aligned":
            return nn.Sequential(nn.Upsample(scale_factor=r, mode="bilinear", align_corners=True), three)
        case "nearest1":
            return nn.Sequential(nn.Upsample(scale_factor=r), nn.Conv2d(inputs, outputs, 1))
        case "nearest3":
            return nn.Sequential(nn.Upsample(scale_factor=r), depthwise(plan, inputs), nn.Conv2d(inputs, outputs, 1))
        case "bare":
            three = nn.Conv2d(inputs, outputs, 3, padding=1)
            return nn.Sequential(*norm(plan, inputs), nn.SiLU(), nn.Upsample(scale_factor=r), three)
    return three


class Merge(nn.Module):
    """What comes from below and the skip, both (N, C, about H, about W) → (N, `merged`, H, W), the skip's size."""

    def __init__(self, plan: Plan, level: int, channels: int):
        super().__init__()
        self.kind, self.size, self.in_place = plan.skip, plan.size, plan.in_place
        if plan.skip == "both":
            self.kind = "add" if level % 2 else "cat"
        self.merged = channels if self.kind in ("add", "multiply") else 2 * channels
        if self.kind == "gate":
            self.from_x, self.from_skip = nn.Conv2d(channels, 2, 1), nn.Conv2d(channels, 2, 1)
            self.attend = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(2, 1, 1), nn.Sigmoid())
        if self.kind == "refined":
            self.refine = nn.Sequential(depthwise(plan, channels), *finish(plan, channels))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = fitted(self.size, x, skip)
        if self.size == "crop":
            skip = skip[..., : x.shape[-2], : x.shape[-1]]
        if self.kind == "add":
            if self.in_place:
                total = x.clone()
                total += skip
                return total
            return x + skip
        if self.kind == "multiply":
            return torch.mul(x, skip.sigmoid())
        if self.kind == "gate":
            skip = skip * self.attend(self.from_x(x) + self.from_skip(skip))
        if self.kind == "refined":
            skip = self.refine(skip)
        return torch.cat([x, skip], dim=1)


def fitted(how: str, x: Tensor, like: Tensor) -> Tensor:
    """`x` at the height and width of `like`; with `crop` cut to the smaller of both."""
    if how == "crop":
        h, w = min(x.shape[-2], like.shape[-2]), min(x.shape[-1], like.shape[-1])
        return x[..., :h, :w]
    if how == "fit":
        below, right = like.size()[2] - x.size()[2], like.size()[3] - x.size()[3]
        return F.pad(x, [right // 2, right - right // 2, below // 2, below - below // 2])
    if how == "resize" and x.shape[2:] != like.shape[2:]:
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
    return x
