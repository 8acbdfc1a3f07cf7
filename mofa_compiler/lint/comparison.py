"""Two versions of models compared, for `mofa lint --diff`: which findings are new, and what else a reviewer wants."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ..base import spelling, words
from ..base.spelling import code_span as code
from ..base.spelling import markdown as escape
from .finding import Linted

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "mofa-lint-diff/1"

Comparison: TypeAlias = Mapping[str, Any]
"""Plain data, as `compare` returns it"""

_SHOWN = 25
"""Findings of each kind that are shown: a comment on a pull request has room for 65536 characters"""
_HEADER = ("", "before", "after", "change")
_TITLES = {"new": "New findings", "gone": "Gone"}
_LEVELS = ("error", "warning", "note")


def compare(before: Linted | Iterable[Linted], after: Linted | Iterable[Linted]) -> dict[str, Any]:
    """What is new in `after`, and what is gone, as plain data.

    Models are compared by name; where there is one on either side, these two whatever they are called. Findings are
    told apart as a baseline does.

    Returns:
        `{"schema": "mofa-lint-diff/1", "models": [...]}` with `{"model", "before", "after", "new", "gone", "unchanged",
        "stages"}` for each, in the order of `after`, then those that are only in `before`. `before` and `after` are
        `{"target", "inputs", "parameters", "macs"}`, null where there is no such model, and the numbers null where it
        could not be traced. `new` and `gone` are findings as `Finding.to_data` has them, and `unchanged` is how many
        are in both. `stages` are `{"name", "before", "after"}`, each `{"macs", "share"}` (of all stages' MACs, in
        [0, 1]) or null.
    """
    old, new = ([one] if isinstance(one, Linted) else list(one) for one in (before, after))
    return {"schema": SCHEMA, "models": [_model(*pair) for pair in _pairs(old, new)]}


def markdown(comparison: Comparison) -> str:
    """The comparison as GitHub-flavoured Markdown, for a comment on a pull request."""
    blocks: list[str] = []
    for model in comparison["models"]:
        blocks += [
            f"## {_span(model['model'])}",
            _markdown_table(_HEADER, _figures(model)),
            escape(_note(model)),
            *(block for key in _TITLES for block in _markdown_findings(key, model)),
            escape(_unchanged(model)),
        ]
        if rows := _stages(model):
            table = _markdown_table(_STAGES, [(_cell(name), *rest) for name, *rest in rows])
            blocks.append(f"<details><summary>Stages</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(filter(None, blocks or ["No models to compare."])) + "\n"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the comparison for people at a terminal, in lines that fit its width."""
    from rich.table import Table
    from rich.text import Text

    from ..report.document.terminal import elide

    def say(sentence: str, style: str = "") -> None:
        if sentence:
            console.print(Text(spelling.printable(sentence), style), overflow="fold")

    def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
        made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for index, name in enumerate(header):
            made.add_column(name, justify="right" if index else "left", no_wrap=True)
        for first, *rest in rows:
            made.add_row(Text(elide(spelling.printable(first), max(12, console.width - 50))), *map(Text, rest))
        return made

    for index, model in enumerate(comparison["models"]):
        if index:
            console.print()
        say(model["model"], "bold")
        console.print(table(_HEADER, _figures(model)))
        if rows := _stages(model):
            console.print()
            console.print(table(_STAGES, rows))
        say(_note(model), "yellow")
        for key, mark, style in (("new", "+", "red"), ("gone", "−", "green")):
            findings = _sorted(model[key])
            if not findings:
                continue
            console.print()
            say(f"{_TITLES[key]}: {len(findings)}", style)
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_column(no_wrap=True)
            grid.add_column(no_wrap=True)
            grid.add_column(overflow="fold")
            for one in findings[:_SHOWN]:
                what = " ".join(filter(None, (one["path"], one["message"])))
                grid.add_row(mark, Text(spelling.printable(one["code"])), Text(spelling.printable(what)))
            console.print(grid)
            if (left := len(findings) - _SHOWN) > 0:
                say(f"and {left} more", "dim")
        if same := _unchanged(model):
            console.print()
            say(same, "dim")


def _pairs(old: Sequence[Linted], new: Sequence[Linted]) -> Iterator[tuple[Linted | None, Linted | None]]:
    if len(old) == len(new) == 1:
        yield old[0], new[0]
        return
    earlier = {one.model: one for one in old}
    later = {one.model for one in new}
    yield from ((earlier.get(one.model), one) for one in new)
    yield from ((one, None) for one in old if one.model not in later)


def _model(before: Linted | None, after: Linted | None) -> dict[str, Any]:
    name = (after or before).model  # type: ignore[union-attr]  # one of them is there
    known, found = (one.findings if one else () for one in (before, after))
    gone, new = unmatched(known, found)
    stages = dict.fromkeys(stage for one in (after, before) if one for stage in one.stages or ())
    return {
        "model": name,
        "before": _version(before),
        "after": _version(after),
        "new": [finding.to_data() for finding in new],
        "gone": [finding.to_data() for finding in gone],
        "unchanged": len(found) - len(new),
        "stages": [{"name": stage, "before": _stage(before, stage), "after": _stage(after, stage)} for stage in stages],
    }


def _version(linted: Linted | None) -> dict[str, Any] | None:
    return None if linted is None else {key: getattr(linted, key) for key in ("target", "inputs", "parameters", "macs")}


