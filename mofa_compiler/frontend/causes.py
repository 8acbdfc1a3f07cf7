"""Why a network could not be traced, and what to do about it, in words that are true of the error."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx.proxy import TraceError

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
