"""How many labels are right: `python -m tests.zoo.labels`.

A label is the stage of one unit, the level of one stage, or one long skip connection. Exit code 1 where one is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from mofa_compiler import capture
from mofa_compiler.analysis.anatomy import Anatomy, infer

from .labelled import LABELLED
from .models import ZOO, ZooModel

Labels = Mapping[tuple[str, ...], object]

SIZES = ((256, 384), (128, 128))


def expected_labels(zoo: ZooModel) -> Labels:
    stages = zoo.stages or {}
    units = {("unit", unit): name for name, (_, units) in stages.items() for unit in units}
    levels = {("level", name): level for name, (level, _) in stages.items()}
    return units | levels | {("skip", str(i)): skip for i, skip in enumerate(zoo.skips)}


def found_labels(anatomy: Anatomy) -> Labels:
    units = {("unit", unit): stage.name for stage in anatomy.stages for unit in stage.units}
    levels = {("level", stage.name): stage.level for stage in anatomy.stages}
    return units | levels | {("skip", str(i)): (skip.kind, skip.level) for i, skip in enumerate(anatomy.skips)}


def wrong_labels(zoo: ZooModel, anatomy: Anatomy) -> Iterator[str]:
    """What is expected, and what was found instead; skips that nobody expects are wrong, too."""
    expected, found = expected_labels(zoo), found_labels(anatomy)
    for key in dict.fromkeys([*expected, *(key for key in found if key[0] == "skip")]):
        if key not in expected or key not in found or expected[key] != found[key]:
            yield f"{' '.join(key)}: {expected.get(key)}, found {found.get(key)}"


def main() -> int:
    console = Console()
    table = Table("network", "size", "labels", "right")
    right = total = 0
    for name, zoo in {**ZOO, **LABELLED}.items():
        if zoo.stages is None:
            continue
        for size in SIZES:
            anatomy = infer(capture(zoo.build(), zoo.inputs(*size)))
            wrong = list(wrong_labels(zoo, anatomy))
            labels = len(expected_labels(zoo))
            right, total = right + labels - len(wrong), total + labels
            table.add_row(
                name, "x".join(map(str, size)), str(labels), str(labels - len(wrong)), style="red" * bool(wrong)
            )
            if "-v" in sys.argv[1:]:
                console.print(*(f"{name}: {line}" for line in wrong), sep="\n")
    console.print(table)
    console.print(f"{right} of {total} labels are right")
    return int(right < total)


if __name__ == "__main__":
    sys.exit(main())
