"""The errors that users meet: one type per stage, each message naming the thing at fault and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MofaError(Exception):
    """Base of every error that this package raises on purpose."""


class CaptureError(MofaError):
    """The model could not be traced into a graph."""


class AnatomyError(MofaError):
    """The graph has no image-like input, or a stage that was asked for does not exist."""


class RoadmapError(MofaError):
    """An unknown pass, option or preset, a malformed file, or an order that makes no sense."""


class RewriteError(MofaError):
    """A pass built something that does not fit where it should stand, or promised more than it kept."""


class TargetError(MofaError):
    """The architecture named on the command line cannot be imported or constructed."""


class CheckpointError(MofaError):
    """The checkpoint cannot be read, or does not fit the architecture."""


class BundleError(MofaError):
    """A bundle cannot be written, read or replayed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest of `known`, or the whole list where nothing comes close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(known)})"
