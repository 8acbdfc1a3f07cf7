"""Whether an original is finite, to begin with: what is not can be compared with nothing, and no pass is to blame."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.network import Network
from ..base.errors import RewriteError
from ..graph.call_spec import CallSpec, specs, tensor_leaves
from ..graph.node_names import describe
from .interpreting import Interpreted
from .sizes import other_sizes, total_stride

AT_MOST = 2_000_000_000
"""Multiplications of the run that looks for what is not finite: a fraction of a second; larger images are cropped"""


class NotFiniteWarning(UserWarning):
    """A network gives NaN or infinite values, before anything was rewritten."""


def check_weights(model: nn.Module) -> None:
    """Refuse weights that a rewrite would only spread.

    Raises:
        RewriteError: a parameter or buffer has no values yet, or some that are not finite; or a variance is negative.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise RewriteError(
                f"{name} is not initialized: run the model once before it is rewritten", code="no-values"
            )
        if tensor.is_meta:
            raise RewriteError(f"{name} is on the meta device and has no values: load weights first", code="no-values")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach()).all()):
            raise RewriteError(
                f"{name} holds NaN or infinite values, which a rewrite would spread: repair or reload the weights",
                code="not-finite",
            )
    for path, module in model.named_modules():
        variance, eps = getattr(module, "running_var", None), getattr(module, "eps", 0.0)
        if not isinstance(variance, Tensor) or not variance.is_floating_point() or not variance.numel():
            continue
        lowest = float(variance.min())
        if lowest < 0 and not lowest + (eps if isinstance(eps, (int, float)) else 0.0) > 0:
            raise RewriteError(
                f"{path}.running_var is negative ({lowest:g} in channel {int(variance.argmin())}), which has no square "
                "root: the network gives NaN from there on; repair or reload the weights",
                code="not-finite",
            )


def warn_of_values(network: Network, call: CallSpec) -> None:
    """Warn where a network's own output is not finite, on the example or on a part of it that is quickly computed."""
    part = _affordable(network, call)
    if part is None:
        return
    if where := first_not_finite(network, part):
        inputs = "the example input" if part is call else f"a part of the example input ({specs(part)})"
        warnings.warn(not_finite(network.program.name, inputs, where), NotFiniteWarning, stacklevel=3)


def not_finite(name: str, inputs: str, where: str) -> str:
    """The sentence that says so; `where` is from which layer on, empty where that is not known."""
    start = f", from {where} on" if where else ""
    return f"{name}'s own output on {inputs} is NaN or infinite{start}: nothing can be compared with it"


def first_not_finite(network: Network, call: CallSpec) -> str:
    """The first node, in words, that makes values which are not finite of finite ones; empty if the output is finite.

    A network that does not take this input is none that gives such values.
    """
    known: dict[fx.Node, bool] = {}
    first: list[fx.Node] = []

    def watch(node: fx.Node, value: Any) -> None:
        known[node] = all(bool(torch.isfinite(leaf).all()) for leaf in tensor_leaves(value))
        if not known[node] and all(known[source] for source in node.all_input_nodes):
            first.append(node)

    try:
        output = Interpreted(network, double=False).outputs(call, watch)
    except Exception:  # whatever a network raises at inputs that it does not take
        return ""
    if bool(torch.isfinite(output).all()) or not first:
        return ""
    return f"its input {first[0].target!r}" if first[0].op == "placeholder" else describe(first[0])


def _affordable(network: Network, call: CallSpec) -> CallSpec | None:
    """The call, or one of smaller images that takes no more than `AT_MOST` MACs; None where there is none."""
    macs, stride = float(network.totals.macs), total_stride(network.anatomy)
    while macs > AT_MOST:
        smaller = next(iter(other_sizes(call, stride)), None)
        share = 1.0 if smaller is None else _pixels(smaller) / _pixels(call)
        if smaller is None or share >= 1:
            return None
        call, macs = smaller, macs * share
    return call


def _pixels(call: CallSpec) -> int:
    return sum(tensor.numel() for tensor in tensor_leaves([*call.args, *call.kwargs.values()]))
