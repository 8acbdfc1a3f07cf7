"""What a model must be before it is traced: refused in one sentence, before anything fails on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from ..base.errors import CaptureError

_KINDS = (Tensor, nn.Parameter, nn.Buffer, nn.UninitializedParameter, nn.UninitializedBuffer)


def check_model(model: object) -> None:
    """Raise where a model, or a part or weight of it, is of a kind that no graph can hold.

    Raises:
        CaptureError: the message names the part.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(f"expected an nn.Module, got a {type(model).__name__}", code="wrong-kind")
    if model._forward_hooks or model._forward_pre_hooks:
        raise CaptureError(
            f"{type(model).__name__} itself has forward hooks, which tracing does not run: remove them, or capture "
            "torch.nn.Sequential(model)",
            code="hooks",
        )
    for path, module in model.named_modules():
        if isinstance(module, ScriptModule):
            what = f"module {path!r}" if path else type(model).__name__
            raise CaptureError(
                f"{what} is compiled by torch.jit, which torch.fx cannot see into: use the nn.Module that it came from",
                code="untraceable",
            )
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if type(tensor) not in _KINDS:
            raise CaptureError(
                f"{path} is a {type(tensor).__name__}, a tensor with rules of its own: give the network plain tensors",
                code="untraceable",
            )
        if tensor.layout is not torch.strided or tensor.is_quantized:
            kind = "quantized" if tensor.is_quantized else "sparse"
            raise CaptureError(
                f"{path} is a {kind} tensor: give the network dense, floating-point ones", code="untraceable"
            )


def nesting(model: nn.Module) -> str:
    """How deep a model's modules are nested, in words."""
    path = max((path for path, _ in model.named_modules()), key=lambda path: path.count("."))
    depth = path.count(".") + 1
    return f"{type(model).__name__} nests modules {depth} deep ({path[:40]}…)"
