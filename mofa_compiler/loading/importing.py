"""Modules of targets: imported by name, or from files as their repository imports them."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from ..base.errors import TargetError, one_line

PRIVATE = "_mofa_target_"
"""What names of modules begin with that were loaded from files outside packages; a digest follows"""

FORM = "a target is package.module:Class or path/to/file.py:Class"

_LIBRARIES = (
    *(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib")),
    *(place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")),  # of another environment
)
_ROOTS: dict[Path, set[str]] = {}
"""Folders that were put on the import path for what a file's imports need, and the modules that there were before"""

_RELATIVE = re.compile(r"relative import (?:with no known parent package|beyond top-level package)")


def import_source(source: str) -> ModuleType:
    """The module that the first part of a target names.

    Raises:
        TargetError: it does not exist, or its code fails.
    """
    path = Path(source).expanduser()
    if path.suffix == ".py" or "/" in source or "\\" in source:
        if not path.is_file():
            raise TargetError(
                f"there is no file {source}" if not path.is_dir() else f"{source} is a folder: {FORM}", code="not-found"
            )
        return _import_file(path.resolve(), source)
    if not all(part.isidentifier() for part in source.split(".")):
        raise TargetError(f"{source!r} is neither a module's name nor a .py file: {FORM}", code="wrong-kind")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name and (source == error.name or source.startswith(f"{error.name}.")):
            hint = f"; for a file, write {source}.py" if Path(f"{source}.py").is_file() else ""
            raise TargetError(
                f"there is no module {error.name!r} on the import path (run from its folder, or install it){hint}",
                code="not-found",
            ) from error
        raise failed(f"importing {source}", error) from error
    except (Exception, SystemExit) as error:
        raise failed(f"importing {source}", error) from error


def _import_file(path: Path, source: str) -> ModuleType:
    """Import a file: under a private name, or as a member of the package whose folder it lies in.

    Where one of its imports needs it, the file is a member of folders without `__init__.py`, too, as Python's namespace
    packages are: `models.net` with `from .layers import x` or `from models.layers import x`.
    """
    _leave_other_roots(path)
    place: tuple[list[str], Path] | None = _package(path)
    if not _package(path)[0] and (levels := _levels_up(path)):
        place = next((one for one in _above(path) if len(one[0]) > levels), place)
    tried = []
    error: BaseException | None = None
    while place is not None:
        tried.append(place)
        if place != _package(path):
            _ROOTS.setdefault(place[1], set(sys.modules))
        try:
            return _import_at(*place, path)
        except (Exception, SystemExit) as raised:
            error = raised
        roots = _roots(path, error) if isinstance(error, ImportError) else ()
        place = next((one for one in roots if one not in tried), None)
    assert error is not None
    raise failed(f"importing {source}", error) from error


