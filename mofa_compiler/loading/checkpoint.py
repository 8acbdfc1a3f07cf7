"""Checkpoints: find the weights in what training frameworks save, and load them strictly.

Nothing is ever unpickled beyond tensors and plain containers (`weights_only=True`).
"""

from __future__ import annotations

import errno
import pickle
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..base.dtypes import converts, number_text
from ..base.errors import CheckpointError, nearest
from .wrappers import unwrapped, unwrapped_key

NESTED = (
    *("params_ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema", "params"),
    *("state_dict", "model_state_dict", "model", "net_g", "generator", "net", "network", "weights", "module"),
)
"""Keys under which frameworks keep the weights, the averaged ones first: BasicSR, timm, Lightning and plain loops"""

_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averaged?|avg|shadow)(?:[._]|$)", re.IGNORECASE)
"""What entries and prefixes are called that hold averaged weights, besides those of `NESTED`"""

_COUNTER = "n_averaged"
"""What torch's AveragedModel keeps beside the weights"""

_WRAPPER = "module"
"""The part that DataParallel, DistributedDataParallel and averages put into names, wherever they stand in a network"""

_PREFIXES = 20
_LISTED = 20


@dataclass(frozen=True)
class Weights:
    """A state_dict and how it was found: `params_ema of net_g.pth (there is also params: --key), without 'module.'`."""

    state: dict[str, Tensor]
    description: str


@dataclass(frozen=True)
class _Candidate:
    key: str
    prefix: str
    state: dict[str, Tensor]
    averaged: bool = False


def load_checkpoint(
    path: str | Path, model: nn.Module, *, key: str | None = None, strip_prefix: str | None = None
) -> Weights:
    """Read a checkpoint and pick the state_dict in it that matches `model` best; `model` is not changed.

    Args:
        path: a `.safetensors` file or anything that `torch.save` wrote.
        model: decides between nested dictionaries (see `NESTED`) and between prefixes such as `module.` or `net.`;
            where they match equally well, averaged weights win. Names are those without what wrappers put into them.
        key: take this entry, with dots for deeper ones (`state.generator`).
        strip_prefix: keep only the keys that begin so, without it.

    Raises:
        CheckpointError: no such file, not a checkpoint, one that needs code to be unpickled, no tensors in it, or
            several networks that all fit.
    """
    path, model = Path(path), unwrapped(model)
    content = _read(path)
    found = _entries(content) if key is None else _entry(content, key, path)
    if not found:
        raise CheckpointError(
            f"{path} holds no state_dict under a name that we know: {_keys(content)}", code="wrong-kind"
        )
    expected = model.state_dict()
    if strip_prefix is None:
        candidates = [candidate for name, state in found.items() for candidate in _candidates(name, state, expected)]
    else:
        candidates = [_Candidate(name, strip_prefix, _below(strip_prefix, state)) for name, state in found.items()]
        if not any(candidate.state for candidate in candidates):
            first = next(iter(found.values()))
            raise CheckpointError(
                f"{path}: no key begins with {strip_prefix!r}; the keys are {_some(first)}", code="unknown-name"
            )
    best, equal = _best(path, candidates, expected)
    others = [name for name in found if name not in ("", best.key)]
    prefixes = [one.prefix for one in equal if one.key == best.key and one.prefix != best.prefix]
    return Weights(best.state, _describe(path, best, others, prefixes))


