"""Networks that compute something else at every call: found while they are traced, and refused."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..base.errors import CaptureError
from ..graph.node_names import describe

# fmt: off
_DRAWING = {
    "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "gumbel_softmax", "log_normal_", "multinomial",
    "normal", "normal_", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_",
    "randperm", "uniform_",
}
_DROPOUT = {
    "alpha_dropout", "alpha_dropout_", "dropout", "dropout1d", "dropout2d", "dropout3d", "dropout_",
    "feature_alpha_dropout", "feature_dropout",
}
# fmt: on


def draws(node: fx.Node) -> bool:
    """Whether an operation of torch's draws random numbers; modules do so in training only, and are not asked."""
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name == "scaled_dot_product_attention":
        return bool(_argument(node, 4, "dropout_p", 0.0))
    if name in _DROPOUT:  # on unless told otherwise in torch.nn.functional, never without a flag in torch
        return bool(_argument(node, 2, "training", _argument(node, 2, "train", True)))
    if name in ("rrelu", "rrelu_"):
        return bool(_argument(node, 3, "training", False))
    return makes_noise(node)


def makes_noise(node: fx.Node) -> bool:
    """Whether an operation returns random numbers, not a value with some of it dropped."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name in _DRAWING


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    value = node.kwargs.get(name, node.args[position] if len(node.args) > position else default)
    return value.meta.get("val") if isinstance(value, fx.Node) else value


def check_repeatable(graph: fx.Graph, name: str, *, drew: bool) -> None:
    """Refuse a network in eval mode whose output depends on random numbers.

    Args:
        graph: the network.
        name: what to call it.
        drew: whether forward drew random numbers of Python's, numpy's or torch's that the graph does not draw.

    Raises:
        CaptureError: it does; the message names the operation.
    """
    advice = "pass what is drawn as an input, or switch the noise off"
    if drew:
        raise CaptureError(
            f"{name} draws random numbers in forward (Python's, numpy's, or torch's as a constant), in eval mode: its "
            "output is another one at "
            f"every call, and nothing could be compared with it; {advice}",
            code="random",
        )
    pending = [node for node in graph.nodes if node.op == "output"]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if draws(node):
            raise CaptureError(
                f"the output of {name} is random, in eval mode, by {describe(node)}: nothing could be compared with "
                f"it; {advice}",
                code="random",
            )
        new = [source for source in node.all_input_nodes if source not in seen]
        seen.update(new)
        pending += new