def _levels_up(path: Path) -> int:
    """How many folders up a file's relative imports reach, also those that it does without; 0 where it has none."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return 0  # to import it says what is wrong
    return max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)


def _above(path: Path) -> Iterator[tuple[list[str], Path]]:
    """The folders above a file, with the names that lead from there to it; the working folder first.

    No names where they cannot be a module's.
    """
    above = [folder for folder in path.parents if folder != folder.parent]
    working = Path.cwd().resolve()
    for folder in (*(folder for folder in above if folder == working), *above):
        names = list(path.relative_to(folder).with_suffix("").parts)
        yield (names if len(names) > 1 and not any("." in name for name in names) else []), folder


def _leave_other_roots(path: Path) -> None:
    """Forget what was imported from roots of other targets: of a repository there may be two versions.

    Another root is one that the file does not lie below, or where a nearer folder has what was imported from there.
    """
    for root, known in list(_ROOTS.items()):
        names = [
            name
            for name, module in sys.modules.items()
            if name not in known and any(Path(place).is_relative_to(root) for place in _places(module))
        ]
        tops = {top for name in names if _has(root, top := name.partition(".")[0])}
        nearer = [folder for folder in path.parents if folder != root and folder.is_relative_to(root)]
        if root in path.parents and not any(_has(folder, top) for folder in nearer for top in tops):
            continue
        del _ROOTS[root]
        if str(root) in sys.path:
            sys.path.remove(str(root))
        for name in names:
            del sys.modules[name]


def _has(folder: Path, name: str) -> bool:
    """Whether a folder has a module or a package of this name, with or without `__init__.py`."""
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def _package(path: Path) -> tuple[list[str], Path]:
    """The names that lead to a file in its package, and the folder that the package lies in; none outside one."""
    packages: list[str] = []
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        packages.insert(0, folder.name)
        folder = folder.parent
    return ([*packages, *([] if path.stem == "__init__" else [path.stem])] if packages else []), folder


def _roots(path: Path, error: ImportError) -> Iterator[tuple[list[str], Path]]:
    """From which folders a file's imports may have been meant, given the one that failed.

    A relative import needs any folder above, an absolute one the nearest that has what it names.
    """
    relative = _RELATIVE.search(str(error)) is not None
    top = (error.name or "").partition(".")[0]
    if not relative and (not top or top in sys.stdlib_module_names):
        return
    for names, folder in _above(path):
        if names if relative else _has(folder, top):
            yield names, folder


def _import_at(names: Sequence[str], root: Path, path: Path) -> ModuleType:
    if names:
        return _import_member(list(names), root)
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    _make_way(root)
    return _execute(f"{PRIVATE}{digest}", path, search=path.parent)


def _import_member(names: list[str], root: Path) -> ModuleType:
    """Import `names` joined by dots from `root`, packages first, so that relative imports work.

    Where another package of that name has been imported already (`examples`, `models`), the file's own is loaded under
    a private name, and only absolute imports of itself would miss it.
    """
    folder = root / names[0]
    own = folder / "__init__.py"
    if not own.is_file():
        names = [_namespace(names[0], folder), *names[1:]]
        _make_way(root)
        return importlib.import_module(".".join(names))
    loaded = sys.modules.get(names[0])
    if loaded is not None and (not loaded.__file__ or Path(loaded.__file__).resolve() != own):
        digest = hashlib.sha256(str(root).encode()).hexdigest()[:12]
        private = f"{PRIVATE}{digest}_{names[0]}"
        if private not in sys.modules:
            _execute(private, own, search=root)
        names = [private, *names[1:]]
    else:
        _make_way(root)
    return importlib.import_module(".".join(names))


def _namespace(name: str, folder: Path) -> str:
    """Have a folder without `__init__.py` as a package; returns the name that it got.

    That is its own, unless a library or a module of ours has it. What another target's folder of that name has loaded
    is forgotten.
    """
    known = sys.modules.get(name)
    if known is not None and _places(known) == [str(folder)]:
        return name
    if not name.isidentifier() or name == __package__.partition(".")[0] or _is_library(name):
        name = f"{PRIVATE}{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}_{name}"
        if name in sys.modules:
            return name
    for other in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[other]
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


def _places(module: ModuleType) -> list[str]:
    """The file and the folders that a module is made of; read without asking it, since some make up attributes."""
    inside = getattr(module, "__dict__", {})
    return [str(place) for place in (inside.get("__file__"), *(inside.get("__path__") or ())) if place]


def _is_library(name: str) -> bool:
    """Whether a module of this name is part of Python or of what is installed."""
    if name in sys.stdlib_module_names:
        return True
    known = sys.modules.get(name)
    if known is not None:
        return any(place.startswith(_LIBRARIES) for place in _places(known))
    spec = importlib.machinery.PathFinder.find_spec(name, [place for place in sys.path if place.startswith(_LIBRARIES)])
    return spec is not None and spec.origin is not None


def _execute(name: str, path: Path, search: Path) -> ModuleType:
    """Run a file as module `name`, with `search` on the import path for the modules that lie beside it."""
    if name in sys.modules:
        return sys.modules[name]
    locations = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=locations)
    assert spec and spec.loader
    _make_way(search)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _make_way(folder: Path) -> None:
    """Put a folder first on the import path, also where another target's modules have the names of some in it.

    Those are forgotten, so that `import blocks` finds this folder's `blocks.py`, where two versions are compared.
    """
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    for name, module in list(sys.modules.items()):
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        if not file or file.startswith(_LIBRARIES) or Path(file).is_relative_to(folder) or top == "mofa_compiler":
            continue
        if (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
            del sys.modules[name]
    importlib.invalidate_caches()


def failed(what: str, error: BaseException) -> TargetError:
    """An exception of the user's code in one line that says where it came from."""
    if isinstance(error, SyntaxError) and error.filename:
        return TargetError(
            f"{what} failed: {type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})", code="failed"
        )
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [f for f in frames if not f.filename.startswith((*_LIBRARIES, "<"))] or frames
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return TargetError(f"{what} failed: {one_line(error)}{where}", code="failed")


def class_text(kind: type) -> str:
    """A class with its module, `models.net.Net`; of a file that was loaded under a private name, `Net`."""
    return re.sub(rf"^{PRIVATE}[0-9a-f]{{12}}[_.]", "", f"{kind.__module__}.{kind.__qualname__}")
