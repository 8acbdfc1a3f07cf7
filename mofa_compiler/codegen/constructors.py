"""The constructor call that makes a layer like a given one."""

from __future__ import annotations

import inspect
import re
import types
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import BundleError
from ..graph.plain_layers import altered, is_ours, stands_for
from ..loading.importing import class_text
from ..nn.partial_conv import PartialConv2d
from .literals import literal

_NOT_SAID = {"self", "device", "dtype", "init"}
_ONE_PER_DIMENSION = {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size"}


class Slot:
    """A number in a constructor call that may become a parameter of the class around it: `⟨hint=value⟩` in the text."""

    START, END = "\ue000", "\ue001"
    PATTERN = re.compile(f"{START}([^{START}{END}=]*)=(-?[0-9]+){END}")

    @classmethod
    def mark(cls, hint: str, value: int) -> str:
        return f"{cls.START}{cls._harmless(hint)}={value}{cls.END}"

    @classmethod
    def within(cls, layer: str, text: str) -> str:
        """The text with the layer's name before every hint, `conv:channels`."""
        return text.replace(cls.START, f"{cls.START}{cls._harmless(layer)}:")

    @staticmethod
    def _harmless(hint: str) -> str:
        """A hint that ends no slot."""
        return re.sub(r"[^\w:]", "_", hint)

    @classmethod
    def plain(cls, text: str) -> str:
        """The text with every slot's own number."""
        return cls.PATTERN.sub(r"\2", text)


def constructor(path: str, module: nn.Module) -> tuple[str, type[nn.Module]]:
    """Source such as `nn.Conv2d(16, 32, 3, padding=1)`, its numbers as slots, and the class that it names.

    Raises:
        BundleError: the class is not one of torch's (or of `mofa_compiler.nn`), or its arguments cannot be told.
    """
    if reason := altered(module):
        raise BundleError(
            f"{path} ({type(module).__name__}) {reason}, which source cannot carry: undo that before saving",
            code="no-source",
        )
    kind = _emitted_class(path, module)
    arguments, values = _arguments(path, module, kind)
    name = kind.__name__ if is_ours(kind) else f"nn.{kind.__name__}"
    _check(path, module, kind, values)
    frozen = [parameter.requires_grad for parameter in module.parameters()]
    freeze = ".requires_grad_(False)" if frozen and not any(frozen) else ""
    return f"{name}({', '.join(arguments)}){freeze}", kind


def is_known(module: nn.Module) -> bool:
    """Whether a module is a layer of torch or of this package, or behaves as one."""
    return stands_for(module) is not None


def _emitted_class(path: str, module: nn.Module) -> type[nn.Module]:
    base = stands_for(module)
    if base is None:
        raise BundleError(
            f"{path} is a {class_text(type(module))}, a layer that is not torch's own: a "
            "bundle that loads without your code cannot hold it; replace it, or keep the model as code and recipe.json",
            code="no-source",
        )
    return base


def _arguments(path: str, module: nn.Module, kind: type[nn.Module]) -> tuple[list[str], dict[str, Any]]:
    """The arguments' source, required ones by position, and their values by name."""
    texts: list[str] = []
    values: dict[str, Any] = {}
    by_name = False
    for parameter in _parameters(kind):
        value = _value(module, parameter)
        if value is inspect.Parameter.empty:
            if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                raise BundleError(
                    f"{path}: {kind.__name__} does not keep its argument {parameter.name!r}, so no source can be "
                    "written for it",
                    code="no-source",
                )
            by_name = True
            continue
        value = _shortened(parameter.name, value)
        if parameter.default is not inspect.Parameter.empty:
            if _same(parameter.default, value):
                continue
            by_name = True
        values[parameter.name] = value
        text = _number(parameter.name, value)
        texts.append(f"{parameter.name}={text}" if by_name else text)
    return texts, values


def _parameters(kind: type[nn.Module]) -> list[inspect.Parameter]:
    # RNN, LSTM and GRU take *args; their base class spells the arguments out, with `mode` in front.
    recurrent = issubclass(kind, nn.RNNBase)
    function = nn.RNNBase.__init__ if recurrent else kind.__init__
    skipped = _NOT_SAID | ({"mode"} if recurrent else set())
    found = inspect.signature(function).parameters.values()
    named = [p for p in found if p.name not in skipped and not p.name.startswith("_")]
    if kind is nn.RNN:
        named.append(inspect.Parameter("nonlinearity", inspect.Parameter.KEYWORD_ONLY, default="tanh"))
    return [p for p in named if p.kind is not p.VAR_KEYWORD]


def _value(module: nn.Module, parameter: inspect.Parameter) -> Any:
    name = parameter.name
    if isinstance(module, nn.MultiheadAttention):
        special: dict[str, bool | None] = {"bias": module.in_proj_bias is not None}
        special["add_bias_kv"] = module.bias_k is not None
        special |= {key: None for key in ("kdim", "vdim") if getattr(module, key) == module.embed_dim}
        if name in special:
            return special[name]
    if isinstance(module, PartialConv2d) and not hasattr(module, name):
        module = module.conv
    value = getattr(module, name, inspect.Parameter.empty)
    if isinstance(value, types.MethodType):  # `modules` of an empty ModuleList
        return inspect.Parameter.empty
    if isinstance(value, Tensor) or (name == "bias" and value is None):
        # LayerNorm without affine has no bias either way: leave its default
        return bool(parameter.default) if value is None and _no_affine(module) else value is not None
    if name == "stride" and parameter.default is None and value == module.kernel_size:
        return None
    if name == "scale_factor" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _no_affine(module: nn.Module) -> bool:
    return not getattr(module, "elementwise_affine", True) or not getattr(module, "affine", True)


def _shortened(name: str, value: Any) -> Any:
    if name in _ONE_PER_DIMENSION and isinstance(value, tuple) and len(set(value)) == 1:
        return value[0]
    if name == "normalized_shape" and len(value) == 1:
        return value[0]
    return tuple(value) if isinstance(value, torch.Size) else value


def _number(name: str, value: Any) -> str:
    if type(value) is int:
        return Slot.mark(name, value)
    return literal(value)


def _same(first: Any, second: Any) -> bool:
    """Equal, with (3, 3) equal to 3 and 1 no bool."""
    if isinstance(first, bool) is not isinstance(second, bool):
        return False
    scalars = [v[0] if isinstance(v, (tuple, list)) and v and len(set(v)) == 1 else v for v in (first, second)]
    return bool(scalars[0] == scalars[1])


def _check(path: str, module: nn.Module, kind: type[nn.Module], values: dict[str, Any]) -> None:
    """Refuse a layer whose constructor does not give it back."""
    with torch.device("meta"):
        try:
            positional = [values[p.name] for p in _parameters(kind) if p.default is p.empty and p.name in values]
            named = {p.name for p in _parameters(kind) if p.default is not p.empty}
            twin = kind(*positional, **{name: value for name, value in values.items() if name in named})
        except Exception as error:
            raise BundleError(
                f"{path}: no source could be written for this {kind.__name__}: {error}", code="no-source"
            ) from error
    theirs, ours = module.state_dict(keep_vars=True), twin.state_dict(keep_vars=True)
    if {k: v.shape for k, v in theirs.items()} != {k: v.shape for k, v in ours.items()}:
        raise BundleError(
            f"{path}: this {kind.__name__} does not hold what its arguments say, so no source can be written for it",
            code="no-source",
        )
    for (name, given), (_, built) in zip(module.named_modules(), twin.named_modules(), strict=True):
        for key, value in settings(built).items():
            if not _same(value, getattr(given, key, None)):
                where = f"{name}.{key}" if name else key
                raise BundleError(
                    f"{path}: this {kind.__name__}'s {where} is {getattr(given, key, None)!r}, which none of its "
                    "constructor's arguments gives",
                    code="no-source",
                )


def settings(module: nn.Module) -> dict[str, Any]:
    """A module's own plain attributes: what its constructor was told, and what follows from that."""
    plain = (bool, int, float, str, tuple, type(None))
    own = vars(module).items()
    return {k: v for k, v in own if isinstance(v, plain) and not k.startswith("_") and k != "training"}
