"""`mofa lint`: rules on networks, for CI."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from ..base.errors import LintError
from . import completion, options
from .group import OWN_PROCESS

_FORMATS = completion.LINT_FORMATS


def lint(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET]...",
            help="Names of configured models, package.module:Class, path/to/file.py:Class, or bundles' folders; "
            "without any, all models of the configuration.",
        ),
    ] = None,
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    inputs: options.Inputs = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="pyproject.toml or mofa.toml; by default the nearest one upwards."),
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="Run these rules, such as MOFA2; repeatable.")
    ] = None,
    extend_select: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="Run these rules besides; repeatable.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="Leave these rules out; repeatable.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="Where the models run: switches on the rules 4xx.",
            autocompletion=completion.engines,
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|FILE.npy|synthetic",
            help="Also look at what layers do with these: a folder of images, network inputs (N, C, H, W), or "
            "generated images.",
        ),
    ] = None,
    degrade: options.Degrade = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time every rule's fixes on the engine; remembered on disk.")
    ] = False,
    output_format: Annotated[
        str,
        typer.Option(
            "--output-format",
            metavar="FORMAT",
            help=f"One of {', '.join(_FORMATS)}.",
            autocompletion=completion.lint_formats,
        ),
    ] = "full",
    output_file: Annotated[
        Path | None, typer.Option("--output-file", "-o", metavar="FILE", help="Write there instead of to stdout.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Findings that are known; only new ones count.")
    ] = None,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Write the findings that are there now to --baseline.")
    ] = False,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE|TARGET", help="Compare with another version of the model: only findings new to it count."
        ),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Carry out exact fixes, and save bundles to --out.")] = False,
    unsafe_fixes: Annotated[
        bool, typer.Option("--unsafe-fixes", help="With --fix: approximate ones, too; the output changes.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where --fix saves; of several models a folder each.")
    ] = None,
    overwrite: options.Overwrite = False,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 where there are findings.")] = False,
    exit_non_zero_on_fix: Annotated[
        bool, typer.Option("--exit-non-zero-on-fix", help="Exit with 1 also where all findings were fixed.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but findings and errors.")] = False,
    debug: options.Debug = False,
) -> None:
    """Find missed rewrites, cheap layers and broken budgets, for CI.

    Each is shown on the line of source that built the layer, with the pass that mends it and what that saves.
    Findings go to stdout, everything else to stderr. `mofa rule` lists the rules. Of a bundle, also of one that --diff
    names, this runs the model.py: lint what you trust.

    \b
    mofa lint                                    the models of pyproject.toml
    mofa lint arch.py:Net --input 1x3x256x256 --select MOFA2
    mofa lint --output-format sarif -o mofa.sarif
    mofa lint arch.py:Net --checkpoint net.pth --fix --out net-fixed
    mofa lint arch.py:Net --checkpoint net.pth --calibrate photos/

    \b
    Exit codes:
      0    clean
      1    findings
      2    wrong usage or configuration, or a model that cannot be linted
      130  interrupted
    """
    given_inputs = options.parse_inputs(inputs)
    options.image_settings("--calibrate", calibrate, degrade, None, None)
    if output_format not in _FORMATS:
        from ..base.errors import nearest

        hint = nearest(output_format, _FORMATS)
        raise typer.BadParameter(f"there is no format {output_format!r}{hint}", param_hint="--output-format")
    for wrong, option, why in (
        (unsafe_fixes and not fix, "--unsafe-fixes", "needs --fix"),
        (fix and out is None, "--fix", "needs --out, a folder for the result"),
        (out is not None and not fix, "--out", "needs --fix"),
        (write_baseline and baseline is None, "--write-baseline", "needs --baseline"),
        (fix and diff is not None, "--fix", "contradicts --diff"),
        (write_baseline and (fix or diff is not None), "--write-baseline", "contradicts --fix and --diff"),
        (bool(arguments or inputs) and not targets, "--arg" if arguments else "--input", "needs a target"),
        (checkpoint is not None and len(targets or ()) != 1, "--checkpoint", "needs one target"),
        (key is not None and checkpoint is None, "--key", "needs --checkpoint"),
        (strip_prefix is not None and checkpoint is None, "--strip-prefix", "needs --checkpoint"),
        (output_file is not None and output_file.is_dir(), "--output-file", f"{output_file} is a folder"),
    ):
        if wrong:
            raise typer.BadParameter(why, param_hint=option)

    with _results(output_file) as results:
        _keep_torch(context)
        from ..lint.session import Options, run
        from ..lint.targets import Checkpoint

        chosen = Options(
            targets=tuple(targets or ()),
            arguments=tuple(arguments or ()),
            weights=None if checkpoint is None else Checkpoint(str(checkpoint), key, strip_prefix),
            inputs=given_inputs,
            config=config,
            select=None if select is None else tuple(select),
            extend_select=tuple(extend_select or ()),
            ignore=tuple(ignore or ()),
            engine=engine,
            calibrate=calibrate,
            degrade=degrade,
            measure=measure,
            baseline=baseline,
            write_baseline=write_baseline,
            diff=diff,
            fix=fix,
            unsafe_fixes=unsafe_fixes,
            out=out,
            overwrite=overwrite,
            debug=debug,
        )
        with options.progress_bar(quiet) as phase:
            bar = phase("linting")
            done = run(chosen, lambda step, count, total: bar(step, count, total), _silent if quiet else _tell)
        done.write(output_format, results)
        code = done.outcome.exit_code
        if code == 1 and exit_zero:
            code = 0
        if code == 0 and exit_non_zero_on_fix and done.fixed:
            code = 1
    raise typer.Exit(code)


def _keep_torch(context: typer.Context) -> None:
    """Spare this process, where it is the command's own, the search for garbage in torch, a third of a whole run.

    Nothing later is kept: triton's bindings, which torch._dynamo imports, report as leaks what is not collected.
    """
    if context.obj is OWN_PROCESS:
        import torch  # noqa: F401

        gc.freeze()


@contextlib.contextmanager
def _results(file: Path | None) -> Iterator[TextIO]:
    """Where findings go; whatever a model's code prints to stdout, now or when the process ends, goes to stderr."""
    if file is not None:
        from ..base.atomic_files import replaced

        try:
            with _stdout_to_stderr(), replaced(file) as handle:
                yield handle
        except FileNotFoundError as error:
            if file.absolute().parent.is_dir():
                raise
            raise LintError(f"there is no folder {file.parent} for --output-file", code="not-found") from error
        return
    with _stdout_to_stderr() as shown:
        yield shown


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[TextIO]:
    """Stdout leads to stderr meanwhile, also for what is printed by other means than Python's; yields the real one."""
    try:
        real = sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):  # a test's or a notebook's
        real = False
    if not real:
        shown = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            yield shown
        return
    sys.stdout.flush()
    saved = os.dup(1)
    with os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace", newline="") as shown:
        os.dup2(2, 1)
        try:
            yield shown
        finally:
            sys.stdout.flush()
            os.dup2(saved, 1)
            os.close(saved)
            atexit.register(os.dup2, 2, 1)  # before what the model's code registered: the last one runs first


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass
