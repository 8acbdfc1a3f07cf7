"""The configuration of `mofa lint`: `[tool.mofa]` in pyproject.toml, or the same keys in mofa.toml.

A later source has the last word: the general settings, then a model's, then the command line's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from ..base.errors import LintError
from .settings import (
    Budgets,
    ModelBudgets,
    Selection,
    Settings,
    Table,
    Thresholds,
    check_prefix,
    check_select,
    is_file_of_inputs,
    refused,
    shape,
)
from .toml_lines import Key, line_of, written

NAMES = ("mofa.toml", "pyproject.toml")
"""Files that are looked for, the first of a folder's wins."""

_SECTION = ("tool", "mofa")
_MOST_PROBLEMS = 20
_TYPES = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "fraction_parsing": "a portion such as 1/4",
    "fraction_type": "a portion such as 1/4",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "a table",
    "string_type": "text",
    "tuple_type": "a list",
}


def _prefix(value: str, info: ValidationInfo) -> str:
    return check_prefix(value, (info.context or {}).get("known"))


def _select(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    return check_select(value, (info.context or {}).get("known"))


def _shapes(value: Any) -> Any:
    if isinstance(value, str) and is_file_of_inputs(value):
        return value
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise refused("names no shape; leave it out for the compiler to choose")
    found = []
    for index, text in enumerate(texts):
        try:
            found.append(shape(text))
        except ValueError as error:
            raise refused(str(error), *([index] if isinstance(value, list) else [])) from error
    return tuple(found)


def _is_target(value: str) -> bool:
    source, _, name = value.rpartition(":")
    return bool(source) and all(part.isidentifier() for part in name.split("."))


def _target(value: str) -> str:
    if not _is_target(value) or value.endswith(".py"):
        raise ValueError(
            f"{value!r} names no class or function: a target is package.module:Class or path/to/file.py:Class"
        )
    return value


def _filled(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} must be printable text, and not empty")
    return value


Prefixes = Annotated[tuple[Annotated[str, AfterValidator(_prefix)], ...], Field(strict=False)]
Name = Annotated[str, AfterValidator(_filled)]
Shapes = Annotated[tuple[tuple[int, ...], ...] | str, BeforeValidator(_shapes)]


class _Selecting(Table):
    select: Annotated[Prefixes, AfterValidator(_select)] | None = None
    extend_select: Prefixes = ()
    ignore: Prefixes = ()
    per_path_ignores: dict[str, Prefixes] = Field(default_factory=dict)

    @property
    def selection(self) -> Selection:
        return Selection(self.select, self.extend_select, self.ignore)


class Model(_Selecting):
    """One of the models to lint, as the configuration has it.

    Attributes:
        target: `package.module:Class`, or `path/to/file.py:Class` from the configuration's folder.
        name: that of the class, unless given; unique.
        args: keyword arguments for the target.
        input: shapes of its inputs, or a file that holds them, from the configuration's folder; None lets the compiler
            choose.
        checkpoint: its weights, a file from the configuration's folder, which `--fix` keeps; None: as it starts.
        key: entry of the checkpoint that holds them. strip_prefix: of the checkpoint's keys.
        reference: what the budget for latency compares with: a target, or a bundle's folder.
        budgets: on top of the general ones.
    """

    target: Annotated[str, AfterValidator(_target)]
    name: Name = ""
    args: dict[str, Any] = Field(default_factory=dict)
    input: Shapes | None = None
    checkpoint: Name | None = None
    key: Name | None = None
    strip_prefix: Name | None = None
    reference: Name | None = None
    budgets: ModelBudgets = Field(default_factory=ModelBudgets)

    @model_validator(mode="before")
    @classmethod
    def _name_by_class(cls, data: Any) -> Any:
        if isinstance(data, dict) and "name" not in data and isinstance(data.get("target"), str):
            return {**data, "name": data["target"].rpartition(":")[2]}
        return data

    @model_validator(mode="after")
    def _compares_with_something(self) -> Model:
        if self.budgets.latency is not None and self.reference is None:
            raise refused(
                "needs the model's reference: a target or a bundle's folder", "budgets", *self.budgets.latency
            )
        for name, value in (("key", self.key), ("strip-prefix", self.strip_prefix)):
            if value is not None and self.checkpoint is None:
                raise refused("is for reading a checkpoint, and there is none", name)
        return self


class General(_Selecting):
    """All that a configuration file says; see `Settings` for what the keys mean."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "tool": "keys stand at the top level here; [tool.mofa] is for pyproject.toml"
    }

    engine: Name | None = None
    threads: Annotated[int, Field(ge=1)] = 1
    thresholds: Thresholds = Field(default_factory=Thresholds)
    budgets: Budgets = Field(default_factory=Budgets)
    models: Annotated[tuple[Model, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _tell_models_apart(self) -> General:
        seen: set[str] = set()
        for index, model in enumerate(self.models):
            if model.name in seen:
                raise refused(f"there is another model {model.name!r}: give each a name", "models", index, "name")
            seen.add(model.name)
        return self


@dataclass(frozen=True)
class Config:
    """A configuration file, read and checked.

    Attributes:
        file: where it was read from.
        general: what it says, as it says it.
    """

    file: Path
    general: General
    _text: str = field(repr=False)

    @classmethod
    def load(cls, file: str | Path, known: Collection[str] | None = None) -> Config:
        """Read a file: `[tool.mofa]` of one that is called pyproject.toml, all of any other.

        Args:
            file: its path.
            known: codes of all rules, which prefixes are checked against; None: not checked.

        Raises:
            LintError: there is no such file, it is malformed, or a key or value makes no sense; the message names file,
                line and key.
        """
        found = _read(Path(file), known)
        if found is None:
            raise LintError(f"{shown(Path(file))} has no [tool.mofa]", code="not-found")
        return found

    @classmethod
    def discover(cls, folder: str | Path = ".", known: Collection[str] | None = None) -> Config | None:
        """Read the nearest mofa.toml, or pyproject.toml with [tool.mofa], in a folder or above it; None without one.

        Raises:
            LintError: as `load`.
        """
        folder = Path(folder).resolve()
        for parent in (folder, *folder.parents):
            for name in NAMES:
                if (parent / name).is_file() and (found := _read(parent / name, known)):
                    return found
        return None

    @property
    def root(self) -> Path:
        """The file's folder, absolute, which relative paths begin from."""
        return self.file.resolve().parent

    @property
    def models(self) -> tuple[Model, ...]:
        """What there is to lint, in order."""
        return self.general.models

    def settings_for(self, model: Model | None = None) -> Settings:
        """The general settings with a model's on top; the general ones alone for a model that is not in the file."""
        general = self.general
        if model is None:
            budgets = ModelBudgets(**dict(general.budgets))
            return self._settings((general.selection,), dict(general.per_path_ignores), budgets, None)
        ignores = {
            glob: (*general.per_path_ignores.get(glob, ()), *model.per_path_ignores.get(glob, ()))
            for glob in (*general.per_path_ignores, *model.per_path_ignores)
        }
        budgets = ModelBudgets(**dict(general.budgets) | _given(model.budgets))
        selections = (general.selection, model.selection)
        return self._settings(selections, ignores, budgets, model.reference and self.located(model.reference))

    def _settings(
        self,
        selections: tuple[Selection, ...],
        ignores: Mapping[str, tuple[str, ...]],
        budgets: ModelBudgets,
        reference: str | None,
    ) -> Settings:
        general = self.general
        return Settings(selections, ignores, general.engine, general.threads, general.thresholds, budgets, reference)

    def located(self, reference: str) -> str:
        """A target or a bundle's folder with its path, if it has one, from the root of the file system on."""
        source, separator, name = reference.rpartition(":")
        if not _is_target(reference):
            return str(self.root / Path(reference).expanduser())
        if source.endswith(".py") or "/" in source or "\\" in source:
            return f"{self.root / Path(source).expanduser()}{separator}{name}"
        return reference

    def blames(self, message: str, *key: str | int) -> LintError:
        """An error that names file, line and key, for what only shows when the configuration is put to use.

        Args:
            message: what is wrong there, such as `there is no engine 'xnpack'`.
            key: as in `keys.Key`, such as `"models", 1, "budgets", "stages", "encoder 9"`.
        """
        return _error(self.file, self._text, (*_section(self.file), *key), message)


def settings(data: Mapping[str, Any], known: Collection[str]) -> Settings:
    """Settings of one model from plain data, with the keys of a configuration, its `budgets.stages` among them.

    Raises:
        LintError: a key or value makes no sense.
    """
    budgets = data.get("budgets", {})
    try:
        general = General.model_validate({k: v for k, v in data.items() if k != "budgets"}, context={"known": known})
        allowed = ModelBudgets.model_validate(budgets, context={"known": known})
    except ValidationError as error:
        key, message = _problem(error.errors()[0])
        raise LintError(f"{written(key)}: {message}", code="bad-value") from error
    chosen = (general.selection,)
    ignores = dict(general.per_path_ignores)
    return Settings(chosen, ignores, general.engine, general.threads, general.thresholds, allowed)


def shown(file: Path) -> str:
    """A path as messages name it: from the working folder on, where it lies below."""
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def _given(table: Table) -> dict[str, Any]:
    return {name: value for name, value in dict(table).items() if name in table.model_fields_set}


def _section(file: Path) -> tuple[str, ...]:
    return _SECTION if file.name == "pyproject.toml" else ()


def _read(file: Path, known: Collection[str] | None) -> Config | None:
    """The configuration in a file; None where it has no section for us."""
    text = _text(file)
    document: Any = _parsed(file, text)
    for index, name in enumerate(_section(file)):
        if not isinstance(document, dict):
            raise _error(file, text, _SECTION[:index], "must be a table")
        if name not in document:
            return None
        document = document[name]
    try:
        general = General.model_validate(document, context={"known": known})
    except ValidationError as error:
        problems = [_problem(one) for one in error.errors()[:_MOST_PROBLEMS]]
        located = [((*_section(file), *key), message) for key, message in problems]
        key, message = min(located, key=lambda problem: line_of(text, problem[0]))
        raise _error(file, text, key, message) from error
    return Config(file, general, text)


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise LintError(f"cannot read the configuration {shown(file)}: {error.strerror}", code="unreadable") from error
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LintError(f"{shown(file)}:{line}: is not UTF-8 text ({error.reason})", code="damaged") from error


def _parsed(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
        line = int(match[1]) if match and match[1] else text.rstrip("\n").count("\n") + 1
        cause = message[: match.start()] if match else message
        raise LintError(
            f"{shown(file)}:{line}: malformed TOML: {cause[:1].lower()}{cause[1:]}", code="damaged"
        ) from error
    except (ValueError, RecursionError) as error:  # a number too long, or brackets too deep, for Python
        raise LintError(f"{shown(file)}: malformed TOML: {error}", code="damaged") from error


def _problem(error: Mapping[str, Any]) -> tuple[Key, str]:
    """Where it is, and what, of one of pydantic's errors."""
    context = error.get("ctx", {})
    key = (*error["loc"], *context.get("at", ()))
    kind, value = error["type"], repr(error["input"])
    value = value if len(value) <= 60 else f"{value[:57]}..."
    if kind == "refused":
        return key, str(context["message"])
    if kind == "value_error":
        return key, str(context["error"])
    if kind == "missing":
        return key, "is missing"
    if kind in _TYPES:
        return key, f"{value} must be {_TYPES[kind]}"
    return key, f"{value}: {error['msg'].replace('Input should', 'must')}"


def _error(file: Path, text: str, key: Key, message: str) -> LintError:
    return LintError(f"{shown(file)}:{line_of(text, key)}: {written(key)}: {message}", code="bad-value")
