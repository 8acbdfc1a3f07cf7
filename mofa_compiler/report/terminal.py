"""A report for people at a terminal; readable at 80 columns and, with fewer columns in the table, below."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..base import spelling, words
from . import decided, text
from .model import Decisions, Edit, Report, Skip, Step

_NARROWEST = 40
_GLUE = "\N{NO-BREAK SPACE}"
_ROOM_FOR_COUNTS = 76
_MOVED = "moved by: the output, by this pass; so far: against the original"


def print_report(report: Report, console: Console, verbose: bool = False) -> None:
    """Print the report of `report.data.report`: each pass, the stages, and last, for it stays on the screen, a summary.

    Edits of the same kind are grouped and long lists of paths cut short; `verbose` shows every edit and every path.
    The summary of a preset fits 24 lines of 80 columns.
    """
    width = max(console.width, _NARROWEST)
    title = f"{report.model}, roadmap {report.roadmap.name}, input {text.shapes(report.inputs)}"
    print_lines(console, wrap(title, width), "bold")
    console.print()
    for index, step in enumerate(report.passes, 1):
        _print_all(console, _pass_lines(index, step, width, verbose))
        console.print()
    if report.decisions is not None:
        _print_decisions(report.decisions, console, width)
        console.print()
    if report.passes:
        console.print(_stage_table(report))
        console.print()
    _print_headline(report, console, width)
    if report.passes:
        console.print()
        console.print(_pass_table(report.passes, width))
        print_lines(console, wrap(_MOVED, width), "dim")


def elide(path: str, width: int) -> str:
    """`path` in at most `width` characters, the middle left out: `encoder.blo…conv2.depthwise`."""
    if len(path) <= width:
        return path
    tail = (width - 1) * 2 // 3
    return f"{path[: width - 1 - tail]}…{path[len(path) - tail :]}"


def wrap(content: str, width: int, indent: int = 0, hanging: int | None = None) -> list[str]:
    """Lines of at most `width`; the second and later ones are indented by `hanging` (by `indent` without it).

    No line ends between a number and its unit.
    """
    following = " " * (indent if hanging is None else hanging)
    lines = textwrap.wrap(
        re.sub(r"(?<=\d) (?=(?:[kMGT]|dB)\b|%)", _GLUE, content),
        width,
        initial_indent=" " * indent,
        subsequent_indent=following,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in lines]


def print_lines(console: Console, lines: Iterable[str], style: str = "") -> None:
    """Print lines as they are: no markup, no wrapping."""
    _print_all(console, (Text(line, style) for line in lines))


def _print_all(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        line.plain = spelling.printable(line.plain)  # a module's name may hold anything
        console.print(line, no_wrap=True, overflow="ignore", crop=False, highlight=False)


def _print_headline(report: Report, console: Console, width: int) -> None:
    table = _table()
    table.add_column("")
    for header in ("before", "after", "change"):
        table.add_column(header, justify="right")
    for row in text.amount_rows(report):
        table.add_row(*row)
    console.print(table)
    console.print()
    print_lines(console, wrap(text.accuracy(report), width))
    if quality := text.quality(report):
        print_lines(console, wrap(quality, width))
    if report.decisions is not None:
        print_lines(console, wrap(decided.headline(report.decisions), width), "bold")
    if costs := text.costs(report):
        print_lines(console, wrap(costs, width), "yellow")
    print_lines(console, wrap(text.shape_of_network(report.anatomy), width), "dim")
    for part in report.opaque:
        print_lines(console, wrap(f"not seen into: {part.path} ({part.cause})", width, 0, 4), "yellow")


def _print_decisions(decisions: Decisions, console: Console, width: int) -> None:
    if sentence := decided.not_kept(decisions):
        print_lines(console, wrap(sentence, width), "yellow")
    if rows := decided.rows(decisions):
        table = _table()
        for header in decided.header(decisions):
            table.add_column(header, overflow="fold", no_wrap=header == "time")
        for row in rows:
            table.add_row(*(Text(spelling.printable(cell)) for cell in row))
        console.print(table)
    if sentence := decided.kept(decisions):
        print_lines(console, wrap(sentence, width), "dim")


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _pass_table(steps: Sequence[Step], width: int) -> Table:
    counts = width >= _ROOM_FOR_COUNTS
    table = _table()
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("pass", overflow="fold")
    for header in (*(("edits", "refused") if counts else ()), "Δ params", "Δ MACs", "moved by", "so far"):
        table.add_column(header, justify="right", no_wrap=True)
    for index, step in enumerate(steps, 1):
        before, after = step.before, step.after
        table.add_row(
            str(index),
            Text(step.name),
            *((str(len(text.rewritten(step) or text.calibrated(step))), str(len(step.skips))) if counts else ()),
            words.signed(after.parameters - before.parameters),
            words.signed(after.macs - before.macs),
            Text(text.outcome(step), "" if step.verdict.holds else "red"),
            words.error_text(step.verdict.accumulated),
        )
    return table


def _stage_table(report: Report) -> Table:
    table = _table()
    for index, header in enumerate(text.STAGE_HEADER):
        table.add_column(header, justify="right" if index else "left", no_wrap=True)
    for row in text.stage_rows(report):
        table.add_row(*map(Text, row))
    return table


def _pass_lines(index: int, step: Step, width: int, verbose: bool) -> Iterator[Text]:
    edits, neighbours = text.rewritten(step), text.compensated(step)
    yield Text(f"{index}. {step.name}", "bold")
    options = text.options_text(step.options)
    yield from _styled(wrap(options, width, 3), "dim")
    if edits:
        yield Text(f"   {words.count(len(edits), 'edit')}", "green")
        yield from _every_edit(edits, width) if verbose else _edit_groups(edits, width)
    if neighbours:
        yield Text(f"   weights adjusted in {words.count(len(neighbours), 'neighbour')}", "green")
        if verbose:
            yield from _paths(neighbours, width, verbose)
    for word, group in text.grouped(text.calibrated(step), lambda edit: edit.fate).items():
        yield Text(f"   {words.count(len(group), 'layer')} {word}", "green")
        if verbose:
            yield from _every_edit(group, width)
    if sentence := text.checked(step):
        yield from _styled(wrap(sentence, width, 3), "" if step.verdict.holds else "red")
    if step.skips:
        yield Text(f"   {len(step.skips)} refused", "yellow")
        yield from _refusal_groups(step.skips, width, verbose)
    if not step.edits and not step.skips:
        yield Text("   no layer of this pass's kind", "dim")


def _every_edit(edits: Sequence[Edit], width: int) -> Iterator[Text]:
    for edit in edits:
        yield from _styled(wrap(edit.path, width, 3, 7), "cyan")
        yield from _styled(_signature(edit.before, edit.after, width, 7))
        amounts = [
            edit.stage or "in no stage",
            f"{words.signed(edit.parameters)} params",
            f"{words.signed(edit.macs)} MACs",
            text.edit_remark(edit),
        ]
        yield from _styled(wrap(", ".join(amounts), width, 7), "dim")


def _edit_groups(edits: Sequence[Edit], width: int) -> Iterator[Text]:
    alike = text.grouped(edits, lambda edit: (edit.before, edit.after, edit.exact, edit.note))
    for (before, after, exact, note), group in alike.items():
        lines = _signature(before, f"{after or 'removed'}{', exact' if exact else ''}", width, 7)
        yield from _styled(_counted(len(group), lines))
        yield from _paths(group, width, verbose=False)
        yield from _styled(wrap(note, width, 7) if note else (), "dim")


def _refusal_groups(skips: Sequence[Skip], width: int, verbose: bool) -> Iterator[Text]:
    for reason, group in text.grouped(skips, lambda skip: skip.reason).items():
        line = f"{len(group):>4} × {' '.join(reason.split())}: {', '.join(skip.path for skip in group)}"
        if len(line) <= width and not verbose:
            yield Text(line)
        else:
            yield from _styled(_counted(len(group), wrap(reason, width, 7)))
            yield from _paths(group, width, verbose)


def _counted(number: int, lines: Sequence[str]) -> list[str]:
    """Lines indented by 7, the first one with a number in front."""
    return [f"{number:>4} × {lines[0][7:]}", *lines[1:]]


def _signature(before: str, after: str, width: int, indent: int) -> list[str]:
    """`before → after` on one line where it fits, else on a line each, wrapped between the parts."""
    before, after = " ".join(before.split()), " ".join(after.split()) or "removed"
    if indent + len(before) + len(after) + 3 <= width:
        return [f"{' ' * indent}{before} → {after}"]
    return _wrap_parts(before, width, indent) + _wrap_parts(f"→ {after}", width, indent, indent + 2)


def _wrap_parts(content: str, width: int, indent: int, hanging: int | None = None) -> list[str]:
    """Wrap `PConv2d(...) + Conv2d(...)` before a plus sign only, where the parts are short enough."""
    parts = content.split(" + ")
    glued = " ".join(f"{f'+{_GLUE}' if index else ''}{part.replace(' ', _GLUE)}" for index, part in enumerate(parts))
    longest = max(map(len, parts)) + (hanging or indent) + 2
    return wrap(glued if longest <= width else content, width, indent, hanging)


def _paths(items: Sequence[Edit | Skip], width: int, verbose: bool, indent: int = 7) -> Iterator[Text]:
    """All paths, one a line, or as many as fit on one line and how many more there are."""
    paths = [item.path for item in items]
    if verbose:
        for path in paths:
            yield from _styled(wrap(path, width, indent, indent + 4), "cyan")
        return
    room = width - indent
    shown = [elide(paths[0], room - len(_more(len(paths) - 1)))]
    for path in paths[1:]:
        line = ", ".join([*shown, path])
        if len(line) + len(_more(len(paths) - len(shown) - 1)) > room:
            break
        shown.append(path)
    yield Text(" " * indent + ", ".join(shown) + _more(len(paths) - len(shown)), "cyan")


def _more(number: int) -> str:
    return f", … {number} more" if number else ""


def _styled(lines: Iterable[str], style: str = "") -> Iterator[Text]:
    return (Text(line, style) for line in lines)
