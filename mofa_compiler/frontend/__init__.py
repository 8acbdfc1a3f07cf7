"""The front end: from an `nn.Module` to a `Program`."""

from .capture import capture
from .modes import CaptureWarning
from .proxies import GUARDS, is_guards

__all__ = ["GUARDS", "CaptureWarning", "capture", "is_guards"]
