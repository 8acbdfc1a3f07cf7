"""A document as one HTML file: nothing is loaded, and nothing of a name is markup. Classes are those of `style.css`.

Everything can be read without JavaScript: what is folded are `<details>`, and the zoom of pictures is CSS. Only a
`Search` takes a script, which filters and sorts what stands in the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
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
    Pictures,
    Search,
    Table,
    Toned,
    Words,
    plain,
)

_LISTED = 4
"""Layers of a group that are shown without a click"""

_ZOOMS = (1, 2, 4, 8)

_PAGE = Markup(
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
    '<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    "<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    '<a class="jump" href="#content">Skip to the content</a>\n<header>\n<h1>{title}</h1>\n{lead}{links}</header>\n'
    '<main id="content">\n<section>\n{body}\n</section>\n</main>\n{script}</body>\n</html>\n'
)


def page(document: Document, title: str = "") -> str:
    """One file: `title` above, the document's own below it; without one, the document's own is the page's."""
    searches = any(isinstance(block, Search) for block in document.blocks)
    own = plain(document.title)
    headings = [block for block in document.blocks if isinstance(block, Heading) and block.anchor]
    links = Markup("\n").join(
        Markup('<a href="#{}">{}</a>').format(one.anchor, _written(one.words)) for one in headings
    )
    page = _PAGE.format(
        policy=_policy(searches),
        title=printable(title or own),
        style=_asset("style.css"),
        lead=Markup('<p class="lead">{}</p>\n').format(printable(own)) if title else "",
        links=Markup('<nav aria-label="Parts of this page">\n{}\n</nav>\n').format(links) if headings else "",
        body=Markup("\n").join(_rendered(document.blocks)),
        script=Markup("<script>{}</script>\n").format(_asset("search.js")) if searches else "",
    )
    return str(page)


@functools.cache
def _asset(name: str) -> Markup:
    """A file of this package, which is not escaped."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


@functools.cache
def _policy(searches: bool) -> str:
    """Nothing may be loaded, and no script may run but ours: what a name smuggled in would do nothing."""
    digest = base64.b64encode(hashlib.sha256(_asset("search.js").encode()).digest()).decode("ascii")
    scripts = f"; script-src 'sha256-{digest}'" if searches else ""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'{scripts}"


def _rendered(blocks: Iterable[Block]) -> Iterator[Markup]:
    """Every block; a heading begins a section of its own."""
    pictures = 0
    for block in blocks:
        match block:
            case Heading(words, anchor):
                name = Markup(' id="{}"').format(anchor) if anchor else ""
                yield Markup("</section>\n<section{}>\n<h2>{}</h2>").format(name, _written(words))
            case Paragraph(words, tone):
                yield Markup("<p{}>{}</p>").format(_class(tone), _written(words))
            case Notice(words):
                yield Markup('<p class="notice"><strong>Note:</strong> {}</p>').format(_written(words))
            case Table():
                yield _table(block)
            case Groups(groups):
                yield Markup("<ul>\n{}\n</ul>").format(Markup("\n").join(map(_group, groups)))
            case Details(summary, inner, anchor):
                name = Markup(' id="{}"').format(anchor) if anchor else ""  # inside, or a link would not open it
                folded = Markup("\n").join(_rendered(inner))
                yield Markup("<details><summary>{}</summary><div{}>\n{}\n</div></details>").format(
                    _written(summary), name, folded
                )
            case Figure(svg, label):
                frame = '<div class="figure" role="region" tabindex="0" aria-label="{}">{}</div>'
                yield Markup(frame).format(label, Markup(svg))
            case Pictures():
                pictures += 1
                yield _pictures(block, pictures)
            case Search(label):
                field = '<label>{} <input type="search" autocomplete="off"></label> <output></output>'
                yield Markup(f'<p class="search" hidden>{field}</p>').format(label)


def _class(tone: str) -> Markup | str:
    return Markup(' class="{}"').format(tone) if tone else ""


def _written(words: Words) -> Markup:
    parts = words if isinstance(words, tuple) else (words,)
    return Markup("").join(map(_word, parts))


def _word(part: str | Code | Toned) -> Markup:
    match part:
        case Code(text):
            return Markup("<code>{}</code>").format(printable(text))
        case Toned(said, "soft"):
            return Markup("<small>{}</small>").format(_word(said))
        case Toned(said, tone):
            return Markup("<span{}>{}</span>").format(_class(tone), _word(said))
        case _:
            return Markup("{}").format(printable(part))


def _table(table: Table) -> Markup:
    kinds = [Markup(' class="n"') if side == "r" else "" for side in table.sides]
    head = Markup('<th scope="col"{}>{}</th>')
    header = Markup("").join(
        head.format(kind, word) if word else Markup("<td></td>") for word, kind in zip(table.header, kinds, strict=True)
    )
    note = Markup('\n<p class="soft">{}</p>').format(table.note) if table.note else ""
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{}">\n<table class="{}">\n'
        "<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>\n</div>{}"
    ).format(
        printable(table.label),
        "cards" if table.cards else "stack",
        header,
        Markup("\n").join(_row(row, table, kinds) for row in table.rows),
        note,
    )


def _row(row: Sequence[Words], table: Table, kinds: Sequence[str]) -> Markup:
    name, cell = Markup('<th scope="row">{}</th>'), Markup('<td{} data-label="{}">{}</td>')
    cells = (
        name.format(_written(words)) if index == table.name else cell.format(kinds[index], word, _written(words))
        for index, (word, words) in enumerate(zip(table.header, row, strict=True))
    )
    return Markup("<tr>{}</tr>").format(Markup("").join(cells))


def _group(group: Group) -> Markup:
    paths = Markup(", ").join(Markup("<code>{}</code>").format(printable(path)) for path in group.paths)
    folded = Markup("<details><summary>{} layers</summary><div>{}</div></details>")
    listed = folded.format(len(group.paths), paths) if len(group.paths) > _LISTED else Markup("<br>{}").format(paths)
    note = Markup(" ({})").format(printable(group.note)) if group.note else ""
    return Markup("<li>{} × {}{} {}</li>").format(len(group.paths), _written(group.words), note, listed)


def _pictures(block: Pictures, number: int) -> Markup:
    """The panes under a choice of how much they are enlarged; enlarged ones are scrolled."""
    choice = Markup('<label><input type="radio" name="zoom-{}" value="{}"{}> {} ×</label>')
    choices = (choice.format(number, zoom, Markup(" checked") * (zoom == 1), zoom) for zoom in _ZOOMS)
    image = Markup('<img src="{}" width="{}" height="{}" alt="{}">')
    figure = Markup(
        '<figure><div class="pane" style="aspect-ratio: {}" role="region" tabindex="0" aria-label="{}">{}</div>'
        "<figcaption><strong>{}</strong>{}</figcaption></figure>"
    )
    height, width = block.size
    shown = f"; shown of the outputs: {printable(block.note)}" if block.note else ""
    panes = []
    for pane in block.panes:
        name = f"{pane.label}: {printable(block.name)}"
        found = image.format(pane.source, width, height, name) if pane.source else Markup("<p>{}</p>").format(_MISSING)
        panes.append(figure.format(f"{width} / {height}", name, found, pane.label, pane.caption))
    return Markup(
        '<div class="image">\n<h3>{} <small>{} × {} pixels{}</small></h3>\n'
        '<fieldset><legend>Zoom</legend> {}</fieldset>\n<div class="panes">\n{}\n</div>\n</div>'
    ).format(printable(block.name), width, height, shown, Markup(" ").join(choices), Markup("\n").join(panes))


_MISSING = "not among the files of the bundle"
