"""The group of all commands: each is imported when it is asked for, and its errors become exit codes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from ..base.errors import MofaError
from ..base.spelling import printable

DEBUG = "mofa_compiler.debug"

OWN_PROCESS = object()
"""The context's object where a command has the process to itself, as the console script gives it"""

SETTINGS: Mapping[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

# without arguments these do what they are for; the others show their help
_WITHOUT_ARGUMENTS = ("lint", "engines", "passes", "roadmaps", "rule")
_NAMES = (
    *("rewrite", "front", "recover", "verify", "export", "report", "analyze", "capture", "measure", "compare"),
    "plot",
    *_WITHOUT_ARGUMENTS,
)

_EXIT_CODES = """

\b
Exit codes:
  0    done
  1    an error in the input, in one line on stderr
  2    wrong usage
  130  interrupted
"""
"""Of commands that name no others"""


@cache
def _command(name: str) -> Any:
    """The command NAME: the function of that name in the module of that name."""
    function = getattr(import_module(f".{name}", __package__), name)
    app = typer.Typer(add_completion=False, **SETTINGS)
    text = inspect.getdoc(function) or ""
    text += "" if "Exit codes:" in text else _EXIT_CODES
    app.command(name, help=text, no_args_is_help=name not in _WITHOUT_ARGUMENTS)(function)
    return typer.main.get_command(app)


class _Commands(Mapping[str, Any]):
    """All commands by name, in the order of help."""

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


class Group(TyperGroup):
    """The commands; what they raise on purpose becomes a line and an exit code."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _Commands()

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise  # a pipe whose reader has gone, or an exit that was asked for
        except (MofaError, OSError) as error:
            if ctx.meta.get(DEBUG):
                if isinstance(error, MofaError):
                    error.add_note(f"code: {error.code}")
                raise
            print(f"error: {_message(error)}", file=sys.stderr)
            raise typer.Exit(_code(ctx)) from error
        except Exception as error:
            if ctx.meta.get(DEBUG) or hasattr(error, "show"):  # typer's own show themselves
                raise
            text = printable(" ".join(str(error).split())[:300])
            print(f"error: {type(error).__name__}: {text} (--debug, after the command, shows where)", file=sys.stderr)
            raise typer.Exit(_code(ctx)) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _code(ctx: Any) -> int:
    """2 for `mofa lint`, whose 1 means findings."""
    return 2 if ctx.invoked_subcommand == "lint" else 1


def _message(error: Exception) -> str:
    """What an error says, in which names cannot move the cursor."""
    return "\n".join(printable(line) for line in _words(error).split("\n"))


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
