"""Options of commands that decide by measurement: the engine, the bound, and the inputs that it is measured on."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import CalibrationError, DataError, one_line
from . import completion

if TYPE_CHECKING:
    from torch import nn

    from ..graph.call_spec import CallSpec, ExampleInputs
    from ..result.quality import Bound, Measure
    from ..rewriting.roadmap import Roadmap

SYNTHETIC, NONE = "synthetic", "none"

ROWS = 4
"""Examples in a batch of arrays"""

RoadmapOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="A roadmap's name (see `mofa roadmaps`) or a TOML file.",
        autocompletion=completion.roadmaps,
    ),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        metavar="ENGINE",
        help="Decide layer by layer by measuring on this engine (see `mofa engines`).",
        autocompletion=completion.engines,
        show_default="with --checkpoint, the first installed",
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads that it may use.", show_default="1")]
MaxLoss = Annotated[
    str | None,
    typer.Option(
        metavar="DB",
        help="How much worse than the original it may be, of PSNR against clean images; needs --degrade.",
        show_default="0.15dB with --checkpoint and --degrade",
    ),
]
MinPsnr = Annotated[
    str | None,
    typer.Option(
        "--min-psnr-to-original",
        metavar="DB",
        help="How near to the original's its output has to be.",
        show_default="45dB with --checkpoint, for images",
    ),
]
MinAgreement = Annotated[
    str | None,
    typer.Option(
        metavar="PERCENT",
        help="How many of its labels have to be the original's, for segmentation.",
        show_default="99.5% with --checkpoint, for labels",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.1, metavar="N", help="Measure and calibrate nothing new after so many minutes: take the best so far."
    ),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|FILE|synthetic|none",
        help="Fit the rewritten layers on images: a folder, network inputs (N, C, H, W), or generated ones; "
        "FILE.npz for networks of several inputs, an array each; or `none`, with --as-told.",
        show_default="synthetic with --checkpoint",
    ),
]
Crops = Annotated[int | None, typer.Option(min=1, metavar="N", help="Crops to calibrate on.", show_default="64")]
CropSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Their side in pixels.", show_default="128, less for a smaller --input"),
]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Of their places and noise.", show_default="0")]


def target(
    roadmap: Roadmap,
    engine: str | None,
    threads: int | None,
    precision: str | None = None,
    *,
    as_told: bool = False,
    trained: bool = True,
) -> Roadmap:
    """The roadmap with where it is decided or, as told, measured: trained weights are not rewritten unmeasured.

    Raises:
        RoadmapError: a bad value.
    """
    from ..runtime import usual_engine

    if engine is None and not (as_told or trained):
        return roadmap
    given = roadmap.target
    where = engine or (given.engine if given else usual_engine())
    kept: dict[str, Any] = {"keep_if": "told"} if as_told else {}
    if given is not None:
        kept = {"input": given.input, "keep_if": given.keep_if, "precision": given.precision, **kept}
    if precision is not None:
        kept["precision"] = precision
    return roadmap.with_target(where, threads or (given.threads if given else 1), **kept)


def bound(max_loss: str | None, min_psnr: str | None, min_agreement: str | None) -> Bound | None:
    """The bound that is given; two, or one that makes no sense, are a usage error."""
    given = {"--max-loss": max_loss, "--min-psnr-to-original": min_psnr, "--min-agreement": min_agreement}
    options = {name: text for name, text in given.items() if text is not None}
    if not options:
        return None
    if len(options) > 1:
        raise typer.BadParameter(f"is a second bound beside {next(iter(options))}", param_hint=list(options)[1])
    ((name, text),) = options.items()
    return parsed(name, text, name)


def parsed(option: str, text: str, given_as: str) -> Bound:
    """`0.15dB` of `--max-loss`, `45` of `--min-psnr-to-original`, `99.5%` of `--min-agreement`; else a usage error."""
    from ..result.quality import Bound

    measures: dict[str, tuple[Measure, str, float]] = {
        "--max-loss": ("loss", "db", 1),
        "--min-psnr-to-original": ("psnr", "db", 1),
        "--min-agreement": ("agreement", "%", 100),
    }
    measure, unit, scale = measures[option]
    try:
        return Bound(measure, float(text.strip().lower().removesuffix(unit)) / scale)
    except (ValueError, CalibrationError) as error:
        form = {"loss": "a loss such as 0.15dB", "psnr": "a PSNR such as 45dB", "agreement": "a share such as 99.5%"}
        raise typer.BadParameter(f"{text!r} is not {form[measure]}", param_hint=given_as) from error


def tell_weights(description: str | None) -> None:
    """Say on stderr where the weights come from."""
    from ..base.words import UNTRAINED

    said = f"weights: {description}" if description else f"warning: no --checkpoint: {UNTRAINED}"
    print(said, file=sys.stderr, flush=True)


def calibration(model: nn.Module, example: ExampleInputs, source: str, settings: dict[str, Any]) -> Iterable[Any]:
    """The inputs to calibrate on, of which the network took the first.

    Raises:
        DataError: they cannot be read, or the network does not take them.
    """
    import torch

    from ..data import CalibrationImages, parse_degradation
    from ..graph.call_spec import example_call, map_tree, specs

    call = specs(example_call(model, example))
    taken = call.tensors
    is_image = len(taken) == 1 and len(taken[0].shape) == 4 and call.args == taken
    batches: Iterable[Any]
    if is_image:
        _, channels, height, width = taken[0].shape
        if "degradation" in settings:
            settings = {**settings, "degradation": parse_degradation(settings["degradation"])}
        batches = CalibrationImages(source, **{"channels": channels, "size": min(128, height, width), **settings})
        first: Any = next(iter(batches))[:1]
    elif source.endswith((".npy", ".npz")):
        batches = list(_calls(model, call, Path(source)))
        first = batches[0]
    else:
        raise DataError(
            f"images are for networks of one image, this takes {call}: give --calibrate FILE.npz, an array (N, ...) "
            "for each input, or --as-told with --calibrate none",
            code="wrong-input",
        )
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    given = example_call(model, first)
    args, kwargs = map_tree(
        (given.args, dict(given.kwargs)), torch.Tensor, lambda x: x.to(like) if x.is_floating_point() else x
    )
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:
        sized = isinstance(batches, CalibrationImages) and batches.description["size"]
        remedy = "choose another --crop-size, a multiple of 32 say" if sized else "crop the inputs"
        raise DataError(
            f"the network does not take {specs(given)} from {source} ({one_line(error)}): {remedy}", code="wrong-input"
        ) from error
    return batches


def _calls(model: nn.Module, call: CallSpec, path: Path) -> Iterator[CallSpec]:
    """Arrays as batches of a network's calls: by the names of its arguments, or else in order.

    Raises:
        DataError: they are not as many as the network's inputs.
    """
    import numpy as np
    import torch

    from ..data.arrays import read_arrays

    arrays, inputs = read_arrays(path), call.tensors
    if len(arrays) != len(inputs):
        raise DataError(
            f"{path} holds {len(arrays)} arrays, and the network takes {len(inputs)} inputs ({call}): one array each",
            code="wrong-input",
        )
    names = [name for name in inspect.signature(model.forward).parameters if name in arrays]
    ordered = [arrays[name] for name in names] if len(names) == len(arrays) else list(arrays.values())
    for start in range(0, len(ordered[0]), ROWS):
        rows = iter([torch.from_numpy(np.ascontiguousarray(array[start : start + ROWS])) for array in ordered])
        yield call.map(lambda spec, rows=rows: next(rows).to(spec.dtype))  # type: ignore[misc]
