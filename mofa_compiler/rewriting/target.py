"""What a roadmap is to be decided for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from ..base.errors import RoadmapError, nearest
from ..base.precision import Precision, in_precision


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Target:
    """An engine, and the conditions under which a network will run on it.

    Attributes:
        engine: its name, as in `mofa engines`.
        threads: that it may use.
        input: shape of the first input such as `1x3x256x256`; that of the example input unless given.
        keep_if: `faster`: what is not faster than the original beyond the noise is not done; `always`: the roadmap is
            carried out whatever it costs, and only forms are chosen by measurement; `told`: it is carried out as it
            stands, and what came of it is measured.
        precision: in which it computes there; `mofa engines` lists what each can.
    """

    engine: str
    threads: int = Field(default=1, ge=1)
    input: str | None = None
    keep_if: Literal["faster", "always", "told"] = "faster"
    precision: Precision = "fp32"

    @classmethod
    def from_data(cls, data: Any, origin: str) -> Target:
        """From what a roadmap says: the engine's name alone, or a table.

        Raises:
            RoadmapError: an unknown key or a bad value.
        """
        if isinstance(data, str):
            data = {"engine": data}
        if not isinstance(data, Mapping):
            raise RoadmapError(f"{origin}: target = {data!r}: must be an engine's name or a table", code="bad-value")
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            key = min(unknown)
            raise RoadmapError(
                f"{origin}: target has no key {key!r}{nearest(key, cls.__dataclass_fields__)}", code="unknown-option"
            )
        try:
            found: Target = TypeAdapter(cls).validate_python(dict(data))
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"])) or "engine"
            raise RoadmapError(
                f"{origin}: target: {key} = {problem['input']!r}: {problem['msg']}", code="bad-value"
            ) from error
        found.shape  # noqa: B018 - refuses a malformed one
        return found

    @property
    def shape(self) -> tuple[int, ...] | None:
        """`input` as numbers.

        Raises:
            RoadmapError: it is no shape.
        """
        if self.input is None:
            return None
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", self.input):
            raise RoadmapError(f"target: input = {self.input!r}: must be a shape such as 1x3x256x256", code="bad-value")
        return tuple(map(int, self.input.split("x")))

    def to_data(self) -> dict[str, Any]:
        """Plain data with every key that is set."""
        data = {"engine": self.engine, "threads": self.threads, "input": self.input, "keep_if": self.keep_if}
        if self.precision != "fp32":
            data["precision"] = self.precision
        return {key: value for key, value in data.items() if value is not None}


@dataclass(frozen=True)
class Conditions:
    """Where something was measured."""

    engine: str
    version: str
    torch: str
    processor: str
    threads: int
    input: str
    precision: Precision = "fp32"

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        engine = f"{self.engine} {self.version}{in_precision(self.precision)}"
        return f"{engine}, {threads}, {self.input}, {self.processor}"
