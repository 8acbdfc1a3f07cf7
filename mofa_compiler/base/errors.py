"""The errors that users meet: one type per stage, each message naming the thing at fault and the next step."""

from __future__ import annotations

import difflib
import importlib.metadata
import linecache
import sys
import sysconfig
import traceback
import types
from collections.abc import Collection, Iterable
from pathlib import Path

_PATHS = sysconfig.get_paths()
_SITES = tuple(f"{_PATHS[kind]}/" for kind in ("purelib", "platlib"))
_OURS = f"{Path(__file__).resolve().parents[1]}/"


class MofaError(Exception):
    """Base of every error that this package raises on purpose.

    `code` is a word that programs compare and that stays, where the message may change: one of `ERROR_CODES`, or that
    of the type, such as `capture`, where an error of this type has no closer one.
    """

    code: str = "error"

    def __init__(self, *message: object, code: str = ""):
        super().__init__(*message)
        if code:
            self.code = code

    def __init_subclass__(cls) -> None:
        cls.code = cls.__name__.removesuffix("Error").lower()


class CaptureError(MofaError):
    """The model could not be traced into a graph."""


class AnatomyError(MofaError):
    """The graph has no image-like input, or a stage that was asked for does not exist."""


class RoadmapError(MofaError):
    """An unknown pass, option or preset, a malformed file, or an order that makes no sense."""


class RewriteError(MofaError):
    """A pass built something that does not fit where it should stand, or promised more than it kept."""


class CalibrationError(MofaError):
    """The calibration inputs are none, or the network does not take them."""


class TargetError(MofaError):
    """The architecture named on the command line cannot be imported or constructed."""


class InputError(MofaError):
    """A file of example inputs cannot be read, or holds something else."""


class CheckpointError(MofaError):
    """The checkpoint cannot be read, or does not fit the architecture."""


class DataError(MofaError):
    """Example images cannot be read, or do not fit the network."""


class BundleError(MofaError):
    """A bundle cannot be written, read or replayed."""


class VerificationError(MofaError):
    """A network does not compute what was promised, or there is nothing to compare it on."""


class RecoveryError(MofaError):
    """A rewritten network cannot be trained with these options or data, or an interrupted run cannot go on so."""


class EngineError(MofaError):
    """An engine is unknown or not installed, or does not take a network."""


class ExportError(MofaError):
    """A network cannot be written in a file format, or the file does not compute what the network does.

    `layer` is the path of the one at fault, empty where that is the network itself or not known.
    """

    def __init__(self, message: str, layer: str = "", *, code: str = ""):
        super().__init__(message, code=code)
        self.layer = layer


class LintError(MofaError):
    """The configuration or the baseline of `mofa lint` cannot be read, or says something that makes no sense."""


class ReportError(MofaError):
    """A report cannot be read, or does not hold what is asked of it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest of `known`, or the whole list where nothing comes close.

    What begins with the name goes before what is spelt like it: `sepconv` is short for `sepconv-to-pconv`.
    """
    known = sorted(known)
    longer = [one for one in known if len(name) > 1 and one.lower().startswith(name.lower())]
    close = difflib.get_close_matches(name, longer or known, n=1, cutoff=0.0 if longer else 0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(known)})"


def not_installed(packages: Iterable[str], extra: str | None) -> str | None:
    """Which of these distributions is not there, and the extra that installs it, in one line; None where all are."""
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return f"{package} is not installed: pip install 'mofa-compiler[{extra}]'"
    return None


def one_line(error: BaseException) -> str:
    """Type and message of any exception, in one line."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"


def source_line(error: BaseException, besides: Collection[str] = ()) -> str:
    """` (net.py:12: if x.mean() > 0:)`, where a network's code raised; empty where there is none.

    That is the last frame that is neither torch's, nor Python's own, nor of this package, nor of those named besides.
    """
    frame = _own_frame(error, besides)
    return f" ({frame.filename}:{frame.lineno}{f': {frame.line}' if frame.line else ''})" if frame else ""


def source_place(error: BaseException) -> tuple[str, int] | None:
    """File and line (from 1) of what `source_line` shows; of a syntax error, its own."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return error.filename, error.lineno
    frame = _own_frame(error)
    return (frame.filename, frame.lineno) if frame and frame.lineno else None


def calling_line(caller: str) -> str:
    """`net.py:12: if height % 8:`, the line of a network's code that is being run; empty where there is none.

    `caller` is the file that runs the network: what is around it is not the network's.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and _is_machinery(frame.f_code.co_filename, ("torch",)):
        frame = None if frame.f_code.co_filename == caller else frame.f_back
    if frame is None:
        return ""
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}{f': {text}' if text else ''}"


def _own_frame(error: BaseException, besides: Collection[str] = ()) -> traceback.FrameSummary | None:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not _is_machinery(frame.filename, ("torch", *besides)):
            return frame
    return None


def _is_machinery(filename: str, packages: Collection[str]) -> bool:
    loaded = [path for package in packages for path in getattr(sys.modules.get(package), "__path__", ())]
    if filename.startswith((_OURS, "<", *(f"{path}/" for path in loaded))):
        return True
    return filename.startswith(f"{_PATHS['stdlib']}/") and not filename.startswith(_SITES)
