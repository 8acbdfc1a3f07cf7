"""The command line: `mofa rewrite`, `recover`, `verify`, `measure`, `compare`, `plot`, `report`, `export`, and others.

A command's module is imported when the command is asked for, and what needs torch when it runs, so that help and errors
in the arguments come at once.
"""

from __future__ import annotations

import gc
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from .group import OWN_PROCESS, SETTINGS, Group

app = typer.Typer(
    name="mofa",
    cls=Group,
    no_args_is_help=True,
    **SETTINGS,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mofa-compiler {version('mofa-compiler')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Rewrite U-Net-like PyTorch networks into faster ones, weights included, by a roadmap of small passes.

    \b
    mofa capture arch.py:Net               what the compiler can see of a network
    mofa analyze arch.py:Net               where the computation lies
    mofa rewrite arch.py:Net --dry-run     what would change, and why not more
    mofa rewrite arch.py:Net --checkpoint net.pth --out net-mofa
    mofa front arch.py:Net --checkpoint net.pth --out net-front
                                           every dB priced in milliseconds
    mofa recover net-mofa --original arch.py:Net --checkpoint net.pth \\
        --data photos --degrade gaussian:25
    mofa verify net-mofa --original arch.py:Net --checkpoint net.pth
    mofa measure arch.py:Net net-mofa --engine onnxruntime
    mofa compare net-a net-b               what is different
    mofa plot roadmap net-mofa --out roadmap.pdf
    mofa export net-mofa --to onnx --dynamic
    mofa report net-mofa --open            the page in a bundle, made anew
    mofa lint arch.py:Net                  what could be better, as a CI step

    \b
    Exit codes:
      0    done
      1    an error in the input, in one line on stderr; of `lint`: findings
      2    wrong usage; of `lint` also any error
      130  interrupted
    """


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an arrow must not fail on a terminal without arrows
    gc.set_threshold(1_000_000)  # importing torch and tracing make hundreds of thousands of objects that stay
    app(obj=OWN_PROCESS)
