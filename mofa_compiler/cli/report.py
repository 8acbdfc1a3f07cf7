"""`mofa report`: the HTML page of a bundle, made anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import ReportError
from . import options


def report(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="A folder that `mofa rewrite --out` wrote.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.html",
            help="Write the page here; an older one is replaced.",
            show_default="the bundle's report.html",
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of report.json instead.")] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Make the HTML page of a bundle from its report.json and images.

    One file without anything from the network, to read, mail or print: what each step bought, where the computation
    lies, every edit and every layer left alone. `mofa rewrite --out` writes it already; this makes it anew, with what
    was added since or by a newer version. Nothing else in the bundle is touched, and none of its code is run.

    \b
    mofa report net-mofa --open
    mofa report net-mofa --out net.html
    mofa report --schema

    \b
    Exit codes:
      0    done
      1    no bundle, a damaged report or no place to write to, in one line
      2    wrong usage
      130  interrupted
    """
    if (bundle is None) is not schema:
        raise typer.BadParameter("a bundle, or --schema", param_hint="BUNDLE")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"{out} does not end in .html", param_hint="--out")

    from ..base.atomic_files import replaced
    from ..bundle.files import REPORT_PAGE
    from ..report.embedding import missing
    from ..report.model import Report
    from ..report.page import render
    from ..report.reading import read_report

    if bundle is None:
        print(json.dumps(Report.model_json_schema(), indent=2, ensure_ascii=False))
        return
    folder = bundle.expanduser()
    if folder.is_file():
        raise ReportError(f"{bundle} is a file, not a bundle: name the folder that it is in", code="wrong-kind")
    data = read_report(folder)
    page = render(data, folder)
    target = folder / REPORT_PAGE if out is None else out.expanduser()
    if not target.absolute().parent.is_dir():
        raise ReportError(f"cannot write {target}: there is no folder {target.parent}", code="not-found")
    with replaced(target) as file:
        file.write(page)
    for name in missing(data, folder):
        print(f"warning: {folder / name} is missing or damaged: the page says so in its place", file=sys.stderr)
    if not quiet:
        print(target)
    if open_it:
        import webbrowser

        if not webbrowser.open(target.resolve().as_uri()):
            print(f"no browser was found: open {target} yourself", file=sys.stderr)
