"""What a model must be before it is traced, and why one could not be, in words that are true of the error."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.fx.proxy import TraceError
from torch.jit import ScriptModule

from ..base.errors import CaptureError
from ..base.spelling import has_no_encoding

_WANTS_VALUES = (
    "Tensor.item() cannot be called on meta tensors",
    "Cannot copy out of meta tensor",
    "can't convert meta device type tensor to numpy",
)
"""What torch says where Python code asks a meta tensor for its values"""

_COMPARING = ("equal()", "allclose()", "is_nonzero()")


class ValuesError(TraceError):
    """Python code asks for the values of a tensor: to decide on them, or to go on with a number of its own."""


def advice(error: BaseException) -> str:
    """What stops the tracer, and what would let it go on; empty where forward itself has failed."""
    chain = list(_chain(error))
    texts = [str(each) for each in chain]
    asked = any(said in text for text in texts for said in _WANTS_VALUES)
    compared = any(text.startswith(_COMPARING) for text in texts)
    decided = compared or any(isinstance(each, ValuesError) for each in chain)
    if asked and not decided:
        return (
            ". A number or an array that is taken out of a tensor (item(), tolist(), int(), numpy()) is in no graph: "
            "go on with the tensor itself, or move this out of forward"
        )
    if decided:
        return (
            ". Control flow on the values of tensors stops the tracer: move it out of forward, or capture the part "
            "without it"
        )
    if any(isinstance(each, NotImplementedError) or "meta tensor" in str(each) for each in chain):
        return (
            ". torch does not know what shape this returns without computing it: replace it, or put it into a module "
            "of its own, which is then left as it is"
        )
    if any("new() received" in text or "not a storage" in text for text in texts):
        return ". What makes a tensor of sizes is torch.empty(...), or x.new_empty(...), of which a size can be traced"
    if any("Proxy" in text for text in texts):
        return (
            ". While it is traced, forward computes with stand-ins for tensors and sizes, which this call does not "
            "take: use torch's own functions, or put it into a module of its own, which is then left as it is"
        )
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


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
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if unwritable := next((path for path, _ in (*model.named_modules(), *tensors) if has_no_encoding(path)), ""):
        raise CaptureError(
            f"{unwritable!a} is a name with half of a surrogate pair, which no file can hold: give it another",
            code="bad-name",
        )
    for path, tensor in tensors:
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
