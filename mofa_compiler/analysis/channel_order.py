"""Channels permuted, where producers and readers follow: the network computes the same."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import fx, nn

from ..graph.program import Program
from .channels import Channels, Positions

Orders = Mapping[int, tuple[int, ...]]
"""For the number of an orbit, which of its channels comes to each place"""


def reordered(channels: Channels, orders: Orders) -> Program:
    """The program with channels permuted: it computes the same.

    Args:
        channels: of the program.
        orders: for the number of an orbit, which of its channels comes to each place.
    """
    program, new_class = channels.program, _new_classes(channels, orders)
    modules, tensors = dict(program.modules), dict(program.tensors)
    copies: dict[int, nn.Module] = {}
    for axis, classes in channels.axes.items():
        moved = _sources(classes, new_class)
        if bool((moved == np.arange(len(moved))).all()):
            continue
        order = torch.from_numpy(moved)
        if not axis.names:
            old = tensors[axis.path]
            tensor = old.detach().index_select(axis.dim, order.to(old.device))
            tensors[axis.path] = nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor
            continue
        old_module = program.modules[axis.path]
        module = copies.setdefault(id(old_module), copy.deepcopy(old_module))
        with torch.no_grad():
            for name in axis.names:
                tensor = getattr(module, name)
                tensor.copy_(tensor.index_select(axis.dim, order.to(tensor.device)))
    modules = {path: copies.get(id(module), module) for path, module in modules.items()}
    return replace(program, modules=modules, tensors=tensors)


def sources(channels: Channels, orders: Orders, node: fx.Node) -> Positions:
    """For every place in a value, which of its channels comes there."""
    return _sources(channels.values[node], _new_classes(channels, orders))


def _new_classes(channels: Channels, orders: Orders) -> dict[int, int]:
    new_class: dict[int, int] = {}
    for number, places in orders.items():
        orbit = channels.orbits[number]
        new_class |= dict(zip(orbit.tolist(), orbit[list(places)].tolist(), strict=True))
    return new_class


def in_order(program: Program, orders: Orders) -> Program:
    """A program of an architecture whose channels were permuted, permuted in the same way."""
    return reordered(Channels(program), orders) if orders else program


def _sources(classes: Positions, new_class: Mapping[int, int]) -> Positions:
    """For every position, the position whose content comes there: the same occurrence of the class that is to be."""
    places: dict[int, list[int]] = defaultdict(list)
    for position, one in enumerate(classes.tolist()):
        places[one].append(position)
    seen: Counter[int] = Counter()
    sources = np.arange(len(classes))
    for position, one in enumerate(classes.tolist()):
        sources[position] = places[new_class.get(one, one)][seen[one]]
        seen[one] += 1
    return sources
