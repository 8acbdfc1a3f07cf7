"""What a network is called with: the shapes and dtypes of tensors, and plain values as they are."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import CaptureError, EngineError

Tree: TypeAlias = Any
"""An `InputSpec`, a plain value (number, bool, text, None, dtype, device), or a list, tuple or dict of trees."""

_PLAIN = (bool, int, float, str, torch.dtype, torch.device, type(None))


@dataclass(frozen=True)
class InputSpec:
    """Shape and dtype of one example input."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def example(self, *, device: torch.device | str = "cpu", seed: int = 0) -> Tensor:
        """An input of this spec in [0, 1], the same for the same seed: an image is smooth with a little noise."""
        if not self.dtype.is_floating_point:
            return torch.zeros(self.shape, dtype=self.dtype, device=device)
        generator = torch.Generator().manual_seed(seed)
        values = torch.rand(self.shape, generator=generator)
        if len(self.shape) == 4 and values.numel():
            coarse = values[..., ::16, ::16]
            smooth = F.interpolate(coarse, self.shape[2:], mode="bicubic", align_corners=False)
            values = (0.9 * smooth + 0.1 * values).clamp(0, 1)
        return values.to(device=device, dtype=self.dtype)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


@dataclass(frozen=True)
class CallSpec:
    """The arguments of one call of `forward`, a spec in place of every tensor."""

    args: tuple[Tree, ...]
    kwargs: Mapping[str, Tree] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[InputSpec, ...]:
        """The specs of all tensors, also of those inside lists and dicts, in order."""
        found: list[InputSpec] = []
        self.map(found.append)
        return tuple(found)

    def map(self, function: Callable[[InputSpec], Any]) -> CallSpec:
        """The same call with `function(spec)` in place of every spec."""
        args, kwargs = map_tree((self.args, dict(self.kwargs)), InputSpec, function)
        return CallSpec(args, kwargs)

    def example(self, *, device: torch.device | str = "cpu") -> CallSpec:
        """The same call with example tensors, as `InputSpec.example` makes them, each of another seed: 0, 1, ..."""
        seeds = itertools.count()
        return self.map(lambda spec: spec.example(device=device, seed=next(seeds)))

    def to_data(self) -> dict[str, Any]:
        """The call as plain data, which `from_data` reads."""
        return {"args": _data(self.args)["tuple"], "kwargs": _data(dict(self.kwargs))["dict"]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> CallSpec:
        """The call that `to_data` wrote.

        Raises:
            ValueError, KeyError: `data` is of another form.
        """
        return cls(_tree({"tuple": data["args"]}), _tree({"dict": data["kwargs"]}))

    def __str__(self) -> str:
        return ", ".join(str(spec) or "scalar" for spec in self.tensors)


ExampleInputs: TypeAlias = Tensor | Sequence[Any] | Mapping[str, Any] | CallSpec | None
"""One tensor, a sequence of positional arguments, keyword arguments by name, or a whole call."""


def example_call(model: nn.Module, example_inputs: ExampleInputs) -> CallSpec:
    """The call that example inputs stand for, with the tensors that were given, or a spec where none was.

    A mapping holds keyword arguments; one whose keys are no parameters of `forward` is its only argument.

    Raises:
        CaptureError: `forward` does not take these arguments, one is neither tensor nor plain value, or there is no
            convolution from which an input could be inferred.
    """
    if example_inputs is None:
        call = CallSpec((_inferred(model),))
    elif isinstance(example_inputs, CallSpec):
        call = example_inputs
    elif isinstance(example_inputs, Mapping):
        known = inspect.signature(model.forward).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        by_name = all(isinstance(key, str) and (key in known or takes_any) for key in example_inputs)
        call = CallSpec((), dict(example_inputs)) if by_name else CallSpec((dict(example_inputs),))
    else:
        several = isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str)
        call = CallSpec(tuple(example_inputs) if several else (example_inputs,))
    bound_call(model, call)
    for index, value in enumerate(call.args):
        _check(value, f"example input {index}")
    for name, value in call.kwargs.items():
        _check(value, f"example input {name!r}")
    return call


