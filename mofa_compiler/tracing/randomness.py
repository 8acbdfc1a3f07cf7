"""Networks that compute something else at every call: found while they are traced, and refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import CaptureError
from .naming import describe


class Evaluating(Protocol):
    """A tracer that evaluates the nodes it makes."""

    @property
    def current(self) -> fx.Node | None:
        """The node that is being evaluated."""


class RandomOperations(TorchDispatchMode):
    """Marks nodes whose evaluation draws random numbers, by torch's own tag for such operators."""

    def __init__(self, tracer: Evaluating):
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracer = tracer

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags and self.tracer.current is not None:
            self.tracer.current.meta["random"] = True
        operator: Callable[..., Any] = func
        return operator(*args, **(kwargs or {}))


def check_repeatable(graph: fx.Graph, name: str, *, drew: bool) -> None:
    """Refuse a network in eval mode whose output depends on random numbers.

    Args:
        graph: the network, with what `RandomOperations` has marked.
        name: what to call it.
        drew: whether forward drew Python's or numpy's random numbers.

    Raises:
        CaptureError: it does; the message names the operation.
    """
    advice = "pass what is drawn as an input, or switch the noise off"
    if drew:
        raise CaptureError(
            f"{name} draws Python's or numpy's random numbers in forward, in eval mode: its output is another one at "
            f"every call, and nothing could be compared with it; {advice}"
        )
    pending = [node for node in graph.nodes if node.op == "output"]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node.meta.get("random"):
            raise CaptureError(
                f"the output of {name} is random, in eval mode, by {describe(node)}: nothing could be compared with "
                f"it; {advice}"
            )
        new = [source for source in node.all_input_nodes if source not in seen]
        seen.update(new)
        pending += new
