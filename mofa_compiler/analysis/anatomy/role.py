"""What a unit is in a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """What a unit is: a kind ("encoder", "up transition", ...), its number where it has one, and in which U-Net."""

    kind: str
    number: int | None = None
    shape: int = 0

    @property
    def label(self) -> str:
        return self.kind if self.number is None else f"{self.kind} {self.number}"

    @property
    def is_transition(self) -> bool:
        return self.kind in ("down transition", "up transition")