def _stage(linted: Linted | None, name: str) -> dict[str, Any] | None:
    stages = linted.stages if linted and linted.stages else {}
    if name not in stages:
        return None
    whole = sum(stages.values())
    return {"macs": stages[name], "share": stages[name] / whole if whole else 0.0}


def _figures(model: Comparison) -> list[tuple[str, str, str, str]]:
    """Rows on parameters, MACs and the number of findings."""
    versions = [model["before"], model["after"]]
    rows = []
    for label, key in (("Parameters", "parameters"), ("MACs", "macs")):
        was, now = (version and version[key] for version in versions)
        changed = "" if was is None or now is None else words.change(was, now)
        first, second = ("–" if number is None else words.quantity(number) for number in (was, now))
        rows.append((label, first, second, changed))
    counts = [model["unchanged"] + len(model[key]) for key in ("gone", "new")]
    changed = ", ".join(f"{sign}{len(model[key])}" for sign, key in (("+", "new"), ("−", "gone")) if model[key])
    first, second = ("–" if one is None else str(n) for one, n in zip(versions, counts, strict=True))
    rows.append(("Findings", first, second, changed))
    return rows


_STAGES = ("stage", "MACs", "share of MACs", "change")


def _stages(model: Comparison) -> list[tuple[str, str, str, str]]:
    """Rows on the stages' MACs, before → after; none where nothing about them changed."""
    rows = []
    for stage in model["stages"]:
        was, now = stage["before"], stage["after"]
        macs = [words.quantity(one["macs"]) if one else "–" for one in (was, now)]
        share = [f"{100 * one['share']:.1f}" if one else "–" for one in (was, now)]
        changed = words.change(was["macs"], now["macs"]) if was and now else "new" if now else "gone"
        rows.append((stage["name"], " → ".join(macs), f"{' → '.join(share)} %", changed))
    return rows if any(row[3] != "unchanged" for row in rows) else []


def _note(model: Comparison) -> str:
    """What keeps the two from being compared; empty where nothing does."""
    before, after = model["before"], model["after"]
    if before is None:
        return "This model is new."
    if after is None:
        return "This model is gone."
    untraced = [name for name, one in (("before", before), ("after", after)) if one["macs"] is None]
    if untraced:
        return f"It could not be traced {' and '.join(untraced)}."
    if before["inputs"] != after["inputs"]:
        return f"The inputs differ, {before['inputs']} before and {after['inputs']} after: MACs do not compare."
    return ""


def _unchanged(model: Comparison) -> str:
    if not model["new"] and not model["gone"]:
        return "No findings are new, and none are gone."
    return f"{words.count(model['unchanged'], 'finding')} as before." if model["unchanged"] else ""


def _sorted(findings: Sequence[Comparison]) -> list[Comparison]:
    """Errors first, then what saves most MACs."""

    def urgency(finding: Comparison) -> tuple[int, int]:
        saved = (finding["fix"] or {}).get("macs") or 0
        return _LEVELS.index(finding["level"]), min(0, saved)

    return sorted(findings, key=urgency)


def _markdown_findings(key: str, model: Comparison) -> list[str]:
    findings = model[key]
    if not findings:
        return []
    rows = [
        (finding["code"], _cell(finding["path"] or model["model"]), escape(spelling.printable(finding["message"])))
        for finding in _sorted(findings)[:_SHOWN]
    ]
    more = f"\n\nand {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    return [f"### {_TITLES[key]}: {len(findings)}", _markdown_table(("rule", "layer", "finding"), rows, "lll") + more]


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "lrrr") -> str:
    rule = ["--:" if side == "r" else ":--" for side in align]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _span(name: str) -> str:
    """A code span, which nothing in a name ends; a dash for a blank one."""
    return code(spelling.printable(name)) if name.strip() else "–"


def _cell(name: str) -> str:
    """The same in a table, whose cell no pipe ends: there `\\|` is one, and readers differ on what `\\\\|` is."""
    return _span(spelling.printable(name).replace("\\|", "\\ |")).replace("|", "\\|")


_NUMBERS = re.compile(r"\d+", re.ASCII)


class Identified(Protocol):
    """What a finding is known by, within a model."""

    @property
    def code(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def signature(self) -> str: ...


Old = TypeVar("Old", bound=Identified)
New = TypeVar("New", bound=Identified)


def unmatched(old: Sequence[Old], new: Sequence[New]) -> tuple[list[Old], list[New]]:
    """What is only in `old`, and what is only in `new`, both of one model and in their order.

    First those match that are the same in rule, path and signature, which is what a fingerprint is made of. Of the
    rest, those that differ only in the numbers in their paths, as layers do that moved within a list. Each one matches
    once: one more layer of a kind is new.
    """
    for key in (_exactly, _but_for_numbers):
        old, new = _without(old, new, key), _without(new, old, key)
    return list(old), list(new)


def _exactly(one: Identified) -> Hashable:
    return one.code, one.path, one.signature


def _but_for_numbers(one: Identified) -> Hashable:
    return one.code, _NUMBERS.sub("#", one.path), one.signature


def _without(these: Sequence[Old], those: Sequence[New], key: Callable[[Identified], Hashable]) -> list[Old]:
    """`these` without what is in `those`, the first ones first where it is there less often."""
    there = Counter(map(key, those))
    left = []
    for one in these:
        if there[key(one)]:
            there[key(one)] -= 1
        else:
            left.append(one)
    return left
