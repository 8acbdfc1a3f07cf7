"""Checkpoints: find the weights in what training frameworks save, and load them strictly.

Nothing is ever unpickled beyond tensors and plain containers (`weights_only=True`).
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import CheckpointError, nearest

NESTED = (
    *("params_ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema", "params"),
    *("state_dict", "model_state_dict", "model", "net_g", "generator", "net", "network", "weights"),
)
"""Keys under which frameworks keep the weights, the averaged ones first: BasicSR, timm, Lightning and plain loops"""

_WRAPPERS = ("module.", "_orig_mod.")
_LISTED = 20


@dataclass(frozen=True)
class Weights:
    """A state_dict, and how it was found: `params_ema of net_g.pth (there is also params), without the prefix module.`"""

    state: dict[str, Tensor]
    description: str


@dataclass(frozen=True)
class _Candidate:
    key: str
    prefix: str
    state: dict[str, Tensor]


def load_checkpoint(
    path: str | Path, model: nn.Module, key: str | None = None, strip_prefix: str | None = None
) -> Weights:
    """Read a checkpoint and pick the state_dict in it that matches `model` best.

    Args:
        path: a `.safetensors` file or anything that `torch.save` wrote.
        model: decides between nested dictionaries (see `NESTED`) and between prefixes such as `module.` or `net.`;
            where they match equally well, averaged weights win, and the least is stripped.
        key: take this entry, with dots for deeper ones (`state.generator`).
        strip_prefix: keep only the keys that begin so, without it.

    Raises:
        CheckpointError: no such file, not a checkpoint, one that needs code to be unpickled, or no tensors in it.
    """
    path = Path(path)
    content = _read(path)
    found = _entry(content, key, path) if key is not None else _entries(content)
    if not found:
        raise CheckpointError(f"{path} holds no state_dict; its top-level keys are {_keys(content)}: name one by --key")
    if strip_prefix is not None:
        candidates = [
            _Candidate(name, strip_prefix, stripped)
            for name, state in found.items()
            if (stripped := _without(strip_prefix, state))
        ]
        if not candidates:
            first = next(iter(found.values()))
            raise CheckpointError(f"{path}: no key begins with {strip_prefix!r}; the first ones are {_some(first)}")
    else:
        expected = model.state_dict().keys()
        candidates = [
            _Candidate(name, prefix, _without(prefix, state))
            for name, state in found.items()
            for prefix in _prefixes(state, expected)
        ]
    best = max(candidates, key=lambda candidate: _score(candidate.state, model))
    return Weights(best.state, _describe(path, best, [name for name in found if name != best.key]))


def fit(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state_dict into `model`, all of it or nothing.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; the message lists them.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    mismatched = [
        f"{key}: {_shape(state[key])} in the checkpoint, {_shape(expected[key])} in the model"
        for key in expected
        if key in state and isinstance(expected[key], Tensor) and state[key].shape != expected[key].shape
    ]
    if missing or unexpected or mismatched:
        total = len(expected)
        fitting = total - len(missing) - len(mismatched)
        lines = [
            f"{source} does not fit {type(model).__name__}: {fitting} of its {total} tensors match; nothing was loaded",
            *_listed("missing from the checkpoint", missing),
            *_listed("not in the model", unexpected),
            *_listed("of another shape", mismatched),
        ]
        if not fitting:
            lines.append(
                "Is this another architecture, or do its arguments differ (--arg)? See also --key, --strip-prefix"
            )
        elif mismatched and not missing and not unexpected:
            lines.append("The names agree: the architecture was probably built with other arguments (--arg)")
        raise CheckpointError("\n".join(lines))
    model.load_state_dict(dict(state), strict=True)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path} is a folder, not a checkpoint" if path.is_dir() else f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path, device="cpu")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refused(path, str(error))) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        first = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {first or type(error).__name__}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _refused(path: Path, message: str) -> str:
    """Why `weights_only` refused: the class or function that the file wants, or that it is no pickle."""
    wanted = re.search(r"GLOBAL (\S+)|[Uu]nsupported (?:class|global):? (\S+)", message)
    if not wanted:
        return f"{path} cannot be read as a checkpoint: it is damaged or was not written by torch.save"
    name = (wanted[1] or wanted[2]).strip("`'\".,")
    return (
        f"{path} holds more than tensors: it needs {name}, and loading that could run code, so the file was not loaded. "
        "Where you trust it, save model.state_dict() from it, by torch.save or as .safetensors, and give that"
    )


def _entry(content: Any, key: str, path: Path) -> dict[str, dict[str, Tensor]]:
    for part in key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            known = map(str, content) if isinstance(content, Mapping) else ()
            raise CheckpointError(f"{path} has no entry {key!r}{nearest(part, known)}")
        content = content[part]
    state = _tensors(content)
    if not state:
        raise CheckpointError(f"{path}: the entry {key!r} holds no tensors")
    return {key: state}


def _entries(content: Any) -> dict[str, dict[str, Tensor]]:
    """Every state_dict at the top or one level below, averaged weights first."""
    found: dict[str, dict[str, Tensor]] = {}
    if not isinstance(content, Mapping):
        return found
    for name in NESTED:
        inner = content.get(name)
        if not isinstance(inner, Mapping):
            continue
        if state := _tensors(inner):
            found[name] = state
        for deeper in NESTED:
            if isinstance(inner.get(deeper), Mapping) and (state := _tensors(inner[deeper])):
                found[f"{name}.{deeper}"] = state
    top = _tensors(content)
    return {**found, "": top} if top else found


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _prefixes(state: Mapping[str, Tensor], expected: Iterable[str]) -> list[str]:
    """What may be stripped: nothing, wrappers, and whatever stands before a key of the model."""
    prefixes = {"": None}
    first = next(iter(expected), "")
    for key in state:
        if key.endswith(f".{first}"):
            prefixes[key.removesuffix(first)] = None
        start = ""
        while wrapper := next((w for w in _WRAPPERS if key.startswith(start + w)), ""):
            start += wrapper
            prefixes[start] = None
    return sorted(prefixes, key=len)


def _without(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries below a prefix, without it; wrappers that torch puts inside (`_orig_mod.`) go too."""
    return {
        key.removeprefix(prefix).replace("_orig_mod.", ""): value
        for key, value in state.items()
        if key.startswith(prefix)
    }


def _score(state: Mapping[str, Tensor], model: nn.Module) -> tuple[int, int, int]:
    """How well a state fits: tensors that match in name and shape, those that match in name, and few others."""
    expected = model.state_dict()
    named = [key for key in state if key in expected]
    shaped = [key for key in named if state[key].shape == expected[key].shape]
    return len(shaped), len(named), -len(state)


def _describe(path: Path, best: _Candidate, others: list[str]) -> str:
    text = f"{best.key} of {path.name}" if best.key else path.name
    if rest := [name for name in others if name]:
        text += f" (there is also {', '.join(rest)}: --key)"
    return f"{text}, without the prefix {best.prefix!r}" if best.prefix else text


def _keys(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"none, it is a {type(content).__name__}"
    return _some(content) if content else "none, it is empty"


def _some(names: Iterable[Any]) -> str:
    listed = [repr(str(name)) for name in names]
    return ", ".join(listed[:8]) + (f", … and {len(listed) - 8} more" if len(listed) > 8 else "")


def _listed(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = [f"    … and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return [f"  {len(names)} {title}:", *(f"    {name}" for name in names[:_LISTED]), *more]


def _shape(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar" if isinstance(tensor, Tensor) else type(tensor).__name__
