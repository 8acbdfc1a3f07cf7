"""The architecture that a command line names: imported, and constructed with the arguments given.

A target runs the code that it names, as `import` does. What that code prints goes to stderr.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from .errors import TargetError, nearest, one_line
from .wrappers import unwrapped

_LIBRARIES = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
_PRIVATE = "_mofa_target_"
"""What names of modules begin with that were loaded from files outside packages; a digest follows"""

_FORM = "a target is package.module:Class or path/to/file.py:Class"


def load_target(target: str, args: Mapping[str, Any] | None = None) -> nn.Module:
    """The module that a target names: a class or factory, called with `args`, or an instance; without its wrappers.

    Args:
        target: `package.module:Class` or `path/to/file.py:factory`; the name may have dots.
        args: keyword arguments for it.

    Raises:
        TargetError: the module, file or name does not exist, the arguments do not fit, the code fails, or what comes
            out is no `nn.Module`.
    """
    source, separator, name = target.rpartition(":")
    if not separator or not source or not name or name.endswith(".py"):
        raise TargetError(f"{target!r} names no class or function: {_FORM}")
    with contextlib.redirect_stdout(sys.stderr):
        module = _import(source)
        return unwrapped(_construct(_attribute(module, name, source), target, dict(args or {})))


def class_text(kind: type) -> str:
    """A class with its module, `models.net.Net`; of a file that was loaded under a private name, `Net`."""
    return re.sub(rf"^{_PRIVATE}[0-9a-f]{{12}}[_.]", "", f"{kind.__module__}.{kind.__qualname__}")


def parse_args(assignments: Iterable[str]) -> dict[str, Any]:
    """Keyword arguments from `name=value`: a Python literal (`16`, `[1, 1]`, `None`, `"text"`), or text as it is.

    Raises:
        TargetError: no `=`, a name that cannot be an argument's, or one given twice.
    """
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        name = name.strip()
        if not separator or not name.isidentifier():
            raise TargetError(f"argument {assignment!r} is not of the form name=value")
        if name in parsed:
            raise TargetError(f"argument {name!r} is given twice")
        try:
            parsed[name] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            parsed[name] = value
    return parsed


def _import(source: str) -> ModuleType:
    path = Path(source).expanduser()
    if path.suffix == ".py" or "/" in source or "\\" in source:
        if not path.is_file():
            raise TargetError(f"there is no file {source}" if not path.is_dir() else f"{source} is a folder: {_FORM}")
        return _import_file(path.resolve(), source)
    if not all(part.isidentifier() for part in source.split(".")):
        raise TargetError(f"{source!r} is neither a module's name nor a .py file: {_FORM}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name and (source == error.name or source.startswith(f"{error.name}.")):
            hint = f"; for a file, write {source}.py" if Path(f"{source}.py").is_file() else ""
            raise TargetError(
                f"there is no module {error.name!r} on the import path (run from its folder, or install it){hint}"
            ) from error
        raise _failed(f"importing {source}", error) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"importing {source}", error) from error


def _import_file(path: Path, source: str) -> ModuleType:
    """Import a file: under a private name, or as a member of the package whose folder it lies in."""
    packages: list[str] = []
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        packages.insert(0, folder.name)
        folder = folder.parent
    try:
        if packages:
            return _import_member([*packages, *([] if path.stem == "__init__" else [path.stem])], folder)
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
        return _execute(f"{_PRIVATE}{digest}", path, search=path.parent)
    except (Exception, SystemExit) as error:
        raise _failed(f"importing {source}", error) from error


def _import_member(names: list[str], root: Path) -> ModuleType:
    """Import `names` joined by dots from `root`, packages first, so that relative imports work.

    Where another package of that name has been imported already (`examples`, `models`), the file's own is loaded under
    a private name, and only absolute imports of itself would miss it.
    """
    loaded = sys.modules.get(names[0])
    own = root / names[0] / "__init__.py"
    if loaded is not None and (not loaded.__file__ or Path(loaded.__file__).resolve() != own):
        digest = hashlib.sha256(str(root).encode()).hexdigest()[:12]
        private = f"{_PRIVATE}{digest}_{names[0]}"
        if private not in sys.modules:
            _execute(private, own, search=root)
        names = [private, *names[1:]]
    else:
        _make_way(root)
    return importlib.import_module(".".join(names))


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


def _attribute(module: ModuleType, name: str, source: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            inside = getattr(found, "__dict__", {})
            known = [key for key, value in inside.items() if callable(value) and not key.startswith("_")]
            own = [key for key in known if getattr(inside[key], "__module__", None) == module.__name__]
            hint = nearest(part, own or known) if known else ", nor any class or function"
            raise TargetError(f"{source} has no {part!r}{hint}") from error
    return found


def _construct(found: Any, target: str, args: dict[str, Any]) -> nn.Module:
    if isinstance(found, nn.Module):
        if args:
            raise TargetError(f"{target} is a module already and takes no arguments ({', '.join(args)})")
        return found
    if not callable(found):
        raise TargetError(f"{target} is a {type(found).__name__}, not a class or function that makes an nn.Module")
    if isinstance(found, type) and not issubclass(found, nn.Module):
        raise TargetError(f"{target} is a class, but not one of nn.Module")
    _check_arguments(found, target, args)
    try:
        model = found(**args)
    except (Exception, SystemExit) as error:
        raise _failed(f"{target} with {_call(args)}", error) from error
    if not isinstance(model, nn.Module):
        raise TargetError(f"{target} returned a {type(model).__name__}, not an nn.Module")
    return model


def _check_arguments(found: Any, target: str, args: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    parameters = signature.parameters
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters.values()]
    call = f"{target.rpartition(':')[2]}{inspect.Signature(plain)}"
    takes = f"it is {call}; give arguments as --arg name=value (in a configuration: args)"
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = next((name for name in args if name not in parameters), None)
    if unknown is not None and not takes_any:
        hint = nearest(unknown, parameters) if parameters else ""
        raise TargetError(f"{target} takes no argument {unknown!r}{hint}; {takes}")
    try:
        signature.bind(**args)
    except TypeError as error:
        raise TargetError(f"{target}: {error}; {takes}") from error


def _call(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no arguments"


def _failed(what: str, error: BaseException) -> TargetError:
    """An exception of the user's code in one line that says where it came from."""
    if isinstance(error, SyntaxError) and error.filename:
        return TargetError(f"{what} failed: {type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [f for f in frames if not f.filename.startswith((*_LIBRARIES, "<"))] or frames
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return TargetError(f"{what} failed: {one_line(error)}{where}")
