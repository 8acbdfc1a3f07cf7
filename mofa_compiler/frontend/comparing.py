"""Is the graph what the code computes? Graph and eager run on real inputs, and what differs is told.

Both run in copies with random weights, since trained ones can hide a difference (a scale of zero), at the smallest
sizes that both take. Guards speak at sizes that a graph is not for; what nothing speaks about must be equal.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from ..base.errors import CaptureError, one_line
from ..base.torch_state import kept_buffers
from ..graph.call_spec import CallSpec, InputSpec, tensor_leaves
from ..graph.macs import node_macs
from ..graph.program import Comparison, Program
from .state import copied, preserved

BOUND = 4_000_000_000
"""MACs of one run beyond which graph and eager are not compared: some seconds of one core"""

_SIZES = 2
_SIDES, _LENGTHS = (16, 32, 64, 128, 256, 512), (256, 1024, 4096, 16384, 65536)
"""Of images, and of sequences"""

_TOLERANCE = 100
"""Machine epsilons by which they may differ, relative to the largest value: the same operations run in both"""


def compare(model: nn.Module, program: Program, *, gradients: bool) -> Comparison:
    """Run the captured `program` and the `model` that it came from, at two sizes where the graph takes two.

    Args:
        model: is not modified.
        program: its capture.
        gradients: whether gradients are recorded, which forward may ask for.

    Raises:
        CaptureError: they differ; the message names the size and the first layer where they do.
    """
    if program.device.type == "meta":
        return Comparison((), "its weights are on the meta device")
    macs = sum(node_macs(node, program) for node in program.graph.nodes)
    candidates = [call for call in _sizes(program.call) if macs * _share(call, program.call) <= BOUND]
    if not candidates:
        return Comparison((), f"at the smallest size one run takes more than {BOUND // 10**9} G MACs", too_large=True)
    pair = _Pair(model, program, gradients)
    try:
        return _compared(pair, candidates)
    except _UncopiedError as error:
        return Comparison((), str(error))
    finally:
        pair.release()


def _compared(pair: _Pair, candidates: list[CallSpec]) -> Comparison:
    """What comes of the first sizes that are taken."""
    compared: list[str] = []
    reason = ""
    for call in candidates:
        try:
            same, informative = pair.agree(call)
        except _NotTakenError as error:
            reason = str(error)
            continue
        if not same:
            raise CaptureError(pair.difference(call), code="computes-else")
        if informative:
            compared.append(str(call))
        if len(compared) == _SIZES:
            break
    return Comparison(tuple(compared), "" if compared else reason or "it returns nothing that could be compared")


Seen: TypeAlias = dict[str, list[Tensor]]
Outputs: TypeAlias = tuple[list[Tensor], list[Tensor]]


class _NotTakenError(Exception):
    """The graph or the model does not take a size."""


class _UncopiedError(Exception):
    """The model cannot be copied, and running it could change it."""


class _Pair:
    """A copy of a model, and the same copy as its graph computes it."""

    def __init__(self, model: nn.Module, program: Program, gradients: bool):
        self.model, self.program, self.gradients = model, program, gradients
        self.kept: tuple[bool, nn.Module, fx.GraphModule] | None = None
        self.originals = {tensor.data_ptr() for tensor in _tensors(model) if tensor.numel()}
        self.made: list[Tensor] = []
        self.calls = 2  # until they agree once: what forward keeps from one call to the next shows in the second

    def agree(self, call: CallSpec) -> tuple[bool, bool]:
        """Whether graph and eager return the same, and whether there is anything to see in what they return.

        Raises:
            _NotTakenError: one of them does not take this size.
        """
        for random in (True, False):
            ours, theirs = self._outputs(call, random)
            if not _equal(ours, theirs):
                return False, True
            if any(map(_is_informative, ours)):
                self.calls = 1
                return True, True
        return True, False

    def difference(self, call: CallSpec) -> str:
        """What there is to say where they differ."""
        ours: Seen = {}
        theirs: Seen = {}
        for random in (True, False):
            if not _equal(*self._outputs(call, random, (ours, theirs))):
                break
        self.calls, calls = 1, self.calls
        if calls > 1 and _equal(*self._outputs(call, random)):
            return (
                f"{self.program.name}, traced into a graph, computes something else than its own forward at the second "
                f"call on {call}: forward keeps something from one call to the next, which a graph does not. Give it "
                "as an argument and return it, or change a buffer in place"
            )
        where = next((path for path in ours if path in theirs and not _equal(ours[path], theirs[path])), "")
        return (
            f"{self.program.name}, traced into a graph, computes something else than its own forward on {call}"
            f"{f', first in what reaches {where!r} or in it' if where else ''}: forward makes a decision that tracing "
            "cannot see. Make it in __init__, or capture the part without it"
        )

    def _outputs(self, call: CallSpec, random: bool, seen: tuple[Seen, Seen] | None = None) -> Outputs:
        """What the graph and the model return; `seen` collects what their layers return, by path."""
        model, graph = self._copies(random)
        twin = self._copies(random)[0]  # another one where running the graph may have changed the first
        results: list[list[Tensor]] = []
        with preserved(twin), torch.set_grad_enabled(self.gradients):
            for number, (owner, module) in enumerate(((model, graph), (twin, twin))):
                seeds = itertools.count()
                torch.manual_seed(0)  # put back by `preserved`
                outputs: list[Tensor] = []
                try:
                    with (
                        _watched(owner, self.program.modules, seen[number]) if seen else nullcontext(),
                        kept_buffers(owner),
                    ):
                        for _ in range(self.calls):
                            arguments = call.map(lambda spec: _input(spec, next(seeds)).to(self.program.device))  # noqa: B023
                            # Not as fx calls its modules, which prints errors: here they are expected.
                            output = nn.Module.__call__(module, *arguments.args, **arguments.kwargs)
                            outputs += [leaf.detach().clone() for leaf in tensor_leaves(output)]
                except Exception as error:  # whatever a network raises at a size that it does not take
                    raise _NotTakenError(f"{'forward' if number else 'the graph'}: {one_line(error)}") from error
                if self.program.training and not torch.equal(torch.get_rng_state(), _seeded()):
                    raise _NotTakenError("it draws random numbers in train mode")
                results.append(outputs)
        return results[0], results[1]

    def release(self) -> None:
        """Free the copies' weights now: cycles keep the modules until Python looks for garbage."""
        for tensor in self.made:
            tensor.data = tensor.data.new_empty(0)

    def _copies(self, random: bool) -> tuple[nn.Module, fx.GraphModule]:
        """The model and its graph, of the same modules, with random weights if they are to be."""
        if self.kept is None or self.kept[0] != random or self.program.training or self.program.opaque:
            memo: dict[int, Any] = {}
            try:
                model, program = copied(self.model, memo), self.program
            except CaptureError as error:
                raise _UncopiedError(str(error)) from error
            tensors = _tensors(model)
            if not self.originals.isdisjoint(tensor.data_ptr() for tensor in tensors if tensor.numel()):
                raise _UncopiedError("its copy shares weights with it")
            self.made += tensors
            if random:
                _randomize(model)
            modules = {path: memo.get(id(module), module) for path, module in program.modules.items()}
            held = {path: memo.get(id(tensor), tensor) for path, tensor in program.tensors.items()}
            graph = replace(program, modules=modules, tensors=held).graph_module
            self.kept = (random, model, graph)
        return self.kept[1], self.kept[2]


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _seeded() -> Tensor:
    return torch.Generator().manual_seed(0).get_state()