def fit(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state_dict into `model`, all of it or nothing.

    Raises:
        CheckpointError: keys are missing, unexpected, of another shape, or of a dtype whose numbers would say something
            else in the model's; the message lists them.
    """
    model = unwrapped(model)
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    mismatched = [
        f"{key}: {_shape(state[key])} in the checkpoint, {_shape(tensor)} in the model"
        for key, tensor in expected.items()
        if key in state and _shape(state[key]) != _shape(tensor)
    ]
    other = [
        f"{key}: {number_text(state[key])} in the checkpoint, {number_text(tensor)} in the model"
        for key, tensor in expected.items()
        if key in state and _shape(state[key]) == _shape(tensor) and not converts(state[key], tensor.dtype)
    ]
    if missing or unexpected or mismatched or other:
        fitting = len(expected) - len(missing) - len(mismatched) - len(other)
        lines = [
            f"{source} does not fit {type(model).__name__}: {fitting} of its {len(expected)} tensors match; "
            "nothing was loaded",
            *_listed("missing from the checkpoint", missing),
            *_listed("not in the model", unexpected),
            *_listed("of another shape", mismatched),
            *_listed("of a dtype that cannot be converted", other),
        ]
        if mismatched:
            lines.append("  (were other arguments used to build the architecture? see --arg)")
        elif not fitting and not other:
            lines.append("  (is it another architecture, or another entry? see --key and --strip-prefix)")
        raise CheckpointError("\n".join(lines), code="does-not-fit")
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{source} cannot be loaded: {' '.join(str(error).split())}", code="unreadable"
        ) from error


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is a folder, not a checkpoint" if path.is_dir() else f"there is no file {path}", code="not-found"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path, device="cpu")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refused(path, str(error)), code="unreadable") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # torch looks for what should stand before the file's beginning
            raise CheckpointError(f"{path} is damaged: it is cut off, or no checkpoint", code="damaged") from error
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", code="unreadable") from error
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise CheckpointError(_unreadable(path, error), code="damaged") from error


def _unreadable(path: Path, error: Exception) -> str:
    if "TorchScript" in str(error):
        return (
            f"{path} is a TorchScript archive, not a checkpoint: save the state_dict() of the module it was made from"
        )
    first = " ".join(str(error).split(". ")[0].split())[:120]
    return f"{path} is damaged, or no checkpoint ({type(error).__name__}{f': {first}' if first else ''})"


def _refused(path: Path, message: str) -> str:
    """Why `weights_only` refused: the class or function that the file wants, or that it is no pickle."""
    wanted = re.search(r"GLOBAL (\S+)", message) or re.search(r"(?:class|global|type)s?:? ([\w.]+\.\w+)", message)
    if not wanted:
        return f"{path} is damaged, or torch.save did not write it"
    return (
        f"{path} holds more than tensors: it needs {wanted[1]}, and to load that could run any code, so the file was "
        "not loaded. Where you trust it, save its model.state_dict() alone, by torch.save or as .safetensors"
    )


def _entry(content: Any, key: str, path: Path) -> dict[str, dict[str, Tensor]]:
    inner = content
    for part in key.split("."):
        if not isinstance(inner, Mapping) or part not in inner:
            known = map(str, inner) if isinstance(inner, Mapping) else ()
            raise CheckpointError(f"{path} has no entry {key!r}{nearest(part, known)}", code="unknown-name")
        inner = inner[part]
    state = _tensors(inner)
    if not state:
        raise CheckpointError(f"{path}: the entry {key!r} holds no tensors; {_keys(inner)}", code="wrong-kind")
    return {key: state}


def _entries(content: Any) -> dict[str, dict[str, Tensor]]:
    """Every state_dict under a known name, at most two levels down, averaged weights first; then the top itself."""
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, dict[str, Tensor]] = {}
    for name in sorted(_names(content), key=lambda name: not _AVERAGED.search(name)):
        inner = content.get(name)
        if not isinstance(inner, Mapping):
            continue
        nested = {f"{name}.{deeper}": _tensors(inner.get(deeper)) for deeper in _names(inner)}
        found |= {key: state for key, state in {name: _tensors(inner), **nested}.items() if state}
    return found | ({"": top} if (top := _tensors(content)) else {})


def _names(content: Mapping[Any, Any]) -> list[str]:
    """The names under which a mapping may hold a state_dict: known ones, and any that say that it is averaged."""
    averaged = [key for key in content if isinstance(key, str) and key not in NESTED and _AVERAGED.search(key)]
    return [*NESTED, *averaged]


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _candidates(name: str, state: Mapping[str, Tensor], expected: Collection[str]) -> list[_Candidate]:
    """A state_dict without any prefix that stands before names of the model; what wrappers put in goes, too."""
    plain = {unwrapped_key(key): value for key, value in state.items()}
    prefixes: Counter[str] = Counter()
    for key in plain:
        parts = key.split(".")
        for start in range(1, len(parts)):
            if ".".join(parts[start:]) in expected:
                prefixes[".".join(parts[:start]) + "."] += 1
    likely = sorted((prefix for prefix, _ in prefixes.most_common(_PREFIXES)), key=len)
    found = []
    for prefix in ("", *likely):
        counted = prefix.endswith(f"{_WRAPPER}.") and prefix.removesuffix(f"{_WRAPPER}.") + _COUNTER in plain
        averaged = counted or bool(_AVERAGED.search(name) or _AVERAGED.search(prefix))
        found.append(_Candidate(name, prefix, _renamed(_below(prefix, plain), expected), averaged))
    return found


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _renamed(state: dict[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """A state_dict by the model's names, where parts of the network were wrapped: `encoder.module.0` is `encoder.0`.

    Names that the model has stay, and what two names would claim is claimed by neither.
    """
    if all(key in expected for key in state):
        return state
    claims = Counter(_bare(key) for key in state if key not in expected)
    names = Counter(map(_bare, expected))
    free = {_bare(key): key for key in expected if key not in state and names[_bare(key)] == 1}
    return {
        key if key in expected or claims[_bare(key)] > 1 else free.get(_bare(key), key): value
        for key, value in state.items()
    }


def _bare(key: str) -> str:
    first, *others = key.split(".")
    return ".".join([first, *(part for part in others if part != _WRAPPER)])


def _best(
    path: Path, candidates: list[_Candidate], expected: Mapping[str, Tensor]
) -> tuple[_Candidate, list[_Candidate]]:
    """The candidate that fits best, averaged weights before others, and all that fit as well.

    Raises:
        CheckpointError: two that fit wholly hold other weights, and neither or both are averaged.
    """
    scores = [_score(candidate.state, expected) for candidate in candidates]
    equal = [candidate for candidate, score in zip(candidates, scores, strict=True) if score == max(scores)]
    rivals = [candidate for candidate in equal if candidate.averaged] or equal
    best = rivals[0]
    other = next((one for one in rivals if not _same(one.state, best.state, expected)), None)
    if other is not None and max(scores)[0] == len(expected):
        choices = filter(None, (_choice(best, other), _choice(other, best)))
        raise CheckpointError(
            f"{path} holds two networks that fit and differ: {_named(best)} and {_named(other)}; choose by "
            f"{' or '.join(choices)}",
            code="ambiguous",
        )
    return best, equal


def _named(candidate: _Candidate) -> str:
    entry = f"the entry {candidate.key!r}" if candidate.key else "the file's own"
    return f"{entry} below {candidate.prefix!r}" if candidate.prefix else entry


def _choice(candidate: _Candidate, other: _Candidate) -> str:
    """The options that name one of two candidates; none for what stands beside the other without a prefix."""
    options = [f"--key {candidate.key}"] if candidate.key and candidate.key != other.key else []
    if candidate.prefix and candidate.prefix != other.prefix:
        options.append(f"--strip-prefix {candidate.prefix}")
    return " ".join(options)


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], expected: Collection[str]) -> bool:
    """Whether two state_dicts hold the same weights under the model's names."""

    def equal(key: str) -> bool:
        first, second = one.get(key), other.get(key)
        if first is None or second is None or first.dtype != second.dtype or first.is_meta or second.is_meta:
            return first is second
        return torch.equal(first, second)

    return all(map(equal, expected))


def _score(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[int, int]:
    """How well a state fits: tensors that match in name and shape, and those that match in name."""
    named = [key for key in state if key in expected]
    return sum(_shape(state[key]) == _shape(expected[key]) for key in named), len(named)


def _describe(path: Path, best: _Candidate, others: list[str], prefixes: list[str]) -> str:
    text = f"{best.key} of {path.name}" if best.key else path.name
    if best.averaged and not (_AVERAGED.search(best.key) or _AVERAGED.search(best.prefix)):
        text += ", averaged weights"
    if others:
        text += f" (there is also {', '.join(others)}: --key)"
    if best.prefix:
        text += f", without the prefix {best.prefix!r}"
    if best.prefix and prefixes:
        text += f" ({', '.join(map(repr, prefixes))} would fit as well: --strip-prefix)"
    return text


def _keys(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__}"
    return f"its keys are {_some(content)}; choose one by --key" if content else "it is empty"


def _some(names: Iterable[Any]) -> str:
    listed = [repr(str(name)) for name in names]
    return ", ".join(listed[:8]) + (f", … and {len(listed) - 8} more" if len(listed) > 8 else "")


def _listed(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = [f"    … and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return [f"  {len(names)} {title}:", *(f"    {name}" for name in names[:_LISTED]), *more]


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) or "a scalar" if isinstance(value, Tensor) else type(value).__name__
