"""Training by distillation: a rewritten network learns to do what the original does."""

from .options import Options, Point, Recovery, Status
from .recover import recover

__all__ = ["Options", "Point", "Recovery", "Status", "recover"]
