"""States that a call leaves as it found them: generators, autograd's modes, a network's buffers, patched names."""

from __future__ import annotations

import importlib
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import nn

P = ParamSpec("P")
R = TypeVar("R")

_ONE_AT_A_TIME = threading.RLock()
"""Held while the global generators are not what they were: another thread would take that for what they are"""


def import_compiler() -> None:
    """Import torch._dynamo, which torch's kernels for meta tensors import at their first call.

    To be called before anything in torch is patched, for it keeps what it finds there. Its packages set an environment
    variable and a filter of warnings, which are put back.
    """
    if "torch._dynamo" in sys.modules:
        return
    environment = dict(os.environ)
    with warnings.catch_warnings():
        importlib.import_module("torch._dynamo")
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]


@contextmanager
def own_randomness(seed: int | None = None) -> Iterator[None]:
    """Python's, numpy's and torch's global generators, and afterwards in the states that they were in.

    Unlike `torch.random.fork_rng` that holds for all three, and where threads do it at once: one waits for the other.

    Args:
        seed: of torch's generators in between; without one they go on from where they are.
    """
    with _ONE_AT_A_TIME:
        before = _states()
        if seed is not None:
            torch.manual_seed(seed)
        try:
            yield
        finally:
            _put_back(before)


@contextmanager
def kept_randomness() -> Iterator[None]:
    """The same for what takes long, and may not keep other threads from their work."""
    with _ONE_AT_A_TIME:
        before = _states()
    try:
        yield
    finally:
        with _ONE_AT_A_TIME:
            _put_back(before)


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """The values in a module's buffers, which its forward may write into, as they are now, and afterwards again."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in before:
                if not torch.equal(buffer, values):
                    buffer.copy_(values)


@contextmanager
def kept_modes(module: nn.Module) -> Iterator[None]:
    """Train or eval mode, of every module its own, as now, and afterwards again."""
    modes = {inner: inner.training for inner in module.modules()}
    try:
        yield
    finally:
        for inner, mode in modes.items():
            inner.training = mode


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for an operation of torch on the CPU, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_normal_mode(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose tensors can be trained, also where it is called under `torch.inference_mode()`."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False):
            return function(*args, **kwargs)

    return call


def _states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _put_back(states: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)


_ABSENT = object()
_isinstance = isinstance  # which may itself be patched when all is put back


@contextmanager
def patched_names(patches: Iterable[tuple[Any, Any, Any]]) -> Iterator[None]:
    """Names of modules, classes and namespaces (dicts) have the given values until the end of the context.

    Afterwards each has what it had, in reverse order; one that was not there, or was inherited, is gone again.
    """
    undo: list[tuple[Any, Any, Any]] = []
    try:
        for home, name, value in patches:
            held = home if _isinstance(home, dict) else vars(home)
            undo.append((home, name, held.get(name, _ABSENT)))
            _put(home, name, value)
        yield
    finally:
        for home, name, was in reversed(undo):
            _put(home, name, was)


def _put(home: Any, name: Any, value: Any) -> None:
    if not _isinstance(home, dict):
        delattr(home, name) if value is _ABSENT else setattr(home, name, value)
    elif value is _ABSENT:
        del home[name]
    else:
        home[name] = value
