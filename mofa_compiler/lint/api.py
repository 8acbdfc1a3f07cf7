"""Linting a module that is there already, from Python: in a notebook, or in a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .finding import Linted, Position

if TYPE_CHECKING:
    from torch import nn

    from ..graph.call_spec import ExampleInputs


def lint(
    model: nn.Module,
    example_inputs: ExampleInputs = None,
    *,
    select: Sequence[str] | None = None,
    extend_select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    engine: str | None = None,
    threads: int = 1,
    thresholds: Mapping[str, Any] | None = None,
    budgets: Mapping[str, Any] | None = None,
    positions: Mapping[str, Position] | None = None,
    calibration: Iterable[Any] | None = None,
) -> Linted:
    """Find FLOPs-cheap layers, missed rewrites and broken budgets in a module, which is not modified.

    No configuration file is read, and comments in the source are not looked at.

    Args:
        model: any module; what cannot be traced is a finding of a rule 9xx.
        example_inputs: as for `capture`; by default (1, C, 256, 256) for the first convolution.
        select: prefixes of rules' codes, such as `MOFA2`; None: the rules that are on by default.
        extend_select: further ones. ignore: those that do not run.
        engine: where it will run: switches on the rules 4xx, and shows what was measured there.
        threads: that the engine may use.
        thresholds: as in the configuration: `portion`, `pdwconv`, `cheap-below`, `kernel`, `contraction`.
        budgets: as in the configuration: `parameters`, `macs`, `activation-memory`, and `stages` by name.
        calibration: inputs like those that the model will meet, for rules on what it does with them.
        positions: where layers were made, by path (see `mofa_compiler.lint.source_positions.recording`).

    Raises:
        LintError: a setting makes no sense. EngineError: there is no such engine.
    """
    from ..base.torch_state import kept_modes
    from ..loading.wrappers import unwrapped
    from .config import settings
    from .rules import RULES
    from .runner import Job, lint_model

    model = unwrapped(model)
    data: dict[str, Any] = {
        "extend-select": list(extend_select),
        "ignore": list(ignore),
        "threads": threads,
        "thresholds": dict(thresholds or {}),
        "budgets": dict(budgets or {}),
    }
    if select is not None:
        data["select"] = list(select)
    if engine is not None:
        data["engine"] = engine
        from ..runtime import engine as find_engine

        find_engine(engine)  # raises where there is no such engine
    chosen = settings(data, RULES)
    name = type(model).__name__
    known = positions or {}
    made = None if calibration is None else (lambda _: calibration)
    job = Job(name, name, lambda: (model, known), lambda _: example_inputs, chosen, calibration=made)
    with kept_modes(model):
        return lint_model(job).linted


def assert_clean(model: nn.Module, example_inputs: ExampleInputs = None, **settings: Any) -> None:
    """Fail a test where `lint` finds something; the arguments are the same.

    Raises:
        AssertionError: with one line a finding.
        LintError: a setting makes no sense.
    """
    __tracebackhide__ = True
    from .finding import Outcome
    from .formats import render
    from .rules import RULES

    linted = lint(model, example_inputs, **settings)
    if linted.findings:
        raise AssertionError(render("concise", Outcome([linted]), RULES, Path.cwd()))
