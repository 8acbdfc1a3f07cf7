"""What a network is made of: resolution levels, stages in order, roles and long skip connections."""

from .description import Anatomy, Level, SkipConnection, Stage, Transition, Unit, UShape
from .inference import infer

__all__ = ["Anatomy", "Level", "SkipConnection", "Stage", "Transition", "UShape", "Unit", "infer"]
