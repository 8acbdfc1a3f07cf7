"""Blocks around a partial convolution, and which of its forms their places allow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mofa_compiler.nn.partial_conv import PartialConv2d, PConv2d, PDWConv2d


def operators(module: nn.Module, *shape: int) -> set[str]:
    """Names of the operators in an exported graph, `split_with_sizes` as `split`."""
    exported = torch.export.export(module.eval(), (torch.rand(shape or (1, 8, 16, 16)),))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    return {target.split(".")[1].split("_with")[0] for target in targets if target.startswith("aten.")}


FORMS = ("in-place", "identity-kernels", "two-products", "two-slices", "born-apart", "merged", "fused")


KINDS = (PConv2d, PDWConv2d)


class Block(nn.Module):
    """head → [before] → partial → [between] → pointwise → tail, and a residual around it."""

    def __init__(self, partial: nn.Module, between: nn.Module | None = None, before: nn.Module | None = None):
        super().__init__()
        self.head = nn.Conv2d(3, 5, 3, padding=1)
        self.expand = nn.Conv2d(5, 8, 1)
        self.before = before or nn.Identity()
        self.partial = partial
        self.between = between or nn.Identity()
        self.pointwise = nn.Conv2d(8, 5, 1)
        self.tail = nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        y = self.partial(self.before(self.expand(x)))
        return self.tail(self.pointwise(self.between(y)) + x)


def normed() -> nn.BatchNorm2d:
    """A batch normalization as it is after training."""
    norm = nn.BatchNorm2d(8)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.uniform_(0.5, 1.5)
    return norm


def allowed(form: str, kind: type[PartialConv2d], place: str) -> bool:
    """Whether a form takes the layer of a place."""
    if form == "identity-kernels":
        return kind is PDWConv2d
    stays = ("activation", "inplace activations", "prelu", "batch norm and activation", "replicate")
    if form == "fused":
        return place not in (*stays, "batch norm", "even kernel", "reflect", "circular")
    return form != "merged" or place not in stays
