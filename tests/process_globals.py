"""What the process has in common: what its names stand for, and its settings. Imports nothing of this package."""

from __future__ import annotations

import builtins
import faulthandler
import gc
import locale
import logging
import math
import operator
import os
import random
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx import _symbolic_trace

_HOMES = (
    *(builtins, math, operator, np, torch, torch.jit, torch.random, F, nn.init, nn.modules.module, fx, _symbolic_trace),
    *(Tensor, nn.Module, nn.Parameter, torch.Size, torch.jit.ScriptFunction, torch.autograd.Function, fx.Graph),
    *(fx.GraphModule, fx.Node, fx.Proxy, fx.Tracer, fx.Interpreter, warnings, sys, os, threading, random, logging),
)
"""Where tracing and its like patch names"""


_PYTHONS = ("_", "__warningregistry__", "_counter")
"""What Python itself writes down as it goes"""


def names(more: Iterable[Any] = ()) -> dict[str, Any]:
    """What every name of a home stands for; without submodules, which importing adds."""
    return {
        f"{getattr(home, '__name__', home)}.{name}": value
        for home in (*_HOMES, *more)
        for name, value in list(vars(home).items())
        if not isinstance(value, types.ModuleType) and name not in _PYTHONS
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The names that do not stand for the same object any more."""
    gone = object()
    pairs = {name: (before.get(name, gone), after.get(name, gone)) for name in before.keys() | after.keys()}
    return {name: pair for name, pair in pairs.items() if pair[0] is not pair[1]}


def settings() -> dict[str, Any]:
    """Everything of the process that is no name: modes, generators, hooks, filters, threads."""
    numpy: Any = np.random.get_state()
    return {
        "import": (list(sys.meta_path), list(sys.path_hooks), list(sys.path), builtins.__import__),
        "torch": (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.get_num_threads(),
            torch.get_num_interop_threads(),
            torch.get_float32_matmul_precision(),
            torch.backends.mkldnn.enabled,
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.is_anomaly_enabled(),
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
            _symbolic_trace._is_fx_tracing_flag,
        ),
        "hooks on every module": {
            name: list(hooks)
            for name, hooks in vars(nn.modules.module).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        },
        "generators": tuple(
            map(hash, (random.getstate(), numpy[1].tobytes(), numpy[2], torch.get_rng_state().numpy().tobytes()))
        ),
        "warnings": (list(warnings.filters), warnings.showwarning, warnings.formatwarning),
        "threads": [thread.name for thread in threading.enumerate()],
        "hooks": (
            sys.excepthook,
            sys.displayhook,
            sys.unraisablehook,
            threading.excepthook,
            sys.gettrace(),
            sys.getprofile(),
        ),
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "collector": (list(gc.callbacks), gc.isenabled(), gc.get_freeze_count(), gc.get_threshold(), gc.get_debug()),
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()),
        "faults": faulthandler.is_enabled(),
        "locale": locale.setlocale(locale.LC_ALL),
        "environment": (dict(os.environ), os.getcwd()),
        "logging": (
            logging.root.level,
            list(logging.root.handlers),
            logging.root.disabled,
            logging.root.manager.disable,
        ),
        "numpy": (np.geterr(), np.get_printoptions()),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
    }
