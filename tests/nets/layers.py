"""The layers of generated networks: convolutions, norms, activations."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .plan import Plan


class Functional(nn.Module):
    """An activation as a function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.1)


class Methods(nn.Module):
    """An activation by methods, the last one in place."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * x.sigmoid()).clamp_(-3, 3)


def activation(plan: Plan, channels: int) -> nn.Module:
    kinds: dict[str, Any] = {
        "relu": nn.ReLU,
        "relu_": lambda: nn.ReLU(inplace=True),
        "relu6": nn.ReLU6,
        "gelu": nn.GELU,
        "leaky": lambda: nn.LeakyReLU(0.2),
        "leaky_": lambda: nn.LeakyReLU(0.2, inplace=True),
        "silu": nn.SiLU,
        "hardswish_": lambda: nn.Hardswish(inplace=True),
        "prelu": lambda: nn.PReLU(channels),
        "function": Functional,
        "method": Methods,
    }
    layer: nn.Module = kinds[plan.activation]()
    return layer


class BatchNormAct(nn.BatchNorm2d):
    """Batch normalization that applies its activation itself, as timm has it."""

    def __init__(self, channels: int, act: nn.Module):
        super().__init__(channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization whose statistics and weights are buffers, as detectors have it."""

    def __init__(self, channels: int):
        super().__init__()
        for name in ("weight", "bias", "mean", "variance"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.variance + 1e-5).rsqrt()
        shift = self.bias - self.mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class LayerNorm2d(nn.Module):
    """Normalizes over the channels, written by hand."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ChannelNormFunction(torch.autograd.Function):
    """Normalizes over the channels, with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean = x.mean(1, keepdim=True)
        scale = ((x - mean).pow(2).mean(1, keepdim=True) + eps).rsqrt()
        normal = (x - mean) * scale
        ctx.save_for_backward(normal, scale, weight)
        return weight.view(1, -1, 1, 1) * normal + bias.view(1, -1, 1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        normal, scale, weight = ctx.saved_tensors
        inner = gradient * weight.view(1, -1, 1, 1)
        centred = inner - inner.mean(1, keepdim=True) - normal * (inner * normal).mean(1, keepdim=True)
        return scale * centred, (gradient * normal).sum((0, 2, 3)), gradient.sum((0, 2, 3)), None


class FunctionNorm2d(LayerNorm2d):
    """The same norm by a custom `autograd.Function`."""

    def forward(self, x: Tensor) -> Tensor:
        return ChannelNormFunction.apply(x, self.weight, self.bias, 1e-6)


def with_statistics(layer: nn.BatchNorm2d) -> nn.BatchNorm2d:
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean.uniform_(-0.5, 0.5)
    layer.running_var.uniform_(0.5, 2)
    return layer


def norm(plan: Plan, channels: int) -> list[nn.Module]:
    """The norm alone; none for `none`."""
    if plan.norm in ("batch", "batch-act"):
        return [with_statistics(nn.BatchNorm2d(channels))]
    if plan.norm == "group":
        return [nn.GroupNorm(math.gcd(2, channels), channels)]
    if plan.norm == "instance":
        return [nn.InstanceNorm2d(channels, affine=True)]
    kinds = {"layer": LayerNorm2d, "layer-function": FunctionNorm2d, "frozen": FrozenBatchNorm2d}
    return [kinds[plan.norm](channels)] if plan.norm in kinds else []


def finish(plan: Plan, channels: int) -> list[nn.Module]:
    """What follows a convolution: norm and activation."""
    if plan.norm == "batch-act":
        return [with_statistics(BatchNormAct(channels, activation(plan, channels)))]
    return [*norm(plan, channels), activation(plan, channels)]


def conv(
    plan: Plan, inputs: int, outputs: int, kernel_size: int | tuple[int, int] = 3, **options: Any
) -> nn.Conv2d | nn.Sequential:
    """A convolution of odd kernel, stride 1, that keeps the size in the plan's way of padding."""
    sizes = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    dilation = options.get("dilation", 1)
    border = (dilation * (sizes[0] // 2), dilation * (sizes[1] // 2))
    options = {"bias": plan.bias, **options}
    if sizes == (1, 1):
        return nn.Conv2d(inputs, outputs, 1, **options)
    if plan.padding == "same":
        return nn.Conv2d(inputs, outputs, kernel_size, padding="same", **options)
    if plan.padding == "explicit":
        pad = nn.ReflectionPad2d((border[1], border[1], border[0], border[0]))
        return nn.Sequential(pad, nn.Conv2d(inputs, outputs, kernel_size, **options))
    return nn.Conv2d(inputs, outputs, kernel_size, padding=border, padding_mode=plan.padding, **options)


def depthwise(plan: Plan, channels: int, kernel_size: int = 3, **options: Any) -> nn.Conv2d | nn.Sequential:
    return conv(plan, channels, channels, kernel_size, groups=channels, **options)