@contextmanager
def _watched(model: nn.Module, layers: Mapping[str, nn.Module], seen: Seen) -> Iterator[None]:
    """Collect what the layers of a model return at their first call."""

    def keep(path: str, _: nn.Module, __: Any, output: Any) -> None:
        seen.setdefault(path, [leaf.clone() for leaf in tensor_leaves(output)])

    named = dict(model.named_modules())
    handles = [named[path].register_forward_hook(functools.partial(keep, path)) for path in layers if path in named]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sizes(call: CallSpec) -> list[CallSpec]:
    """The call at other sizes and at its own, the smallest first.

    Other inputs of which every side is the same share of the largest input's follow it.
    """
    images = [spec.shape[2:] for spec in call.tensors if len(spec.shape) > 2]
    if not images:
        return [call]
    own = max(images, key=math.prod)
    steps = _LENGTHS if len(own) == 1 else _SIDES
    wanted = [
        own,
        *((step,) * len(own) for step in steps),
        *((step,) * (len(own) - 1) + (step * 3 // 2,) for step in steps),
    ]
    return [_resized(call, own, new) for new in sorted(dict.fromkeys(wanted), key=math.prod)]


def _resized(call: CallSpec, own: tuple[int, ...], new: tuple[int, ...]) -> CallSpec:
    def resized(spec: InputSpec) -> InputSpec:
        sides = spec.shape[2:]
        if len(sides) != len(own) or len({Fraction(side, whole) for side, whole in zip(sides, own, strict=True)}) != 1:
            return spec
        factor = Fraction(sides[0], own[0])
        if any((side * factor).denominator != 1 for side in new):
            return spec
        return replace(spec, shape=(*spec.shape[:2], *(int(side * factor) for side in new)))

    return call.map(resized)


def _share(call: CallSpec, of: CallSpec) -> float:
    """How much larger the largest input is than another call's."""
    largest, others = (max((math.prod(spec.shape) for spec in c.tensors), default=1) for c in (call, of))
    return largest / max(1, others)


def _input(spec: InputSpec, seed: int) -> Tensor:
    """Random values: images as `InputSpec.example` makes them, and 0 or 1 of integers, which may be indices."""
    if spec.dtype.is_floating_point:
        return spec.example(seed=seed)
    values = torch.randint(0, 2, spec.shape, generator=torch.Generator().manual_seed(seed))
    return values.to(spec.dtype)


def _randomize(model: nn.Module) -> None:
    """Random weights, the same for the same model, under which values neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point():
                continue
            values = torch.rand(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                values = 0.25 + 0.75 * values
            else:  # uniform, of deviation sqrt(2 / fan in), after He et al., 2015
                values = (2 * values - 1) * math.sqrt(6 * parameter.shape[0] / max(1, parameter.numel()))
            parameter.copy_(values)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
            elif name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))


def _equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    if [(tensor.shape, tensor.dtype) for tensor in ours] != [(tensor.shape, tensor.dtype) for tensor in theirs]:
        return False
    return all(map(_close, ours, theirs))


def _close(one: Tensor, other: Tensor) -> bool:
    if torch.equal(one, other):
        return True
    if not (one.is_floating_point() or one.is_complex()):
        return False
    finite = one.isfinite()
    if not bool((finite == other.isfinite()).all()):
        return False
    largest = one[finite].abs().max() if finite.any() else torch.zeros(())
    error = (one - other)[finite].abs().max() if finite.any() else torch.zeros(())
    return bool(error <= _TOLERANCE * torch.finfo(one.dtype).eps * largest)


def _is_informative(output: Tensor) -> bool:
    """Whether a difference could show in it: finite values that are not all the same."""
    values = torch.view_as_real(output) if output.is_complex() else output
    return values.numel() > 0 and bool(values.isfinite().all()) and bool((values != values.flatten()[0]).any())
