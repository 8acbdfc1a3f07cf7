"""A child process that is killed at a rename, for what has to survive that."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from mofa_compiler.base import atomic_files


def killed_at(number: int, before: bool, work: Callable[[], None], can_exchange: bool) -> bool:
    """Run `work` in a child that is killed right before or right after its rename of that number; whether it was."""
    child = os.fork()
    if not child:
        count = 0

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any) -> Any:
                nonlocal count
                count += 1
                if before and count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = function(*args)
                if not before and count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapper

        os.rename, os.replace = counted(os.rename), counted(os.replace)
        system_call = counted(atomic_files._renameat2()) if can_exchange else None  # type: ignore[arg-type]
        atomic_files._renameat2 = lambda: system_call  # type: ignore[assignment, misc]
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
