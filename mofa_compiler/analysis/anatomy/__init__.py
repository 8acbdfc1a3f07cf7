"""What a network is made of: resolution levels, stages in order, roles and long skip connections."""

from .inference import infer
from .types import Anatomy, Level, SkipConnection, Stage, Transition, Unit, UShape

__all__ = ["Anatomy", "Level", "SkipConnection", "Stage", "Transition", "UShape", "Unit", "infer"]
