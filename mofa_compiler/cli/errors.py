"""Errors as exit codes: one clear line on stderr instead of a traceback."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import MofaError

DEBUG = "mofa_compiler.debug"


class Group(TyperGroup):
    """The commands; what they raise on purpose becomes a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise  # a pipe whose reader has gone, or an exit that was asked for
        except (MofaError, OSError) as error:
            if ctx.meta.get(DEBUG):
                raise
            print(f"error: {_message(error)}", file=sys.stderr)
            raise typer.Exit(_code(ctx)) from error
        except Exception as error:
            if ctx.meta.get(DEBUG) or hasattr(error, "show"):  # typer's own show themselves
                raise
            text = " ".join(str(error).split())[:300]
            print(f"error: {type(error).__name__}: {text} (mofa --debug shows where)", file=sys.stderr)
            raise typer.Exit(_code(ctx)) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _code(ctx: Any) -> int:
    """2 for `mofa lint`, whose 1 means findings."""
    return 2 if ctx.invoked_subcommand == "lint" else 1


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
