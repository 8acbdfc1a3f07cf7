"""What a network is made of: resolution levels, stages in order, roles and long skip connections."""

from .description import Anatomy, Level, SkipConnection, Stage
from .inference import infer

__all__ = ["Anatomy", "Level", "SkipConnection", "Stage", "infer"]
