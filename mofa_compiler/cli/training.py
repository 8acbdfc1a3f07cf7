"""A training run on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .options import LINE_EVERY

if TYPE_CHECKING:
    from ..distillation import Status


@contextlib.contextmanager
def training_bar(quiet: bool = False) -> Iterator[Callable[[Status], None] | None]:
    """What shows step, loss, PSNR and time left of a run; None where nothing should be shown."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("recovering"), BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=sys.stderr, highlight=False), transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda status: bars.update(task, completed=status.progress, description=_line(status))


def _lines() -> Callable[[Status], None]:
    last = time.monotonic() - LINE_EVERY

    def show(status: Status) -> None:
        nonlocal last
        if status.progress >= 1 or time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            print(f"{100 * status.progress:3.0f} %, {_line(status)}", file=sys.stderr, flush=True)

    return show


def _line(status: Status) -> str:
    left = "" if status.left is None else f", {duration(status.left)} left"
    return f"step {status.step}, loss {status.loss:.4g}, PSNR {status.psnr:.2f} dB (best {status.best:.2f}){left}"


def duration(seconds: float) -> str:
    """`45 s`, `3:20 min`, `2:05 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
