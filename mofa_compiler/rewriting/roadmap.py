"""A roadmap: configured passes in order; TOML in and out."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..base.errors import RoadmapError, nearest
from ..base.spelling import has_no_encoding, toml_string
from .pass_api import Pass, Phase
from .registry import available
from .target import Target


@dataclass(frozen=True, init=False)
class Roadmap:
    """An ordered list of passes; one of none leaves a network as it is.

    The order is checked, and changed in one thing alone: preparations come first, wherever they stand.

    Raises:
        RoadmapError: a pass comes before one that it has to follow, or is no pass.
    """

    passes: tuple[Pass, ...]
    name: str = "custom"
    description: str = ""
    target: Target | None = None
    """What it is to be decided for by measurement; None: every pass does what its options say"""

    def __init__(
        self,
        passes: Iterable[Pass],
        name: str = "custom",
        description: str = "",
        target: Target | None = None,
    ):
        given = list(passes)
        first = [one for one in given if isinstance(one, Pass) and one.phase is Phase.PREPARE]
        object.__setattr__(self, "passes", (*first, *(one for one in given if one not in first)))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "description", description)
        object.__setattr__(self, "target", target)
        for key in ("name", "description"):
            if has_no_encoding(str(getattr(self, key))):
                raise RoadmapError(f"roadmap {name!a}: its {key} is no Unicode text", code="bad-value")
        for pass_ in self.passes:
            if not isinstance(pass_, Pass):
                raise RoadmapError(
                    f"roadmap {name!r}: {pass_!r} is not a pass; give an instance, with its options", code="wrong-kind"
                )
        self._check_order()

    def _check_order(self) -> None:
        names = [pass_.name for pass_ in self.passes]
        lowered = next((i for i, pass_ in enumerate(self.passes) if pass_.phase is Phase.LOWER), len(names))
        for index, pass_ in enumerate(self.passes[lowered:], lowered):
            if pass_.phase is not Phase.LOWER:
                raise RoadmapError(
                    f"roadmap {self.name!r}: {names[lowered]} (pass {lowered + 1}) comes before {pass_.name} (pass "
                    f"{index + 1}): it lowers what all other passes made; put it last",
                    code="order",
                )
        for index, pass_ in enumerate(self.passes):
            late = next((name for name in names[index + 1 :] if name in pass_.after), None)
            if late:
                raise RoadmapError(
                    f"roadmap {self.name!r}: {pass_.name} (pass {index + 1}) comes before {late} "
                    f"(pass {names.index(late, index) + 1}), whose work it builds on; put {late} first",
                    code="order",
                )

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    @property
    def by_phase(self) -> tuple[tuple[Pass, ...], tuple[Pass, ...], tuple[Pass, ...]]:
        """The preparations, what is fitted to what they make of a network, and the lowerings."""
        first = sum(pass_.phase is Phase.PREPARE for pass_ in self.passes)
        last = len(self.passes) - sum(pass_.phase is Phase.LOWER for pass_ in self.passes)
        return self.passes[:first], self.passes[first:last], self.passes[last:]

    def with_preparations(self) -> Roadmap:
        """The same roadmap behind the preparations that are offered under a bound and that it does not name."""
        named = {pass_.name for pass_ in self.passes}
        kinds = [kind for name, kind in available().items() if kind.offered_under_bound and name not in named]
        offered = [kind.offer() for kind in kinds if kind.phase is Phase.PREPARE]
        passes = sorted(offered, key=lambda one: not one.keeps_output)  # those that ask what values are like come first
        return Roadmap([*passes, *self.passes], self.name, self.description, self.target)

    def with_target(self, engine: str, threads: int = 1, **options: Any) -> Roadmap:
        """The same roadmap, to be decided by measurement on an engine; options as `rewriting.target.Target` has them.

        Raises:
            RoadmapError: an unknown option or a bad value.
        """
        target = Target.from_data({"engine": engine, "threads": threads, **options}, f"roadmap {self.name!r}")
        return Roadmap(self.passes, self.name, self.description, target)

    @classmethod
    def load(cls, source: str | Path) -> Roadmap:
        """A preset by name (see `presets`), or a TOML file by path.

        Raises:
            RoadmapError: neither exists, or the file is malformed; the message names the line or the option.
        """
        text = str(source)
        if text in presets():
            return cls.from_toml(_preset(text).read_text(encoding="utf-8"), origin=f"preset {text}")
        path = Path(source)
        if path.is_file():
            try:
                return cls.from_toml(path.read_text(encoding="utf-8"), origin=text, name=path.stem)
            except UnicodeDecodeError as error:
                raise RoadmapError(f"{text} is not a text file: {error}", code="damaged") from error
        if path.suffix == ".toml" or "/" in text:
            raise RoadmapError(f"there is no roadmap file {text}", code="not-found")
        raise RoadmapError(
            f"there is no roadmap {text!r}{nearest(text, presets())}; a file needs its path", code="unknown-name"
        )

    @classmethod
    def from_toml(cls, text: str, origin: str = "roadmap", name: str = "custom") -> Roadmap:
        """Parse TOML: `name`, `description` and a `[[pass]]` table each with `name` and options.

        Raises:
            RoadmapError: malformed TOML (with its line), an unknown key, pass or option, or a bad value.
        """
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # a number too long, or brackets too deep, for Python
            raise RoadmapError(f"{origin}: malformed TOML: {error}", code="damaged") from error
        return cls.from_dict(document, origin, name)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], origin: str = "roadmap", name: str = "custom") -> Roadmap:
        """The same from plain data, as `to_dict` writes it."""
        known = ("name", "description", "target", "pass")
        unknown = set(document) - set(known)
        if unknown:
            key = min(unknown)
            raise RoadmapError(f"{origin}: unknown key {key!r}{nearest(key, known)}", code="unknown-option")
        for key in ("name", "description"):
            if not isinstance(document.get(key, ""), str):
                raise RoadmapError(f"{origin}: {key} = {document[key]!r}: must be text", code="bad-value")
        tables = document.get("pass", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise RoadmapError(f"{origin}: 'pass' must be tables, each under its own [[pass]]", code="bad-value")
        passes = [_configured(table, f"{origin}, pass {index}") for index, table in enumerate(tables, 1)]
        target = Target.from_data(document["target"], origin) if "target" in document else None
        return cls(passes, str(document.get("name", name)), str(document.get("description", "")), target)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with every option, also those at their defaults."""
        tables = [{"name": pass_.name, **plain_options(pass_)} for pass_ in self.passes]
        target = {"target": self.target.to_data()} if self.target else {}
        return {"name": self.name, "description": self.description, **target, "pass": tables}

    def to_toml(self) -> str:
        """TOML that `from_toml` reads back to an equal roadmap."""
        lines = [f"name = {_toml(self.name)}"]
        if self.description:
            lines.append(f"description = {_toml(self.description)}")
        if self.target:
            lines += ["", "[target]", *(f"{key} = {_toml(value)}" for key, value in self.target.to_data().items())]
        for table in self.to_dict()["pass"]:
            lines += ["", "[[pass]]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"


def _configured(table: Mapping[str, Any], origin: str) -> Pass:
    options = dict(table)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise RoadmapError(f"{origin}: a [[pass]] needs a name (known: {', '.join(available())})", code="needs-option")
    if name not in available():
        raise RoadmapError(f"{origin}: there is no pass {name!r}{nearest(name, available())}", code="unknown-name")
    return configure(available()[name], options, origin)


def configure(pass_: type[Pass], options: Mapping[str, Any], origin: str) -> Pass:
    """A pass with its options, validated by their types.

    Raises:
        RoadmapError: an unknown option (with the nearest name) or a value that does not fit.
    """
    names = [field.name for field in fields(pass_) if field.init]
    for option in options:  # not left to pydantic, which drops what a pass's own configuration does not forbid
        if option not in names:
            raise RoadmapError(
                f"{origin}: {pass_.name} has no option {option!r}{nearest(option, names)}", code="unknown-option"
            )
    try:
        return TypeAdapter(pass_).validate_python(dict(options), by_name=True)
    except ValidationError as error:
        problem = error.errors()[0]
        option = str(problem["loc"][0]) if problem["loc"] else ""
        raise RoadmapError(
            f"{origin}: {pass_.name}: {option} = {problem['input']!r}: {problem['msg']}", code="bad-value"
        ) from error


def in_order(passes: Iterable[Pass]) -> list[Pass]:
    """Passes in an order that a roadmap takes: as `after` asks for, else by phase, else as they are given."""
    by_name: dict[str, list[Pass]] = {}
    for pass_ in passes:
        by_name.setdefault(pass_.name, []).append(pass_)
    given = {name: (same[0].phase, index) for index, (name, same) in enumerate(by_name.items())}
    import networkx  # for what is decided or mended, and slow to import

    graph = networkx.DiGraph()
    graph.add_nodes_from(by_name)
    graph.add_edges_from((early, name) for name in by_name for early in by_name[name][0].after if early in by_name)
    order = networkx.lexicographical_topological_sort(graph, given.__getitem__)
    return [pass_ for name in order for pass_ in by_name[name]]


def at_layers(paths: Iterable[str]) -> tuple[str, ...]:
    """Globs for layers and for what passes put below them; brackets in a path are no pattern."""
    escaped = (path.replace("[", "[[]") for path in dict.fromkeys(paths))
    return tuple(glob for path in escaped for glob in (path, f"{path}.*"))


def presets() -> list[str]:
    """Names of the roadmaps that ship with the package."""
    folder = resources.files(__package__) / "roadmaps"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _preset(name: str) -> Any:
    return resources.files(__package__) / "roadmaps" / f"{name}.toml"


def plain_options(pass_: Pass) -> dict[str, Any]:
    """A pass's options as TOML and JSON can hold them; a fraction becomes text such as `1/4`."""
    return {name: _plain(value) for name, value in pass_.options.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)
