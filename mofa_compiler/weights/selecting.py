"""Layers of which only some channels are left."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Cut = tuple[tuple[str, ...], int, Tensor]
"""Names of tensors, a dimension of them, and the positions there that stay"""


def with_channels(module: nn.Module, cuts: Sequence[Cut], channels: int) -> nn.Module:
    """A copy of a module with fewer positions in some dimensions of its tensors.

    `channels` is the number that its output then has. Of a grouped convolution or a group normalization whole groups
    go.
    """
    new = copy.deepcopy(module)
    with torch.no_grad():
        for names, dim, kept in cuts:
            for name in names:
                tensor: Tensor = getattr(new, name)
                left = tensor.detach().index_select(dim, kept.to(tensor.device))
                is_parameter = isinstance(tensor, nn.Parameter)
                setattr(new, name, nn.Parameter(left, tensor.requires_grad) if is_parameter else left)
    if isinstance(new, nn.Conv2d):
        new.groups = new.groups * channels // new.out_channels if new.groups > 1 else 1
        new.out_channels, new.in_channels = channels, new.weight.shape[1] * new.groups
    elif isinstance(new, nn.ConvTranspose2d):
        new.in_channels, new.out_channels = new.weight.shape[0], channels
    elif isinstance(new, nn.Linear):
        new.out_features, new.in_features = new.weight.shape
    elif isinstance(new, nn.GroupNorm):
        new.num_groups = new.num_groups * channels // new.num_channels
        new.num_channels = channels
    elif isinstance(new, (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)):
        new.num_features = channels
    elif isinstance(new, nn.PReLU):
        new.num_parameters = new.weight.numel()
    return new
