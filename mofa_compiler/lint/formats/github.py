"""`github`: annotations of a GitHub Actions step, and its job summary."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ...base.spelling import printable
from ...base.words import count
from ..finding import Outcome
from . import markdown, wording
from .context import Context
from .wording import Group

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
_SHOWN_PER_COMMAND = 10
"""GitHub shows so many annotations of a level for each step, and drops the rest in silence"""
_SUMMARY_BYTES = 2**20


def render(outcome: Outcome, context: Context) -> str:
    """Workflow commands, a line each, the most important first, and as many as GitHub shows.

    Findings that one line of source makes are one annotation. All of them go to the job summary, as Markdown, where
    there is one. What is not shown is said in a last notice.
    """
    summarised = context.summary is not None and _append(context.summary, outcome, context)
    targets = wording.targets(outcome)
    groups = wording.grouped(outcome.findings)
    by_command: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_command[_COMMANDS[group.first.level]].append(group)
    crowded = any(len(members) > _SHOWN_PER_COMMAND for members in by_command.values())
    lines, hidden = [], 0
    for command in _COMMANDS.values():
        room = _SHOWN_PER_COMMAND - (crowded and command == "notice")  # the last notice is one, too
        members = by_command[command]
        lines += [_annotation(command, group, targets.get(group.first.model, ""), context) for group in members[:room]]
        hidden += sum(len(group.findings) for group in members[room:])
    if hidden:
        where = "they are in the job summary" if summarised else "`--output-format full` shows them"
        text = f"{count(hidden, 'finding')} of {len(outcome.findings)} {'is' if hidden == 1 else 'are'} not shown here"
        lines.append(_command("notice", {"title": "mofa lint"}, f"{text}: {where}"))
    return "".join(f"{line}\n" for line in lines)


def _annotation(command: str, group: Group, target: str, context: Context) -> str:
    first, properties = group.first, {}
    if position := wording.place(first, target, context):
        properties = {"file": printable(position.file), "line": str(position.line)}
        one_line = position.end_line in (None, position.line)
        if position.end_line:
            properties["endLine"] = str(position.end_line)
        if one_line and position.column:  # GitHub takes columns of a single line only
            properties["col"] = str(position.column)
            if position.end_column:
                properties["endColumn"] = str(position.end_column)
    properties["title"] = printable(f"{first.code} {first.rule}")
    model = printable(first.model)
    kinds, more = group.shown_kinds
    text = [f"{message} [{f'{model}: {wording.listed(layers)}' if layers else model}]" for message, layers in kinds]
    if more:
        text.append(more)
    if first.fix:
        text.append(wording.mended(first.fix, group.macs, group.parameters))
    return _command(command, properties, "\n".join(text))


def _command(name: str, properties: dict[str, str], message: str) -> str:
    escaped = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {escaped}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _append(file: Path, outcome: Outcome, context: Context) -> bool:
    """Append the Markdown report to the job summary, cut to the room that GitHub leaves; whether that could be done."""
    try:
        taken = file.stat().st_size if file.exists() else 0
        text = markdown.fitting(outcome, context, _SUMMARY_BYTES - taken)
        if not text:
            return False
        with file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except OSError:  # annotations are still worth printing
        return False
    return True