def weights_dtype(model: nn.Module) -> torch.dtype:
    """The precision of a network's weights, in which it takes images; float32 without any."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def specs(call: CallSpec) -> CallSpec:
    """The call with a spec in place of every tensor."""
    trees = map_tree((call.args, dict(call.kwargs)), Tensor, lambda t: InputSpec(tuple(t.shape), t.dtype))
    return CallSpec(*trees)


def bound_call(model: nn.Module, call: CallSpec) -> inspect.BoundArguments:
    """The arguments by the names that `forward` gives them.

    Raises:
        CaptureError: there are too few, too many or unknown ones.
    """
    signature = inspect.signature(model.forward)
    try:
        return signature.bind(*call.args, **call.kwargs)
    except TypeError as error:
        plain = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
        number = len(call.args) + len(call.kwargs)
        raise CaptureError(
            f"{number} example input{'s were' if number != 1 else ' was'} given, which do not fit "
            f"{type(model).__name__}.forward{inspect.Signature(plain)}: {error}. Pass example_inputs (--input, once "
            "each, or a file) for all that it needs, as a tuple or as a dict by name",
            code="wrong-input",
        ) from error


def tensors_by_position(model: nn.Module, call: CallSpec) -> tuple[Tensor, ...]:
    """The arguments of a call as engines take them: tensors, one after the other.

    Raises:
        EngineError: there are others among them, or by name only.
    """
    bound = bound_call(model, call)
    in_order = [*bound.arguments] == [*bound.signature.parameters][: len(bound.arguments)] and not bound.kwargs
    if not in_order or not all(isinstance(value, Tensor) for value in bound.args):
        raise EngineError(
            f"engines take tensors, one for each argument, and {type(model).__name__} is called with other values: "
            "use a module around it that has these inside",
            code="wrong-input",
        )
    return bound.args


def rebind(bound: inspect.BoundArguments, make: Callable[[str, Any], Any]) -> inspect.BoundArguments:
    """The arguments with `make(name, value)` in place of each; one of `*images` is named `images_0`."""
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            arguments[name] = tuple(make(f"{name}_{index}", item) for index, item in enumerate(value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            arguments[name] = {key: make(key, item) for key, item in value.items()}
        else:
            arguments[name] = make(name, value)
    return inspect.BoundArguments(bound.signature, arguments)


def map_tree(tree: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """`tree` with `function(leaf)` in place of every leaf of a kind; lists, tuples and dicts are gone through."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tree(value, kind, function) for key, value in tree.items()}
    if isinstance(tree, tuple):
        items = [map_tree(item, kind, function) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    return [map_tree(item, kind, function) for item in tree] if isinstance(tree, list) else tree


def tensor_leaves(value: Any) -> Iterator[Tensor]:
    """All tensors in what a network takes or returns: in lists, tuples, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    if isinstance(value, Mapping):
        value = list(value.values())
    elif is_dataclass(value) and not isinstance(value, type):
        value = list(vars(value).values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from tensor_leaves(item)


def _inferred(model: nn.Module) -> InputSpec:
    first = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))), None)
    if first is None:
        raise CaptureError(
            f"{type(model).__name__} has no Conv2d to infer an input from: pass example_inputs, for instance "
            "torch.rand(1, 3, 256, 256)",
            code="wrong-input",
        )
    return InputSpec((1, first.in_channels, 256, 256), first.weight.dtype)


def _check(value: Any, what: str) -> None:
    if isinstance(value, (Tensor, InputSpec, *_PLAIN)):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            _check(item, f"{what}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, f"{what}[{index}]")
    else:
        raise CaptureError(
            f"{what} is a {type(value).__name__}, expected a tensor, a number, a bool, text, None, or lists, tuples "
            "and dicts of them",
            code="wrong-input",
        )


def _data(tree: Tree) -> Any:
    if isinstance(tree, InputSpec):
        return {"shape": tree.shape, "dtype": str(tree.dtype).removeprefix("torch.")}
    if isinstance(tree, dict):
        return {"dict": {key: _data(value) for key, value in tree.items()}}
    if isinstance(tree, (list, tuple)):
        return {"list" if isinstance(tree, list) else "tuple": [_data(item) for item in tree]}
    if isinstance(tree, (torch.dtype, torch.device)):
        return {type(tree).__name__: str(tree).removeprefix("torch.")}
    return {"value": tree}


def _tree(data: Mapping[str, Any]) -> Tree:
    match data:
        case {"shape": shape, "dtype": dtype}:
            return InputSpec(tuple(shape), getattr(torch, dtype))
        case {"dict": entries}:
            return {key: _tree(value) for key, value in entries.items()}
        case {"list": items}:
            return [_tree(item) for item in items]
        case {"tuple": items}:
            return tuple(_tree(item) for item in items)
        case {"dtype": name}:
            return getattr(torch, name)
        case {"device": name}:
            return torch.device(name)
        case {"value": value}:
            return value
        case _:
            raise ValueError(f"{data!r} is no input")


def in_standard_layout(tensor: Tensor) -> Tensor:
    """A tensor as torch lays out new ones: `contiguous` leaves strides of sizes of 1, by which engines judge."""
    if tensor.stride() == torch.empty(tensor.shape, device="meta").stride():
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
