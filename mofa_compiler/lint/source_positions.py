"""Where in the source each layer was made: the call of its constructor, recorded while the model is built.

Nothing is stored in the modules. While something is recorded, `nn.Module.__init__` is wrapped, which every module runs,
and `__setstate__`, which copies run instead. (`__new__` would see both, but a class from which a `__new__` has been
taken away again cannot be constructed with arguments any more.)
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import os
import sys
import sysconfig
import threading
import tokenize
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch import nn

from .finding import Position

_PATHS = sysconfig.get_paths()
_SITES = {"site-packages", "dist-packages"}
_CONTEXTLIB = contextlib.contextmanager.__code__.co_filename
_RECONSTRUCT: CodeType | None = getattr(getattr(copy, "_reconstruct", None), "__code__", None)


class _Source(NamedTuple):
    """A file that frames name: its absolute path, and whose code it holds."""

    path: str
    user: bool
    library: bool  # an installed one; where neither holds: torch, the standard library, this package, or no file


class _Site(NamedTuple):
    """A place in running code, cheap to note: instruction `offset` (bytes) of `code`, from the file at `path`."""

    code: CodeType
    offset: int
    path: str


class Recording:
    """What `recording` has recorded. Modules are held weakly, so that recording keeps none alive."""

    def __init__(self, outermost: FrameType | None = None):
        self._outermost = outermost
        self._sites: dict[int, tuple[weakref.ref[nn.Module], _Site]] = {}
        self._sources: dict[str, _Source] = {}
        self._resolved: dict[tuple[int, int], Position] = {}
        self._texts: dict[str, list[str]] = {}

    @property
    def files(self) -> set[str]:
        """Every file with a line that made a module, also one that is gone: absolute paths."""
        return {site.path for _, site in self._sites.values()}

    def position(self, module: nn.Module) -> Position | None:
        """Where a module was made; None where that was not recorded, or not by code that lies in a file."""
        site = self._site(module)
        if site is None:
            return None
        key = id(site.code), site.offset
        if key not in self._resolved:
            self._resolved[key] = self._resolve(site)
        return self._resolved[key]

    def positions(self, model: nn.Module, definition: Callable[..., Any] | None = None) -> dict[str, Position]:
        """Where the modules of a model were made, by dotted path, under all paths of those that have several.

        The empty path is where the model's class is defined: the header of its class statement, without the body.

        Args:
            model: made while this was recording.
            definition: the class or function that made it, whose definition is pointed at instead of the class's.
        """
        named = ((path, self.position(module)) for path, module in model.named_modules(remove_duplicate=False))
        found = {path: position for path, position in named if position is not None}
        for maker in (definition, type(model)):
            home = None if maker is None else _definition(maker)
            if home is not None:
                return {**found, "": home}
        return found

    def _made(self, module: nn.Module, frame: FrameType) -> None:
        """Note where a module is being made; `frame` is the innermost one outside this package's own."""
        if self._site(module) is None:
            self._note(module, self._search(module, frame))

    def _copied(self, module: nn.Module, frame: FrameType) -> None:
        """Note a copy: it was made where the original was, since there its arguments stand."""
        if self._site(module) is None:
            original = _original(module, frame)
            site = self._site(original) if isinstance(original, nn.Module) else None
            self._note(module, site or self._search(module, frame))

    def _site(self, module: nn.Module) -> _Site | None:
        reference, site = self._sites.get(id(module), (None, None))
        return site if reference is not None and reference() is module else None  # an id may have been reused

    def _note(self, module: nn.Module, site: _Site | None) -> None:
        if site is not None:
            self._sites[id(module)] = (weakref.ref(module), site)

    def _search(self, module: nn.Module, innermost: FrameType) -> _Site | None:
        """The nearest call in the user's own code, or else in a library, that is no part of making this very module."""
        library: _Site | None = None
        frame: FrameType | None = innermost
        while frame is not None:
            code = frame.f_code
            source = self._sources.get(code.co_filename) or self._source(code.co_filename)
            if source.user:
                if not _constructs(frame, module):
                    return _Site(code, frame.f_lasti, source.path)
            elif source.library and library is None and not _constructs(frame, module):
                library = _Site(code, frame.f_lasti, source.path)
            if frame is self._outermost:
                break
            frame = frame.f_back
        return library

    def _source(self, filename: str) -> _Source:
        """Whose a file is, found out once."""
        path = os.path.abspath(filename)
        known = not filename.startswith("<") and os.path.isfile(path) and not path.startswith(_machinery())
        installed = not _SITES.isdisjoint(Path(path).parts)  # often below the standard library
        user = known and not installed and not path.startswith(_STANDARD)
        self._sources[filename] = source = _Source(path, user, known and installed)
        return source

    def _resolve(self, site: _Site) -> Position:
        spans = islice(site.code.co_positions(), site.offset // 2, None)  # two bytes an instruction
        line, end_line, start, end = next(spans, (None, None, None, None))
        if line is None:
            return Position(site.path, site.code.co_firstlineno)
        return Position(
            site.path, line, end_line, self._column(site.path, line, start), self._column(site.path, end_line, end)
        )

    def _column(self, path: str, line: int | None, offset: int | None) -> int | None:
        """A column in characters, from 1, of the offset in UTF-8 bytes that Python keeps; None where it keeps none."""
        if line is None or offset is None:
            return None
        if path not in self._texts:
            self._texts[path] = _lines(path)
        lines = self._texts[path]
        if line > len(lines):
            return None  # changed since it was imported, or not readable
        return len(lines[line - 1].encode()[:offset].decode(errors="ignore")) + 1


_LOCK = threading.Lock()
_recordings: tuple[Recording, ...] = ()
_wrapped = contextlib.ExitStack()


@contextlib.contextmanager
def recording() -> Iterator[Recording]:
    """Record where every module is made that is constructed, or copied, inside the `with` statement.

    Of the calls that lead to a constructor, the nearest counts that is in the user's own code: not in torch, not in the
    standard library, not in an installed package, not in this one, and not in an `__init__` of the same object. Where
    there is none up to the `with` statement, the nearest in an installed package other than torch counts.

    Recordings may be nested, and may overlap in several threads: each has what was made while it ran, in any thread.
    """
    global _recordings
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename == _CONTEXTLIB:
        frame = frame.f_back
    mine = Recording(frame)
    del frame
    with _LOCK:
        if not _recordings:
            _wrapped.callback(_wrap())
        _recordings = (*_recordings, mine)
    try:
        yield mine
    finally:
        mine._outermost = None  # a frame keeps all its variables alive
        with _LOCK:
            _recordings = tuple(other for other in _recordings if other is not mine)
            if not _recordings:
                _wrapped.close()


def relative_to(position: Position, root: Path) -> str:
    """The file of a position, with `/`: relative to a folder where it lies below that, absolute where it does not."""
    path = Path(position.file)
    for file, folder in ((path, root.absolute()), (path.resolve(), root.resolve())):
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    return path.as_posix()


def _wrap() -> Callable[[], None]:
    """Wrap what modules pass through when they are made; returns what undoes that."""
    init: Callable[..., None] = nn.Module.__init__
    setstate: Callable[[nn.Module, Any], None] = nn.Module.__setstate__

    @functools.wraps(init)
    def recorded_init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        for each in _recordings:
            each._made(self, frame)
        init(self, *args, **kwargs)

    @functools.wraps(setstate)
    def recorded_setstate(self: nn.Module, state: Any) -> None:
        frame = sys._getframe(1)
        for each in _recordings:
            each._copied(self, frame)
        setstate(self, state)

    nn.Module.__init__ = recorded_init  # type: ignore[method-assign]
    nn.Module.__setstate__ = recorded_setstate  # type: ignore[method-assign]

    def unwrap() -> None:
        # What somebody else has put there since stays: it calls ours, which then records nothing.
        if nn.Module.__init__ is recorded_init:
            nn.Module.__init__ = init  # type: ignore[method-assign]
        if nn.Module.__setstate__ is recorded_setstate:
            nn.Module.__setstate__ = setstate  # type: ignore[method-assign]

    return unwrap


def _constructs(frame: FrameType, module: nn.Module) -> bool:
    """Whether a frame is part of making a module rather than what asked for it.

    Until a constructor returns, only its own functions have the object: `__init__`, what decorates it,
    `__post_init__`; they take it as an argument. A metaclass's `__call__` takes its class.
    """
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    if not count:
        return False
    variables = frame.f_locals
    for name in code.co_varnames[:count]:
        if variables.get(name) is module:
            return True
    if code.co_flags & inspect.CO_VARARGS and any(each is module for each in variables.get(name) or ()):
        return True
    if code.co_name not in ("__call__", "__new__"):
        return False
    return any(variables.get(code.co_varnames[0]) is base for base in type(module).__mro__)


def _original(module: nn.Module, frame: FrameType | None) -> object:
    """What `copy.copy` or `copy.deepcopy` is copying to `module`; None where they are not."""
    while frame is not None and frame.f_code is not _RECONSTRUCT:
        frame = frame.f_back
    variables = {} if frame is None else frame.f_locals
    return variables.get("x") if variables.get("y") is module else None


def _definition(maker: Callable[..., Any]) -> Position | None:
    """The header of a class or function statement, up to its colon; None where that is torch's own or in no file."""
    while isinstance(maker, functools.partial):
        maker = maker.func
    try:
        maker = inspect.unwrap(maker)
        if not isinstance(maker, type) and not inspect.isroutine(maker):
            maker = type(maker)
        path = os.path.abspath(inspect.getsourcefile(maker) or "")
        if not os.path.isfile(path) or path.startswith(_machinery()):
            return None
        lines, first = inspect.findsource(maker)
    except (OSError, TypeError, ValueError):  # built in; typed in; wrapped in itself
        return None
    depth, start = 0, None
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(iter(lines[first:]).__next__):
            if token.type == tokenize.OP:
                depth += (token.string in "([{") - (token.string in ")]}")
            if start is None and depth == 0 and token.string in ("class", "def"):  # behind the decorators
                start = token.start
            elif start is not None and depth == 0 and token.string == ":":
                return Position(path, first + start[0], first + token.start[0], start[1] + 1, token.start[1] + 1)
    return Position(path, first + 1)  # a lambda


def _lines(path: str) -> list[str]:
    """The lines of a source file; none where it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return file.read().split("\n")
    except (OSError, SyntaxError, UnicodeDecodeError):
        return []


def _folders(*paths: str) -> tuple[str, ...]:
    """Prefixes of everything in these folders, with and without links resolved."""
    return tuple({f"{spelling}{os.sep}" for path in paths for spelling in (path, os.path.realpath(path))})


_STANDARD = _folders(_PATHS["stdlib"], _PATHS["platstdlib"])
_TORCH_AND_OURS = _folders(*torch.__path__, str(Path(__file__).parents[1]))


def _machinery() -> tuple[str, ...]:
    passes = sys.modules.get("mofa_compiler.passes")  # may lie beside this package
    return _TORCH_AND_OURS if passes is None else _TORCH_AND_OURS + _folders(*passes.__path__)
