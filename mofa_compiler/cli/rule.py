"""`mofa rule`: what the linter's rules say, and which are on."""

from __future__ import annotations

import inspect
import json
from typing import Annotated

import typer

from ..base.errors import LintError, nearest
from . import completion, options


def rule(
    code: Annotated[
        str | None,
        typer.Argument(metavar="[CODE]", help="Explain this rule, such as MOFA201.", autocompletion=completion.rules),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Explain all rules, as one page in Markdown.")] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the linter's rules, or explain one.

    \b
    mofa rule
    mofa rule MOFA201
    mofa rule --all > rules.md

    \b
    Exit codes:
      0    done
      1    there is no such rule
      2    wrong usage
    """
    from ..lint.documentation import document, page, table
    from ..lint.rules import RULES

    if code is not None and everything:
        raise typer.BadParameter("contradicts a code", param_hint="--all")
    if code is not None:
        code = code.upper()
        if code not in RULES:
            raise LintError(f"there is no rule {code}{nearest(code, RULES)}", code="unknown-name")
    if as_json:
        chosen = RULES.values() if code is None else [RULES[code]]
        data = [
            {
                "code": one.code,
                "name": one.name,
                "default": one.default,
                "level": one.level,
                "fix": one.fixes,
                "summary": one.summary(),
                "doc": inspect.getdoc(one),
            }
            for one in chosen
        ]
        print(json.dumps(data if code is None else data[0], indent=2, ensure_ascii=False))
    elif everything:
        print(page(), end="")
    elif code is not None:
        print(document(RULES[code]), end="")
    else:
        from rich.table import Table

        console = options.stdout_console()
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("code", "name", "on", "fix"):
            shown.add_column(title, no_wrap=True)
        shown.add_column("")
        for row in table():
            shown.add_row(*row)
        console.print(shown)
