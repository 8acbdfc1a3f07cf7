"""Training by distillation: a rewritten network learns to do what the original does."""

from ..result.recovery import Point, Recovery
from .options import Options, Status
from .recover import recover

__all__ = ["Options", "Point", "Recovery", "Status", "recover"]
