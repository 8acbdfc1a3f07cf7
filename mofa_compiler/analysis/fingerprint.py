"""Fingerprints: hashes of what a network computes and of the values of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..codegen.constructors import settings
from ..graph.program import Program


def architecture_hash(program: Program) -> str:
    """SHA-256 of what a program computes and of the shapes of its weights.

    It does not depend on weights, devices, modes, names of values or the size of the input.
    """
    numbers = {node: index for index, node in enumerate(program.graph.nodes)}
    lines = [
        f"{node.op} {_target(node.target)} {_structure(node.args, numbers)} {_structure(node.kwargs, numbers)}"
        for node in program.graph.nodes
    ]
    lines += [f"{path}: {_layer(module)}" for path, module in sorted(program.modules.items())]
    lines += [f"{path}: {tuple(tensor.shape)}" for path, tensor in sorted(program.tensors.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _target(target: Any) -> str:
    if isinstance(target, str):
        return target
    target = getattr(target, "autograd_function", target)
    name = getattr(target, "__qualname__", None) or getattr(target, "__name__", None) or str(target)
    return f"{getattr(target, '__module__', None)}.{name}"


def _structure(value: Any, numbers: Mapping[fx.Node, int]) -> str:
    if isinstance(value, fx.Node):
        return f"%{numbers[value]}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_structure(item, numbers) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_structure(item, numbers)}' for key, item in value.items())}}}"
    if isinstance(value, slice):
        return f"slice{_structure((value.start, value.stop, value.step), numbers)}"
    return "device" if isinstance(value, torch.device) else repr(value)


def _layer(module: nn.Module) -> str:
    """Class, settings and shapes of a layer and what is inside it."""
    parts = []
    for name, inner in module.named_modules():
        parts.append(f"{name}={type(inner).__module__}.{type(inner).__qualname__}{sorted(settings(inner).items())}")
    shapes = sorted((key, tuple(tensor.shape)) for key, tensor in module.state_dict(keep_vars=True).items())
    return f"{' '.join(parts)} {shapes}"


def checksum(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, precisions, shapes and values."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        tensor = weights[key].detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
