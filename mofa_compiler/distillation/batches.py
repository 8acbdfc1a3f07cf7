"""Examples as batches, in an order that is a function of the seed and the step alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from ..base.errors import RecoveryError, one_line
from ..data import Pair, Pairs, Sample, pairs, split
from ..data.degradations import Raw
from ..data.seeding import generator
from ..graph.call_spec import InputSpec, map_tree, tensor_leaves

HELD_OUT = 0.1
"""Share of the images that are set aside for validation where no others are given"""


@dataclass(frozen=True)
class Batch:
    """Arguments for the networks, the tensors that should come out, and which values of these are black and white."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    targets: tuple[Tensor, ...]
    levels: Tensor | None

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The same on a device, floating-point values in this precision."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        args, kwargs, targets = map_tree((self.args, self.kwargs, self.targets), Tensor, move)
        return Batch(args, kwargs, targets, None if self.levels is None else self.levels.to(device))


class Stream(Dataset[dict[str, Any]]):
    """The examples of an endless row of epochs by position, shuffled anew in each epoch.

    An example is a function of the seed and its position: `set_epoch` is called where the data has it, and what else it
    draws from torch's global generator is seeded by the position.
    """

    def __init__(self, data: Any, seed: int, *, shuffled: bool):
        self.data, self.seed, self.shuffled = data, seed, shuffled
        self.length = len(data)

    def __getitem__(self, position: int) -> dict[str, Any]:
        epoch, place = divmod(position, self.length)
        index = _order(self.seed, epoch, self.length)[place] if self.shuffled else place
        _set_epoch(self.data, epoch)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator(self.seed, position).get_state())
            item = self.data[index]
        return _example(item)

    def batches(self, first: int, rows: int, of: int, offset: int, workers: int = 0) -> Iterator[Batch]:
        """Endless batches of `rows` examples: positions `offset` + k · `of`, … for k = `first`, `first` + 1, …"""
        sampler = _Positions(first, rows, of, offset)
        loader = DataLoader(
            self, batch_sampler=sampler, num_workers=workers, collate_fn=collate, generator=torch.Generator()
        )
        return iter(loader)

    def batch(self, positions: Sequence[int]) -> Batch:
        """The examples at these positions."""
        return collate([self[position] for position in positions])


@dataclass(frozen=True)
class _Positions:
    first: int
    rows: int
    of: int
    offset: int

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first
        while True:
            start = step * self.of + self.offset
            yield list(range(start, start + self.rows))
            step += 1


@dataclass(frozen=True)
class Feed:
    """What to train and what to validate on, and how the data is described in reports."""

    training: Stream
    validation: Stream
    description: Mapping[str, Any]
    fingerprint: str

    def samples(self, count: int) -> list[Sample]:
        """The first examples that are validated on, as images to look at; none where they are none."""
        found = []
        for index in range(min(count, self.validation.length)):
            batch = self.validation.batch([index])
            inputs = list(tensor_leaves((batch.args, batch.kwargs)))
            if len(inputs) != 1 or inputs[0].dim() != 4:
                return []
            target = batch.targets[0][0].float() if batch.targets else None
            levels = Sample.levels if batch.levels is None else batch.levels[0]
            raw = str(self.description.get("degradation")).startswith(Raw.name)
            name, source = (
                f"validation example {index + 1}",
                "not trained on, but they chose the weights that were kept",
            )
            found.append(Sample(name, inputs[0][0].float(), target, levels, raw=raw, source=source))
        return found

    @property
    def paired(self) -> bool:
        """Whether the ground truth is known."""
        return bool(self.validation.batch([0]).targets)


