"""Frozen weights (`requires_grad` off) stay frozen: what a pass makes of frozen weights alone is frozen, too.

Weights are made of weights and biases of biases, or of weights where there was no bias; what is made of several layers
is frozen if it is so in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

Named = tuple[str, Tensor]


def freeze(new: nn.Module, sources: Iterable[Named], *, thaw: bool = False) -> None:
    """Freeze the parameters of a module whose sources, parameters with their names, are all frozen.

    With `thaw` the others need a gradient from now on, also where they are copies of frozen ones.
    """
    found = list(sources)
    biases = [parameter for name, parameter in found if _is_bias(name)]
    weights = [parameter for name, parameter in found if not _is_bias(name)]
    for name, parameter in new.named_parameters():
        if own := (biases or weights) if _is_bias(name) else (weights or biases):
            _set(parameter, own, thaw=thaw)


def _set(parameter: Tensor, own: Sequence[Tensor], *, thaw: bool) -> None:
    if not any(source.requires_grad for source in own):
        parameter.requires_grad_(False)
    elif thaw:
        parameter.requires_grad_(True)


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] == "bias"
