"""`mofa roadmaps`: which roadmaps ship with the package, and their TOML."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import completion, options


def roadmaps(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[ROADMAP]", help="Print one roadmap as TOML.", autocompletion=completion.roadmaps),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the roadmaps that come along, or print one as TOML.

    The TOML has every option, to start your own roadmap from.

    \b
    mofa roadmaps
    mofa roadmaps mofa > my.toml
    mofa roadmaps --json

    \b
    Exit codes:
      0    done
      1    there is no such roadmap
      2    wrong usage
    """
    from ..report.document.terminal import print_lines, wrap
    from ..rewriting.roadmap import Roadmap, presets

    if as_json:
        chosen = [Roadmap.load(one) for one in ([name] if name is not None else presets())]
        print(json.dumps([roadmap.to_dict() for roadmap in chosen], indent=2, ensure_ascii=False))
        return
    if name is not None:
        print(Roadmap.load(name).to_toml(), end="")
        return
    console = options.stdout_console()
    for preset in presets():
        roadmap = Roadmap.load(preset)
        print_lines(console, [preset], "bold")
        print_lines(console, wrap(roadmap.description, console.width, 2))
        print_lines(console, wrap(" → ".join(pass_.name for pass_ in roadmap), console.width, 2), "dim")