def feed(
    data: Any,
    validation: Any,
    inputs: Sequence[InputSpec],
    *,
    degradation: Any = None,
    patch: int = 64,
    seed: int = 0,
    crops: int = 32,
) -> Feed:
    """Training and validation examples from a folder, a dataset or a sequence.

    Args:
        data: a folder as `mofa_compiler.data.pairs` takes it, or anything with a length and items: inputs without a
            batch axis (a tensor or array; a tuple of arguments, or a dict of them by name), or tuples of two, an input
            and what the network should return.
        validation: likewise; by default every tenth image of `data`, at least one, is set aside.
        inputs: of the network.
        degradation, patch: for folders.
        seed: of places and noise.
        crops: how many examples a folder is validated on.

    Raises:
        DataError, RecoveryError: there are too few examples, or they do not fit the network.
    """
    if isinstance(data, (str, Path)):
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(map(str, inputs))
            raise RecoveryError(
                f"a folder has images for a network with one image as input, and this takes {shapes}",
                code="wrong-input",
            )
        data = pairs(data, channels=inputs[0].shape[1], degradation=degradation, patch=patch, seed=seed)
    elif degradation is not None:
        raise RecoveryError(
            "a degradation is for clean images in a folder: leave it out, or make data a folder", code="needs-option"
        )
    if isinstance(data, Pairs):
        share = HELD_OUT if validation is None else validation
        if not isinstance(share, (str, Path, float)):
            training, aside = data, share
        else:
            training, aside = split(data, share)
            training, aside = split(data, share, repeat=-(-crops // len(aside)))
        description: dict[str, Any] = dict(data.description)
    else:
        training, aside = _parts(data, validation, seed)
        description = {"examples": len(training)}
    description["validation"] = len(aside)
    streams = Stream(training, seed, shuffled=True), Stream(aside, seed, shuffled=False)
    digest = hashlib.sha256()
    for stream in streams:
        example = _first(stream)
        _check(example, inputs)
        digest.update(str(stream.length).encode())
        for tensor in tensor_leaves([example["args"], example["kwargs"], example["targets"]]):
            digest.update(str(tensor.shape).encode() + tensor.contiguous().numpy().tobytes())
    return Feed(*streams, description, digest.hexdigest())


def collate(examples: Sequence[dict[str, Any]]) -> Batch:
    """Examples as one batch."""
    levels = examples[0]["levels"]
    return Batch(
        tuple(default_collate([example["args"] for example in examples])) if examples[0]["args"] else (),
        default_collate([example["kwargs"] for example in examples]),
        tuple(default_collate([example["targets"] for example in examples])) if examples[0]["targets"] else (),
        None if levels is None else torch.stack([example["levels"] for example in examples]),
    )


def _parts(data: Any, validation: Any, seed: int) -> tuple[Any, Any]:
    for what, given in (("data", data), ("validation", validation)):
        if given is not None and not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
            raise RecoveryError(
                f"{what} is a {type(given).__name__}, which has no length and no items: pass a folder, a torch Dataset "
                "or a list",
                code="bad-image",
            )
    if validation is not None:
        if isinstance(validation, (str, Path, float)):
            raise RecoveryError(
                "validation can be a folder or a share where data is a folder; pass a dataset, too", code="wrong-kind"
            )
        return data, validation
    count = len(data)
    if count < 2:
        raise RecoveryError(
            f"data has {count} example{'s' if count != 1 else ''}, of which none can be set aside: pass more, or pass "
            "validation",
            code="no-data",
        )
    order = torch.randperm(count, generator=generator(seed)).tolist()
    aside = set(order[: max(1, round(HELD_OUT * count))])
    return Subset(data, [i for i in range(count) if i not in aside]), Subset(data, sorted(aside))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, length: int) -> list[int]:
    order: list[int] = torch.randperm(length, generator=generator(seed, epoch, length)).tolist()
    return order


def _set_epoch(data: Any, epoch: int) -> None:
    while isinstance(data, Subset):
        data = data.dataset
    if hasattr(data, "set_epoch"):
        data.set_epoch(epoch)


def _example(item: Any) -> dict[str, Any]:
    """One item of any accepted form: args, kwargs, targets and levels."""
    target: Any = ()
    levels = None
    if isinstance(item, Pair):
        item, target, levels = item.input, item.target if len(item.target) else (), item.levels
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        item, target = item
    item, target = (map_tree(tree, np.ndarray, torch.from_numpy) for tree in (item, target))
    kwargs = dict(item) if isinstance(item, Mapping) else {}
    args = () if kwargs else tuple(item) if isinstance(item, (tuple, list)) else (item,)
    targets = tuple(leaf for leaf in tensor_leaves(target) if leaf.is_floating_point())
    return {"args": args, "kwargs": kwargs, "targets": targets, "levels": levels}


def _first(stream: Stream) -> dict[str, Any]:
    if not stream.length:
        raise RecoveryError("data is empty: there is nothing to train on", code="no-data")
    return stream[0]


def _check(example: Mapping[str, Any], inputs: Sequence[InputSpec]) -> None:
    """Refuse examples of other dimensions or channels than the network takes."""
    try:
        given = list(tensor_leaves([example["args"], example["kwargs"]]))
    except TypeError as error:
        raise RecoveryError(f"an example cannot be read: {one_line(error)}", code="unreadable") from error
    if len(given) != len(inputs):
        raise RecoveryError(
            f"an example has {len(given)} input tensors, the network takes {len(inputs)}", code="wrong-input"
        )
    for tensor, spec in zip(given, inputs, strict=True):
        shape = "x".join(map(str, tensor.shape)) or "a scalar"
        fits = tensor.ndim + 1 == len(spec.shape)
        if not fits or (tensor.ndim > 1 and tensor.shape[0] != spec.shape[1]):
            wanted = "x".join(map(str, spec.shape[1:])) or "a scalar"
            what = "channels" if fits else "dimensions"
            raise RecoveryError(
                f"an example is {shape}, the network takes {wanted} (without the batch axis): other {what}",
                code="wrong-input",
            )
