"""Calibration inputs, checked one by one and kept where they take no memory."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..analysis.network import Network
from ..base.errors import CalibrationError, CaptureError, one_line
from ..base.torch_state import own_randomness, threads
from ..graph.call_spec import CallSpec, InputSpec, example_call, map_tree, tensor_leaves
from ..numerics.finite import first_not_finite

HELD_OUT = 8
"""One image in so many is not fitted to, and shows what came of it; at least one"""

IN_MEMORY = 1 << 28
"""Bytes of inputs that are kept in memory; what is more goes to temporary files"""


FEW_PIXELS = 128 * 128
"""Of images that are calibrated on by one thread: a step on two took 12 times as long on two cores that others used"""


class Batches:
    """Calls of a network, in order; they can be gone through again and again."""

    def __init__(self, folder: Path):
        self._folder, self._calls, self._held, self._pixels = folder, list[CallSpec | Path](), 0, 0
        self.sizes: list[int] = []

    @property
    def images(self) -> int:
        """How many there are in all batches."""
        return sum(self.sizes)

    def append(self, call: CallSpec) -> None:
        leaves = list(tensor_leaves([*call.args, *call.kwargs.values()]))
        self.sizes.append(next((len(leaf) for leaf in leaves if leaf.dim()), 1))
        self._held += sum(leaf.numel() * leaf.element_size() for leaf in leaves)
        self._pixels = max([self._pixels, *(leaf.shape[-2:].numel() for leaf in leaves if leaf.dim() == 4)])
        if self._held <= IN_MEMORY:
            self._calls.append(call)
            return
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="call-", suffix=".pt", delete=False) as handle:
            file = Path(handle.name)
        torch.save(call, file)
        self._calls.append(file)

    def threads(self) -> AbstractContextManager[None]:
        """One thread where images are small: more of them wait for one another, on a busy machine most of the time."""
        return threads(1) if self._pixels <= FEW_PIXELS else nullcontext()

    def apart(self) -> tuple[Batches, Batches]:
        """Those to fit to, and those to see on what came of it; of a single image the second ones are its mirror."""
        wanted = max(1, self.images // HELD_OUT)
        fitting, held = self._some(range(0)), self._some(range(0))
        for index in reversed(range(len(self))):
            left = wanted - held.images
            if self.sizes[index] <= left and index:
                held._take(self, index)
            elif left > 0 and (parts := _split(self[index], self.sizes[index], left)):
                fitting.append(parts[0])
                held.append(parts[1])
            elif left > 0 and not held.sizes and index:
                held._take(self, index)  # of which nothing can be cut off
            else:
                fitting._take(self, index)
        if not held.sizes:
            held.append(_mirrored(self[0]))
        return fitting._reversed(), held._reversed()

    def first(self, number: int) -> Batches:
        """The first batches alone."""
        return self._some(range(min(number, len(self))))

    def together(self, others: Batches) -> Batches:
        """These and then others."""
        both = self._some(range(len(self)))
        for index in range(len(others)):
            both._take(others, index)
        return both

    def one_by_one(self) -> Batches:
        """The same images, a call for each, where batches can be cut."""
        single = self._some(range(0))
        for index, size in enumerate(self.sizes):
            rest = self[index]
            while size > 1 and (parts := _split(rest, size, size - 1)):
                single.append(parts[0])
                rest, size = parts[1], size - 1
            single.append(rest)
        return single

    def _some(self, places: Iterable[int]) -> Batches:
        new = Batches(self._folder)
        new._pixels = self._pixels
        for index in places:
            new._take(self, index)
        return new

    def _reversed(self) -> Batches:
        return self._some(reversed(range(len(self))))

    def _take(self, other: Batches, index: int) -> None:
        """Take over one call, wherever it is kept."""
        self._calls.append(other._calls[index])
        self.sizes.append(other.sizes[index])

    def __len__(self) -> int:
        return len(self._calls)

    def __getitem__(self, index: int) -> CallSpec:
        call = self._calls[index]  # copied, because some networks write into their input
        return torch.load(call, weights_only=False) if isinstance(call, Path) else copy.deepcopy(call)

    def __iter__(self) -> Iterator[CallSpec]:
        return (self[index] for index in range(len(self)))


def _split(call: CallSpec, size: int, last: int) -> tuple[CallSpec, CallSpec] | None:
    """A batch cut in two, the second part of `last` images; None where it is none of `size` rows in all tensors."""
    leaves = [leaf for leaf in tensor_leaves([*call.args, *call.kwargs.values()]) if leaf.dim()]
    if not leaves or last >= size or any(len(leaf) != size for leaf in leaves):
        return None

    def part(rows: slice) -> CallSpec:
        args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, lambda t: t[rows].clone() if t.dim() else t)
        return CallSpec(args, kwargs)

    return part(slice(None, size - last)), part(slice(size - last, None))


def _mirrored(call: CallSpec) -> CallSpec:
    """The same images from left to right; what is no image stays as it is."""
    args, kwargs = map_tree(
        (call.args, dict(call.kwargs)), Tensor, lambda t: t.flip(-1) if t.dim() == 4 and t.is_floating_point() else t
    )
    return CallSpec(args, kwargs)


def gather(
    calibration: Iterable[Any], network: Network, folder: Path, like: Tensor, specs: Sequence[InputSpec]
) -> Batches:
    """The calls that a user's calibration inputs are, in the precision and on the device of `like`.

    Args:
        calibration: tensors, or tuples, lists or dicts of arguments.
        network: takes them; it is run on each in the mode that it is in.
        folder: where what does not fit into memory may go.
        like: one of its weights.
        specs: what it was captured with.

    Raises:
        CalibrationError: there are none, or one is no input of this network; says which.
    """
    if isinstance(calibration, Tensor):
        calibration = [calibration]
    if isinstance(calibration, (str, bytes, Path)) or not isinstance(calibration, Iterable):
        raise CalibrationError(
            f"calibration is a {type(calibration).__name__}, expected batches of inputs: for images in files pass "
            "mofa_compiler.data.CalibrationImages(folder, channels=...)",
            code="bad-value",
        )
    batches = Batches(folder)
    for index, inputs in enumerate(calibration):
        batches.append(_call(inputs, network, f"calibration batch {index}", like, specs))
    if not len(batches):
        raise CalibrationError(
            "calibration holds no batch: pass at least one input (an iterator can be used once only)", code="no-data"
        )
    return batches


def _call(inputs: Any, network: Network, what: str, like: Tensor, specs: Sequence[InputSpec]) -> CallSpec:
    model = network.program.graph_module
    try:
        if inputs is None:
            raise CaptureError("it is None", code="wrong-input")
        call = example_call(model, inputs)
    except CaptureError as error:
        raise CalibrationError(f"{what} is no input of this network: {error}", code="wrong-input") from error

    given = list(tensor_leaves([*call.args, *call.kwargs.values()]))
    for tensor in given:
        if tensor.is_meta or not tensor.numel():
            raise CalibrationError(
                f"{what} holds a tensor of shape {tuple(tensor.shape)} without values: leave it out or load its data",
                code="no-values",
            )
    for tensor, spec in zip(given, specs, strict=False):
        if tensor.dim() != len(spec.shape):
            raise CalibrationError(
                f"{what} has the shape {tuple(tensor.shape)}, the network was captured with {spec}: the numbers of "
                "axes have to be the same",
                code="wrong-input",
            )

    def moved(tensor: Tensor) -> Tensor:
        dtype = like.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to(like.device, dtype).clone()

    args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, moved)
    for tensor in tensor_leaves([*args, *kwargs.values()]):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CalibrationError(f"{what} holds NaN or infinite values: leave it out", code="not-finite")
    try:
        with torch.no_grad(), own_randomness():
            output = model(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    except Exception as error:
        raise CalibrationError(f"{what} is not taken by the network ({one_line(error)})", code="wrong-input") from error
    if not all(bool(torch.isfinite(leaf).all()) for leaf in tensor_leaves(output)):
        where = first_not_finite(network, CallSpec(args, kwargs))
        start = f", from {where} on" if where else ""
        raise CalibrationError(
            f"the network's output on {what} holds NaN or infinite values{start}: leave it out", code="not-finite"
        )
    return CallSpec(args, kwargs)
