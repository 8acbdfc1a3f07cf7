"""A document as HTML: nothing is loaded, and nothing of a name is markup. The classes are those of `style.css`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files

from markupsafe import Markup

from ...base.spelling import printable
from .blocks import (
    Block,
    Code,
    Details,
    Document,
    Figure,
    Group,
    Groups,
    Heading,
    Notice,
    Paragraph,
    Table,
    Words,
    plain,
)

_LISTED = 4
"""Layers of a group that are shown without a click"""

_PAGE = Markup(
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
    '<p class="lead">{lead}</p>\n</header>\n<main>\n<section>\n{body}\n</section>\n</main>\n</body>\n</html>\n'
)


def page(document: Document, title: str) -> str:
    """One file: `title` above, the document's own below it."""
    style = Markup(files("mofa_compiler.report.html").joinpath("style.css").read_text(encoding="utf-8"))
    body = Markup("\n").join(rendered(document.blocks))
    return str(_PAGE.format(title=printable(title), style=style, lead=printable(plain(document.title)), body=body))


def rendered(blocks: Iterable[Block]) -> Iterator[Markup]:
    """Every block; a heading begins a section of its own."""
    for block in blocks:
        match block:
            case Heading(words):
                yield Markup("</section>\n<section>\n<h2>{}</h2>").format(_written(words))
            case Paragraph(words, tone):
                kind = Markup(' class="hint"') if tone == "soft" else ""
                yield Markup("<p{}>{}</p>").format(kind, _written(words))
            case Notice(words):
                yield Markup('<p class="notice"><strong>Note:</strong> {}</p>').format(_written(words))
            case Table():
                yield _table(block)
            case Groups(groups):
                yield Markup("<ul>{}</ul>").format(Markup("").join(map(_group, groups)))
            case Details(summary, inner):
                folded = Markup("\n").join(rendered(inner))
                yield Markup("<details><summary>{}</summary>{}</details>").format(_written(summary), folded)
            case Figure(svg, label):
                frame = '<div class="figure" role="region" tabindex="0" aria-label="{}">{}</div>'
                yield Markup(frame).format(label, Markup(svg))


def _written(words: Words) -> Markup:
    parts = words if isinstance(words, tuple) else (words,)
    return Markup("").join(
        Markup("<code>{}</code>").format(printable(part.text)) if isinstance(part, Code) else printable(part)
        for part in parts
    )


def _table(table: Table) -> Markup:
    kinds = [Markup(' class="n"') if side == "r" else "" for side in table.sides]
    head = Markup('<th scope="col"{}>{}</th>')
    header = Markup("").join(
        head.format(kind, word) if word else Markup("<td></td>") for word, kind in zip(table.header, kinds, strict=True)
    )
    note = Markup('\n<p class="hint">{}</p>').format(table.note) if table.note else ""
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{}">\n<table class="stack">\n'
        "<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>\n</div>{}"
    ).format(printable(table.label), header, Markup("\n").join(_row(row, table, kinds) for row in table.rows), note)


def _row(row: Sequence[Words], table: Table, kinds: Sequence[str]) -> Markup:
    name, cell = Markup('<th scope="row">{}</th>'), Markup('<td{} data-label="{}">{}</td>')
    cells = (
        name.format(_written(words)) if index == table.name else cell.format(kinds[index], word, _written(words))
        for index, (word, words) in enumerate(zip(table.header, row, strict=True))
    )
    return Markup("<tr>{}</tr>").format(Markup("").join(cells))


def _group(group: Group) -> Markup:
    paths = Markup(", ").join(Markup('<code class="form">{}</code>').format(printable(path)) for path in group.paths)
    folded = Markup("<details><summary>{} layers</summary>{}</details>")
    listed = folded.format(len(group.paths), paths) if len(group.paths) > _LISTED else Markup("<br>{}").format(paths)
    return Markup("<li>{} × {} {}</li>").format(len(group.paths), _written(group.words), listed)
