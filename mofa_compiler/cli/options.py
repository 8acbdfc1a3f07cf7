"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base import precision
from ..base.errors import MofaError, TargetError
from ..base.progress import Progress, Step
from . import completion
from .group import DEBUG

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from ..graph.call_spec import ExampleInputs
    from ..graph.program import Program
    from ..loading.input_files import Make


def _set_debug(ctx: typer.Context, wanted: bool) -> None:
    ctx.meta[DEBUG] = wanted


def one_of(known: Collection[str]) -> Callable[[str], str]:
    """What takes one of these words; another is a usage error."""

    def parsed(text: str) -> str:
        if text not in known:
            raise typer.BadParameter(f"{text!r} is none of {', '.join(known)}")
        return text

    return parsed


Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", help="Architecture: package.module:Class or path/to/file.py:Class; a factory will do, too."
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--arg", metavar="NAME=VALUE", help="Argument of the architecture, a Python literal or text; repeatable."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", metavar="FILE", help="Weights: .safetensors, or what torch.save wrote; code in it is never run."
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="Entry of the checkpoint that holds the weights (a.b for deeper)."),
]
StripPrefix = Annotated[
    str | None,
    typer.Option("--strip-prefix", metavar="PREFIX", help="Take the checkpoint's keys that begin so, without it."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE|FILE",
        help="Shape of an input, such as 1x3x256x256 (the default); one for each input. Or a file that has all: .json, "
        "or .py with example_inputs.",
    ),
]
Precision = Annotated[
    precision.Precision | None,
    typer.Option(
        metavar="|".join(precision.PRECISIONS),
        parser=one_of(precision.PRECISIONS),
        autocompletion=completion.precisions,
        help="What the engine computes in; `mofa engines` lists what each can.",
        show_default="fp32",
    ),
]
Degrade = Annotated[
    str | None,
    typer.Option(
        "--degrade",
        metavar="SPEC",
        help="What makes the network's inputs of clean images: gaussian:25, poisson-gaussian:0.01,0.02, jpeg:30, "
        "blur:1.6 or raw:3200,6400; ranges such as gaussian:5-50 are drawn from.",
    ),
]


def shapes(default: str) -> Any:
    """`--input` where it is by default something else than 1x3x256x256."""
    return typer.Option(
        "--input",
        metavar="SHAPE|FILE",
        help="Shape of an input, such as 1x3x256x256; one for each input. Or a file that has all, .json or .py.",
        show_default=default,
    )


ArchitectureInputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE|FILE",
        help="Of architectures: shape of an input, one for each; or a file that has all, .json or .py.",
        show_default="what the first bundle was made for",
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare/--no-compare",
        help="Run the graph against the network itself, on small random inputs, and fail where they differ.",
    ),
]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `mofa rewrite --out` wrote.")]
Original = Annotated[
    str,
    typer.Option(
        "--original",
        metavar="TARGET",
        help="The architecture that it was made from: package.module:Class or file.py:Class.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_set_debug, expose_value=True)
]


def parse_shape(text: str) -> tuple[int, ...]:
    """`1x3x256x256` as a tuple; anything else is a usage error."""
    try:
        shape = tuple(int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise typer.BadParameter(f"{text!r} is not a shape such as 1x3x256x256", param_hint="--input")
    return shape


def parse_inputs(given: list[str] | None) -> Make | None:
    """What makes the inputs that `--input` names, by shapes or by a file; None where it was not given.

    Raises:
        InputError, TargetError: the file cannot be read, or holds something else.
    """
    from ..lint.settings import is_file_of_inputs

    files = [text for text in given or () if is_file_of_inputs(text)]
    if files and len(given or ()) > 1:
        raise typer.BadParameter(f"a file such as {files[0]} has all inputs: give it alone", param_hint="--input")
    shapes = [parse_shape(text) for text in given or () if text not in files]
    if not given:
        return None
    from ..loading.input_files import of_shapes, read_inputs

    return read_inputs(files[0]) if files else of_shapes(shapes)


def refuse_with_quiet(quiet: bool, others: dict[str, bool]) -> None:
    """Refuse options that say what to print beside `--quiet`: a usage error."""
    if quiet and (option := next((name for name, given in others.items() if given), None)):
        raise typer.BadParameter("contradicts --quiet", param_hint=option)


def image_settings(
    option: str,
    source: str | None,
    degrade: str | None,
    crops: int | None,
    crop_size: int | None,
    seed: int | None = None,
) -> dict[str, Any]:
    """What was given of the options of `CalibrationImages`; a usage error where `option` has no images for them."""
    named = {"--degrade": degrade, "--crops": crops, "--crop-size": crop_size, "--seed": seed}
    given = {name: value for name, value in named.items() if value is not None}
    if given and (source is None or source.endswith((".npy", ".npz"))):
        why = f"needs {option}" if source is None else f"{source} holds network inputs, used as they are"
        raise typer.BadParameter(why, param_hint=next(iter(given)))
    keywords = {"--degrade": "degradation", "--crops": "crops", "--crop-size": "size", "--seed": "seed"}
    return {keywords[name]: value for name, value in given.items()}


def check_figure(file: Path, option: str) -> None:
    """Refuse a file whose ending names no format of figures, before the work: a usage error."""
    from ..report.figures import check_format

    try:
        check_format(file)
    except MofaError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def stdout_console() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def print_run(bundles: Iterable[str]) -> None:
    """Tell on stdout whose source was run for the results above it."""
    from ..report.document.terminal import print_lines, wrap

    files = dict.fromkeys(f"{bundle.rstrip('/')}/model.py" for bundle in bundles)
    if files:
        console = stdout_console()
        console.print()
        verb = "was" if len(files) == 1 else "were"
        print_lines(console, wrap(f"For this, {' and '.join(files)} {verb} run.", console.width))


@contextlib.contextmanager
def prints_to_stderr() -> Iterator[None]:
    """What a user's architecture prints must not end up between our results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


LINE_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal"""

_ROOM_FOR_BARS = 64


@contextlib.contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Callable[[str], Progress]]:
    """A function that makes a bar for one phase of the work, with the time that it will take still.

    Where stderr is no terminal there are no bars, and a line now and then of what takes long.
    """
    if quiet:
        yield lambda title: lambda step, done, total: None
        return
    if not sys.stderr.isatty():
        yield _progress_lines
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    class Done(MofNCompleteColumn):
        def render(self, task: Task) -> Text:
            return super().render(task) if task.fields.get("left") is None else Text(f"{task.percentage:.0f} %")

    class Left(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            left = task.fields.get("left")
            if left is None:
                return super().render(task)
            return Text(_minutes(max(left - (time.monotonic() - task.fields["told"]), 0.0)), "progress.remaining")

    console = Console(file=sys.stderr, highlight=False)
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        *((BarColumn(bar_width=16),) if console.width >= _ROOM_FOR_BARS else ()),
        Done(),
        *((TimeElapsedColumn(),) if console.width >= _ROOM_FOR_BARS else ()),
        Left(compact=True),
    )
    with Bars(*columns, console=console, transient=True, expand=True) as bars:

        def phase(title: str) -> Progress:
            task = bars.add_task(title, total=None)
            last = (0, -1)

            def tell(step: str, done: int, total: int) -> None:
                nonlocal last
                if isinstance(step, Step):
                    bars.update(task, description=escape(f"{title}: {step}"), completed=100 * step.share, total=100)
                    bars.update(task, left=step.left, told=time.monotonic())
                    return
                before, last = last, (done, total)
                if done < before[0] or total != before[1]:  # other work: its pace says nothing about what comes
                    bars.reset(task)
                bars.update(task, description=escape(f"{title}: {step}"), completed=done, total=total, left=None)

            return tell

        yield phase


def _minutes(seconds: float) -> str:
    """`2:05` as on a clock; above a minute in steps of five seconds, for nobody knows it better."""
    rounded = round(seconds) if seconds < 60 else 5 * round(seconds / 5)
    return f"{rounded // 60}:{rounded % 60:02}"


def _progress_lines(title: str) -> Progress:
    """Prints no line in the first `LINE_EVERY` seconds, so that what is quick stays silent."""
    last = time.monotonic()

    def tell(step: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            left = f", {_minutes(step.left)} left" if isinstance(step, Step) else ""
            print(f"{title}: {step} ({done} of {total}{left})", file=sys.stderr, flush=True)

    return tell


def load_model(
    target: str, arguments: list[str] | None, checkpoint: Path | None, key: str | None, strip_prefix: str | None
) -> tuple[nn.Module, str | None]:
    """The architecture with its weights, and how the checkpoint was read (None without one)."""
    if checkpoint is None and (key is not None or strip_prefix is not None):
        raise typer.BadParameter("needs --checkpoint", param_hint="--key" if key is not None else "--strip-prefix")
    from ..loading.import_target import load_target, parse_args

    try:
        given = parse_args(arguments or ())
    except TargetError as error:
        raise typer.BadParameter(str(error), param_hint="--arg") from error
    model = load_target(target, given).eval()  # what ships is what it does in eval mode
    if checkpoint is None:
        return model, None
    from ..loading.checkpoint import fit, load_checkpoint

    weights = load_checkpoint(checkpoint, model, key=key, strip_prefix=strip_prefix)
    fit(model, weights.state, weights.description)
    return model, weights.description


def example_inputs(model: nn.Module, inputs: Make | None) -> ExampleInputs:
    """The inputs that `--input` names, or None to let the compiler choose."""
    return None if inputs is None else inputs(model)


def obstacles_data(program: Program) -> list[dict[str, str]]:
    """What keeps a program from being saved as a bundle, as plain data."""
    from ..bundle.obstacles import obstacles

    return [vars(one) for one in obstacles(program)]
