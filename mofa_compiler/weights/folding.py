"""What a rewritten layer owes to the layers around it goes into a linear neighbour."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..analysis.layers import Layer, Step
from ..graph.plain_layers import is_plain, is_torchs
from .kernels import add_bias, fill, with_room

_SMALL_SCALE = 1e-2
"""Below it a batch normalization takes the scale into its weight: statistics divided by it would overflow"""

_HOMOGENEOUS = {"ReLU", "relu", "LeakyReLU", "leaky_relu"}


@dataclass(frozen=True)
class Affine:
    """y[c] = scale[c] * x[c] + shift[c], or scale[c] a kernel and * a convolution.

    Where the scale has no values, on the meta device, the shift has: 1 where there would be one, else 0.
    """

    scale: Tensor
    shift: Tensor

    def only(self, channels: slice) -> Affine:
        """The same for some channels, the identity for the others."""
        scale, shift = torch.ones_like(self.scale), torch.zeros_like(self.shift)
        scale[channels], shift[channels] = self.scale[channels], self.shift[channels]
        return Affine(scale, shift)


@dataclass(frozen=True)
class Folding:
    """Where an affine map that a layer owes to the layers behind it went: which neighbours took up what."""

    neighbours: Mapping[str, nn.Module]
    folded: Affine | None = None
    side: str = ""
    note: str = ""


def compensate(layer: Layer, owed: Affine, convolved: int, modules: Mapping[str, nn.Module]) -> Folding:
    """Fold what the output of a partial convolution at `layer` lacks into the linear layer next to it.

    Tried in this order: a convolution or batch normalization directly behind; the convolution directly before; a
    convolution behind activations that commute with a positive scale.
    """
    behind = [step for step in layer.behind if step.kind != "identity"]
    if behind and _takes_input_scale(behind[0], modules):
        path = str(behind[0].path)
        return Folding({path: scale_inputs(modules[path], owed)}, owed, "behind")
    untouched = owed.only(slice(convolved, None))
    lost = "bias of the convolved channels dropped" if bool(owed.shift[:convolved].any()) else ""
    producer = _producer(layer, modules)
    if producer is not None:
        return Folding({producer: scale_outputs(modules[producer], untouched)}, untouched, "before", lost)
    while behind and behind[0].operation in _HOMOGENEOUS:
        behind = behind[1:]
    if behind and _takes_input_scale(behind[0], modules) and not isinstance(behind[0].module, _BatchNorm):
        path = str(behind[0].path)
        positive = Affine(owed.scale.clamp_min(0), torch.zeros_like(owed.shift))
        note = "bias dropped" if bool(owed.shift.any()) else ""
        return Folding({path: scale_inputs(modules[path], positive)}, positive, "behind", note)
    alone = "untouched channels not compensated: no linear layer next to it that only it uses"
    return Folding({}, note="; ".join(filter(None, (alone, lost))))


def _producer(layer: Layer, modules: Mapping[str, nn.Module]) -> str | None:
    """Path of the convolution that this layer reads directly and alone, if its weights may be adjusted."""
    step = layer.feeder
    if step is None or step.kind != "conv" or not step.free:
        return None
    # This pass may have rewritten it a moment ago: then its pointwise part has the last word.
    path = next((p for p in (str(step.path), f"{step.path}.pointwise") if p in modules), None)
    module = modules[path] if path is not None else None
    ungrouped = is_plain(module, nn.ConvTranspose2d) and module.groups == 1
    return path if is_plain(module, nn.Conv2d) or ungrouped else None


def _takes_input_scale(step: Step, modules: Mapping[str, nn.Module]) -> bool:
    module = modules.get(str(step.path))
    if module is None or not step.free:
        return False
    if is_torchs(module, _BatchNorm):
        return module.running_mean is not None and module.affine
    return is_plain(module, nn.Conv2d) and module.groups == 1


def scale_inputs(module: nn.Module, owed: Affine) -> nn.Module:
    """A copy of `module` that does to x what it did to owed.scale * x + owed.shift (exact but for zero padding)."""
    if owed.scale.is_meta:
        return with_room(module, shifted=bool(owed.shift.any()))
    new = copy.deepcopy(module)
    if isinstance(new, _BatchNorm):
        return _scale_batch_norm(new, owed)
    assert isinstance(new, (nn.Conv2d, nn.ConvTranspose2d))
    weight = new.weight.detach().double()
    if isinstance(new, nn.ConvTranspose2d):  # what it adds differs by pixel: no bias can take up a shift
        assert not owed.shift.any()
        fill(new.weight, weight * owed.scale.view(-1, 1, 1, 1))
        return new
    blocks = weight.view(new.groups, -1, *weight.shape[1:])
    shift = (blocks.sum((3, 4)) @ owed.shift.view(new.groups, -1, 1)).flatten()
    fill(new.weight, (blocks * owed.scale.view(new.groups, 1, -1, 1, 1)).view_as(weight))
    add_bias(new, shift)
    return new


def scale_outputs(module: nn.Module, owed: Affine) -> nn.Module:
    """A copy of a convolution with owed.scale * y + owed.shift for output y."""
    if owed.scale.is_meta:
        return with_room(module, shifted=bool(owed.shift.any()))
    new = copy.deepcopy(module)
    assert isinstance(new, (nn.Conv2d, nn.ConvTranspose2d))
    weight = new.weight.detach().double()
    if isinstance(new, nn.ConvTranspose2d):  # its weight is (inputs, outputs of one group, kernel)
        blocks = weight.view(new.groups, -1, *weight.shape[1:]) * owed.scale.view(new.groups, 1, -1, 1, 1)
        fill(new.weight, blocks.view_as(weight))
    else:
        fill(new.weight, weight * owed.scale.view(-1, 1, 1, 1))
    if new.bias is not None:
        fill(new.bias, new.bias.detach().double() * owed.scale)
    add_bias(new, owed.shift)
    return new


def _scale_batch_norm(norm: _BatchNorm, owed: Affine) -> _BatchNorm:
    """Move the scale into the running statistics, so that training, which normalizes anew, stays unaffected."""
    assert norm.running_mean is not None and norm.running_var is not None
    dead = owed.scale.abs() < _SMALL_SCALE
    safe = torch.where(dead, torch.ones_like(owed.scale), owed.scale)
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    constant = norm.bias.detach().double() + norm.weight.detach().double() * (
        (owed.shift - norm.running_mean.double()) / deviation
    )
    mean = torch.where(dead, torch.zeros_like(owed.shift), (norm.running_mean.double() - owed.shift) / safe)
    variance = deviation.square() / safe.square() - norm.eps
    # A variance cannot be negative: where the scale is that large, the rest of it goes into the weight.
    kept = variance.clamp_min(0)
    factor = owed.scale * ((kept + norm.eps).sqrt() / deviation)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(kept)
    fill(norm.weight, norm.weight.detach().double() * factor)
    fill(norm.bias, torch.where(dead, constant, norm.bias.detach().double()))
    return norm
