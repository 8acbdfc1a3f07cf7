"""What one model is linted with: rules, where they count, thresholds and budgets such as `1.2M` and `20MiB`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from ..base.errors import LintError, nearest
from ..base.option_types import Portion
from .finding import UNLINTABLE, Default

_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": scale for prefix, scale in {**_DECIMAL, "K": 10**3}.items() if prefix},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
_NUMBER = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?([A-Za-z]*)", re.ASCII)
_SHAPE = re.compile(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*", re.ASCII)


def number(value: Any) -> int:
    """A limit for a count, from a whole number, or from text with a decimal prefix: `850k`, `1.2M`, `2G`, `1T`.

    What is behind the decimal point of a limit for whole numbers has no effect, and is cut off.

    Raises:
        ValueError: it is neither, or less than 1.
    """
    return _scaled(value, _DECIMAL, "a number such as 2G")


def memory(value: Any) -> int:
    """A limit in bytes, from a whole number, or from text with a unit: `20MB` (decimal), `20MiB` (binary), `512kB`.

    Raises:
        ValueError: it is neither, or less than 1.
    """
    return _scaled(value, _BYTES, "a size in bytes such as 20MB or 20MiB")


def shape(value: Any) -> tuple[int, ...]:
    """The shape that text such as `1x3x256x256` stands for.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not _SHAPE.fullmatch(value):
        raise ValueError(f"{value!r} is not a shape such as 1x3x256x256")
    return tuple(map(int, value.split("x")))


def is_file_of_inputs(text: str) -> bool:
    """Whether text names a file of inputs (see `mofa_compiler.loading.input_files`) rather than a shape."""
    return text.endswith((".json", ".py")) or ":" in text


def _scaled(value: Any, units: Mapping[str, int], form: str) -> int:
    found: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, float) and value.is_integer():  # 2e9
        found = int(value)
    elif isinstance(value, str) and (match := _NUMBER.fullmatch(value)) and match[2] in units:
        found = int(Decimal(match[1]) * units[match[2]])
    if found is None:
        raise ValueError(f"{value!r} is not {form}")
    if found < 1:
        raise ValueError(f"{value!r} is less than 1")
    return found


_PREFIX = re.compile(r"MOFA\d*", re.ASCII)


