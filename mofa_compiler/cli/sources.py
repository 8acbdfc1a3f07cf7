"""Sources of commands that take bundles and architectures alike: `net-mofa`, `out/report.json`, `arch.py:Net`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from . import options

if TYPE_CHECKING:
    from torch import nn

    from ..graph.call_spec import ExampleInputs
    from ..loading.input_files import Make
    from ..report.distribution import Distribution
    from ..report.model import Report


def is_target(source: str) -> bool:
    """Whether a source names an architecture, and not a bundle or a file."""
    return ":" in source and not Path(source).expanduser().exists()


@dataclass(frozen=True)
class Targets:
    """How the architectures among a command's sources are built, and on what inputs; see the options of these names."""

    arguments: list[str] | None
    checkpoint: Path | None
    key: str | None
    strip_prefix: str | None
    inputs: Make | None
    quiet: bool = False

    def check(self, sources: Sequence[str]) -> None:
        """Refuse options that no source takes, or that several would: a usage error."""
        number = sum(map(is_target, sources))
        for option, value, most in (
            ("--arg", self.arguments, len(sources)),
            ("--input", self.inputs, len(sources)),
            ("--checkpoint", self.checkpoint, 1),
            ("--key", self.key, 1),
            ("--strip-prefix", self.strip_prefix, 1),
        ):
            if value is not None and not 1 <= number <= most:
                why = "is for an architecture" if not number else "is for one architecture"
                raise typer.BadParameter(f"{why}, such as arch.py:Net, and there are {number}", param_hint=option)

    def model(self, target: str) -> tuple[nn.Module, str | None]:
        """An architecture with its weights, and how the checkpoint was read (None without one)."""
        model, description = options.load_model(target, self.arguments, self.checkpoint, self.key, self.strip_prefix)
        if description and not self.quiet:
            print(f"weights: {description}", file=sys.stderr)
        return model, description

    def drawn(self, source: str) -> Report | Distribution:
        """The report of a source, or what `mofa analyze --json` printed.

        Raises:
            ReportError, TargetError, CaptureError: as of `reports`.
        """
        from ..report.reading import read_drawn

        return self.reports([source])[0] if is_target(source) else read_drawn(Path(source).expanduser())

    def reports(self, sources: Sequence[str]) -> list[Report]:
        """The report of each source; that of an architecture is made, as of a roadmap without passes.

        Without `--input` that is at the inputs of the first bundle, so that MACs can be compared.

        Raises:
            ReportError: a bundle's report cannot be read. TargetError, CaptureError: an architecture cannot be.
        """
        from ..report.reading import read_report

        found = {source: read_report(Path(source).expanduser()) for source in sources if not is_target(source)}
        for source in sources:
            if source not in found:
                with options.prints_to_stderr():
                    found[source] = self._report(source, sources)
        return [found[source] for source in sources]

    def _report(self, target: str, sources: Sequence[str]) -> Report:
        from ..compiler import apply
        from ..report.data import report
        from ..rewriting.roadmap import Roadmap

        model, description = self.model(target)
        empty = Roadmap((), "none")
        result = apply(model, empty, self._example(model, sources), checkpoint=description or "")
        result.verify()
        return report(result.record, ())

    def _example(self, model: nn.Module, sources: Sequence[str]) -> ExampleInputs:
        bundle = next((folder for source in sources if (folder := Path(source).expanduser()).is_dir()), None)
        if self.inputs is not None or bundle is None:
            return options.example_inputs(model, self.inputs)
        from ..bundle.recipe import read_recipe
        from ..graph.call_spec import CallSpec

        return CallSpec.from_data(read_recipe(bundle)["inputs"])


def short_names(sources: Sequence[str]) -> list[str]:
    """A bundle's folder, a file's name or an architecture's class for each source; as given where several have it."""
    from ..report.reading import distinct, short_name

    return distinct(
        sources,
        {source: source.rpartition(":")[2] if is_target(source) else short_name(Path(source)) for source in sources},
    )
