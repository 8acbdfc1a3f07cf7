"""New weights for a bundle that is there."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..base.atomic_files import put_in_place, replaced, scratch_folder
from ..base.errors import BundleError
from ..base.plain import plain_data
from ..base.spelling import json_text
from ..report.model import IMAGES, SCHEMA, Report
from ..report.pictures import pictures_of, write_pictures
from ..report.reading import read_document, written_by
from ..result.rewrite import Rewrite
from .files import REPORT, REPORT_PAGE, REPORT_TEXT, SOURCE, WEIGHTS, check, read_weights, write_reports, write_weights
from .original import recorded, short
from .recipe import read_recipe


def update(rewrite: Rewrite, directory: Path) -> None:
    """Give a bundle the weights that `rewrite.model` has after its last recovery, and its reports what that brought.

    The weights are replaced first, by one file in place of another: at any moment there is a bundle that works. Source,
    recipe and key map stay, and the reports keep what they say of the rewrite. A recovery that found nothing better
    leaves the weights, too.

    Raises:
        BundleError: there is no bundle, it is of another original, or its source does not compute what `rewrite.model`
            does.
    """
    target = directory.expanduser().resolve()
    made_from = recorded(read_recipe(target))
    if made_from not in ("", rewrite.provenance.original_digest):
        raise BundleError(
            f"{target} was made from another original (sha256 {short(made_from)}) than this network (sha256 "
            f"{short(rewrite.provenance.original_digest)}): its weights do not belong there",
            code="other-original",
        )
    try:
        with scratch_folder(target) as scratch:
            shutil.copy(target / SOURCE, scratch)
            write_weights(scratch, rewrite)
            check(scratch, rewrite)
            _write_reports_since(rewrite, target, scratch)
            weights = (WEIGHTS,) if rewrite.provenance.recoveries[-1].improved else ()
            reports = (name for name in (REPORT, REPORT_TEXT, REPORT_PAGE) if (scratch / name).is_file())
            for name in (*weights, *reports):
                os.replace(scratch / name, target / name)
            if (scratch / IMAGES).is_dir():
                put_in_place(scratch / IMAGES, target / IMAGES)
            elif (target / IMAGES).is_dir():
                os.rename(target / IMAGES, scratch / IMAGES)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot update {target}: {error}", code="unwritable") from error


def _write_reports_since(rewrite: Rewrite, target: Path, scratch: Path) -> None:
    """The reports and images of a bundle into another folder, with what the last recovery brought."""
    report = read_document(target)
    recovery = rewrite.provenance.recoveries[-1]
    entry, known = plain_data(recovery.to_data()), report.get("recoveries", [])
    report["recoveries"] = known if entry in known else [*known, entry]  # it may be there, if it was killed here
    shown = pictures_of(rewrite) if recovery.improved else []
    if shown:
        report["images"] = [picture.data.to_data() for picture in shown]
        write_pictures(shown, scratch)
    elif recovery.improved:
        report["images"] = []  # those that are there show other weights
    elif (target / IMAGES).is_dir():
        shutil.copytree(target / IMAGES, scratch / IMAGES)
    _write(report, scratch, target)


def _write(report: Mapping[str, Any], folder: Path, target: Path) -> None:
    """The reports of the bundle `target` into a folder; of one of an earlier version only the data changes."""
    if report["schema"] == SCHEMA:
        write_reports(Report.model_validate(report), folder)
        return
    with replaced(folder / REPORT) as file:
        file.write(json_text(report) + "\n")
    warnings.warn(
        f"{target / REPORT} is {written_by(report)}: {REPORT_TEXT} and {REPORT_PAGE} stay as they were, and do not "
        "show what is new; rewrite the network again (mofa rewrite) for new ones",
        stacklevel=4,
    )


def record(measurements: Sequence[Mapping[str, Any]], directory: Path) -> None:
    """Put measurements into a bundle's reports, each in place of an earlier one under the same conditions.

    Args:
        measurements: as `report.json` has them under `measurements`.
        directory: the bundle.

    Raises:
        BundleError: there is no bundle, or its report cannot be read or written.
    """
    target = directory.expanduser().resolve()
    read_recipe(target)
    conditions = ("engine", "threads", "input", "processor")

    def under(entry: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(entry[key]) for key in conditions)

    try:
        report = read_document(target)
        entries = {under(entry): entry for entry in report.get("measurements", [])}
        entries |= {under(entry): entry for entry in plain_data(list(measurements))}
        report["measurements"] = list(entries.values())
        _write(report, target, target)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"cannot update the reports of {target}: {error}", code="unwritable") from error


def load_weights(rewrite: Rewrite, directory: Path) -> None:
    """Give `rewrite.model` the weights of a bundle that was made from it.

    Raises:
        BundleError: there are none, or they are another network's.
    """
    file = directory / WEIGHTS
    if not file.is_file():
        raise BundleError(f"{directory} is incomplete: there is no {WEIGHTS}", code="damaged")
    set_weights(rewrite.model, read_weights(file), file)


def set_weights(model: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Give a model the weights that were read from a bundle's `file`, which also holds constants that it makes itself.

    Raises:
        BundleError: they are another network's.
    """
    keys = model.state_dict().keys()
    try:
        model.load_state_dict({key: value for key, value in weights.items() if key in keys})
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise BundleError(f"{file} does not fit the recipe beside it: {lines[:500]}", code="other-original") from error
