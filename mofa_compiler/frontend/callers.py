"""Who asks: code of a network, or code that handles proxies as such."""

from __future__ import annotations

import dis
from types import FrameType

_MACHINERY = ("mofa_compiler", "torch")
"""Packages whose questions are about proxies as such"""

_OPEN = ("torch.distributions", "torch.functional", "torch.nn.functional", "torch.nn.utils")
"""Modules of theirs whose functions a network runs as its own"""

_READS = {dis.opmap[name] for name in ("LOAD_ATTR", "LOAD_METHOD", "MATCH_CLASS") if name in dis.opmap}


def is_machinery(frame: FrameType) -> bool:
    """Whether code in this frame handles proxies as such."""
    name = str(frame.f_globals.get("__name__"))
    return name.split(".")[0] in _MACHINERY and not name.startswith(_OPEN)


def reads_class(frame: FrameType) -> bool:
    """Whether a frame from which `__class__` is read says so itself: `x.__class__`, or a class pattern of `match`.

    Anything else is C code, such as torch's, which would take a proxy for the tensor that it says it is, and crash.
    """
    return frame.f_code.co_code[frame.f_lasti] in _READS and not is_machinery(frame)