class Table(BaseModel):
    """A table of the configuration: every key is known and of its type. Keys have hyphens where fields have not."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """What to say of keys that belong in another table"""

    @model_validator(mode="before")
    @classmethod
    def _know_keys(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, dict) and info.context is not None:  # from a file, which uses no names of fields
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    hint = cls.elsewhere.get(key) or f"there is no such key{nearest(key, known)}"
                    raise refused(hint, key)
        return data


def refused(message: str, *at: str | int) -> PydanticCustomError:
    """What a validator raises; `at` leads from the value in hand to the part of it that is at fault."""
    return PydanticCustomError("refused", "{message}", {"message": message, "at": at})


Count = Annotated[int, BeforeValidator(number)]
Bytes = Annotated[int, BeforeValidator(memory)]


class Thresholds(Table):
    """From where on rules speak; what is None is left to the rule.

    Attributes:
        portion: of the channels that partial convolutions convolve.
        pdwconv: convolved channels from which a partial convolution should be depthwise.
        cheap_below: a stage is cheap below this share of the median encoder stage.
        kernel: size of kernels.
        contraction: ratio of channels.
    """

    portion: Annotated[Portion, Field(strict=False)] | None = None
    pdwconv: Annotated[int, Field(ge=1)] | None = None
    cheap_below: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    kernel: Annotated[int, Field(ge=1)] | None = None
    contraction: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None


class StageBudgets(Table):
    """What a network, or one stage, may cost; None: as much as it likes.

    Attributes:
        parameters: at most so many.
        macs: at most so many in one forward pass on the model's input.
        activation_memory: at its peak, in bytes; of a stage: while it runs, with what waits for later stages.
        latency_ratio: of its time to that of the reference, or of its stage of that name, on the engine.
    """

    parameters: Count | None = None
    macs: Count | None = None
    activation_memory: Bytes | None = None
    latency_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class Budgets(StageBudgets):
    """The same for networks that may be several."""

    elsewhere: ClassVar[Mapping[str, str]] = {"stages": "stages are a model's own: give their budgets under [[models]]"}


class ModelBudgets(Budgets):
    """The same for one model, also by the names of its stages."""

    elsewhere: ClassVar[Mapping[str, str]] = {}

    stages: dict[str, StageBudgets] = Field(default_factory=dict)

    @property
    def latency(self) -> tuple[str, ...] | None:
        """The key of a budget for latency, of which one is enough to need an engine and a reference; None without."""
        if self.latency_ratio is not None:
            return ("latency-ratio",)
        stage = next((name for name, one in self.stages.items() if one.latency_ratio is not None), None)
        return None if stage is None else ("stages", stage, "latency-ratio")


@dataclass(frozen=True)
class Selection:
    """What one source (the general settings, a model's, the command line) says about rules, in prefixes of codes.

    Attributes:
        select: what runs, whatever the sources before said; None: what they said.
        extend_select: what runs besides.
        ignore: what does not run.
    """

    select: tuple[str, ...] | None = None
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def decides(self, code: str) -> bool | None:
        """Whether a rule runs, by the longest prefix, `ignore` winning a draw; None where nothing is said about it.

        That a model cannot be linted (MOFA9...) only goes unsaid where it is ignored by its own prefix.
        """
        failure = code.startswith(UNLINTABLE)
        least = len(UNLINTABLE) if failure else 0
        wanted = _longest((*(self.select or ()), *self.extend_select), code, least)
        unwanted = _longest(self.ignore, code, least)
        if wanted or unwanted:
            return wanted > unwanted
        return None if self.select is None or failure else False

    def names(self, code: str) -> bool:
        """Whether a rule is selected by its whole code."""
        return code in (*(self.select or ()), *self.extend_select)


@dataclass(frozen=True)
class Settings:
    """What one model is linted with.

    Attributes:
        selections: of rules; a later one has the last word on the rules that it speaks of.
        per_path_ignores: globs over layers' dotted paths, to prefixes of the rules that do not count there.
        engine: a runtime engine that the network will run on.
        threads: that the engine may use.
        thresholds: of rules.
        budgets: of the model.
        reference: what the budget for latency compares with: a target, or a bundle's folder.
    """

    selections: tuple[Selection, ...] = ()
    per_path_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    engine: str | None = None
    threads: int = 1
    thresholds: Thresholds = field(default_factory=Thresholds)
    budgets: ModelBudgets = field(default_factory=ModelBudgets)
    reference: str | None = None

    def overridden(self, selection: Selection, engine: str | None = None) -> Settings:
        """The same with what the command line says on top."""
        return replace(self, selections=(*self.selections, selection), engine=engine or self.engine)

    def selected(self, rules: Mapping[str, Default]) -> tuple[str, ...]:
        """Codes of the rules that run, in the order given.

        Args:
            rules: by code, whether each runs that nobody selected.
        """
        return tuple(code for code, default in rules.items() if self.selects(code, default))

    def selects(self, code: str, default: Default) -> bool:
        """Whether a rule runs."""
        decisions = (selection.decides(code) for selection in reversed(self.selections))
        usual = default == "on" or (default == "engine" and self.engine is not None)
        return next((decision for decision in decisions if decision is not None), usual)

    def ignored(self, code: str, path: str) -> bool:
        """Whether a rule's findings do not count at a layer's dotted path."""
        return any(
            fnmatchcase(path, glob) and any(takes_out(prefix, code) for prefix in prefixes)
            for glob, prefixes in self.per_path_ignores.items()
        )


def takes_out(prefix: str, code: str) -> bool:
    """Whether a prefix, in a comment or a path's ignores, takes out findings of a rule.

    That a model cannot be linted goes by a prefix of its own family alone: `MOFA`, or a bare comment, would make it
    pass for clean.
    """
    return code.startswith(prefix) and (prefix.startswith(UNLINTABLE) or not code.startswith(UNLINTABLE))


def check_prefix(prefix: str, known: Collection[str] | None) -> str:
    """A prefix of rules' codes, as it is.

    Args:
        prefix: such as `MOFA`, `MOFA2` or `MOFA201`.
        known: codes of all rules; None: whatever is well-formed will do.

    Raises:
        ValueError: it is none, or no rule's code begins so.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is not the beginning of a rule's code such as MOFA2 or MOFA201")
    if known is not None and not any(code.startswith(prefix) for code in known):
        raise ValueError(f"no rule's code begins with {prefix!r}{nearest(prefix, known)}")
    return prefix


def check_select(prefixes: tuple[str, ...], known: Collection[str] | None) -> tuple[str, ...]:
    """Prefixes of the rules that run instead of the usual ones, as they are.

    Args:
        prefixes: well-formed ones.
        known: as for `check_prefix`.

    Raises:
        ValueError: they select nothing that looks at a network, so that every one would pass for clean. That one cannot
            be linted is always said, and what else is in that family is selected by its whole code.
    """
    if known is not None and prefixes and all(one.startswith(UNLINTABLE) and one not in known for one in prefixes):
        codes = [code for code in known if code.startswith(prefixes)]
        raise ValueError(
            f"{prefixes[0]!r} selects no rule that looks at a network: its rules say that one could not be linted, and "
            f"run anyway{nearest(prefixes[0], codes)}"
        )
    return prefixes


def parse_prefixes(values: Iterable[str], known: Collection[str], option: str) -> tuple[str, ...]:
    """Prefixes as the command line gives them, also several joined by commas.

    Raises:
        LintError: one is none, or no rule's code begins so; the message names the option.
    """
    try:
        found = tuple(check_prefix(one.strip(), known) for value in values for one in value.split(","))
        return check_select(found, known) if option == "--select" else found
    except ValueError as error:
        raise LintError(f"{option}: {error}", code="bad-value") from error


def _longest(prefixes: Iterable[str], code: str, least: int = 0) -> int:
    """How long the longest of the prefixes is, of `least` or more, with which a code begins; 0 where there is none."""
    return max((len(prefix) for prefix in prefixes if len(prefix) >= least and code.startswith(prefix)), default=0)
