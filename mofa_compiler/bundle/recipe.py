"""The recipe: what was done to which architecture, so that it can be done again and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from ..base.atomic_files import put_back
from ..base.documents import read_json
from ..base.errors import BundleError, CaptureError, RoadmapError, one_line
from ..base.plain import plain_data, versions
from ..codegen.constructors import settings
from ..frontend import capture
from ..graph.call_spec import CallSpec
from ..graph.program import Program
from ..loading.importing import class_text
from ..loading.wrappers import unwrapped
from ..rewriting.roadmap import Roadmap
from . import original, schema

if TYPE_CHECKING:
    from ..compiler import Result

SCHEMA = "mofa-recipe/1"
FILE = "recipe.json"


def recipe(result: Result) -> dict[str, Any]:
    """Plain data, schema `mofa-recipe/1`.

    Keys: `schema`, `mofa` and `torch` (versions), `roadmap`, `architecture` (`class`, `sha256`), `original` (`sha256`
    of its weights, see `bundle.original`, and the `checkpoint` that they were read from, as in a report), `inputs`
    (`args` and `kwargs`; a tensor is its `shape` and `dtype`), `decisions`: one object a layer that a pass rewrote,
    adjusted or left alone (`skipped`, with the reason). `measured`: null, or what the roadmap's target was decided on;
    the passes name the layers then, and are replayed without measuring. `channel_orders`: how calibration permuted the
    original's channels, by the number of a set of channels that may change places; empty without. `frozen`: the
    parameters of the saved network that need no gradient, which its source says. The fitted weights are in no recipe.
    """
    program = result.original.program
    written_by = versions()
    document = {
        "schema": SCHEMA,
        "mofa": written_by["mofa-compiler"],
        "torch": written_by["torch"],
        "roadmap": result.roadmap.to_dict(),
        "architecture": {"class": class_name(program), "sha256": architecture_hash(program)},
        "original": {"sha256": result.original_digest, "checkpoint": result.checkpoint},
        "inputs": program.call.to_data(),
        "decisions": decisions(result),
        "measured": None if result.decisions is None else result.decisions.to_data(),
        "channel_orders": {str(index): order for index, order in result.channel_orders.items()},
        "frozen": sorted(name for name, p in result.model.named_parameters() if not p.requires_grad),
    }
    plain: dict[str, Any] = plain_data(document)
    return plain


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a bundle's folder, or in a file.

    Raises:
        BundleError: there is none, it is damaged, or of another schema.
    """
    put_back(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise BundleError(
            f"{path} is not a bundle: it has no {FILE}" if path.exists() else f"there is no {path}", code="not-found"
        )
    try:
        document = read_json(file)
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}", code="unreadable") from error
    except ValueError as error:
        raise BundleError(f"{file} is damaged: {error}", code="damaged") from error
    _check(document, str(file))
    return dict(document)


def _check(document: Any, where: str) -> None:
    """Refuse what is no recipe of this schema, or a damaged one."""
    written = document.get("schema") if isinstance(document, Mapping) else None
    if written != SCHEMA:
        if not isinstance(written, str) or not written.startswith("mofa-recipe/"):
            raise BundleError(f"{where} is not a recipe of mofa-compiler", code="wrong-kind")
        by, ours = str(document.get("mofa", "?")), versions()["mofa-compiler"]
        raise BundleError(
            f"{where} has the schema {written:.40}, written by mofa-compiler {by:.20}; this is {ours}, which "
            f"reads {SCHEMA}: use the version that wrote it",
            code="other-version",
        )
    if isinstance(document.get("inputs"), list):
        raise BundleError(
            f"{where} is of a version before the first release: rewrite the network again", code="other-version"
        )
    try:
        schema.check(document)
    except ValueError as error:
        raise BundleError(f"{where} is damaged: {error}", code="damaged") from error


def replay(source: str | Path | Mapping[str, Any], model: nn.Module, *, other_weights: bool = False) -> Result:
    """Do to `model` what a bundle's recipe says, and check that it came to the same decisions.

    Args:
        source: a bundle's folder, its `recipe.json`, or the recipe as plain data.
        model: an instance of the class that the bundle was made from, with the weights that it had then; it is not
            modified.
        other_weights: it may have others, of a longer training, say; nothing is compared then.

    Raises:
        BundleError: no recipe or a damaged one, a model of another architecture or with other weights, or decisions
            that differ from the recorded ones.
    """
    if isinstance(source, Mapping):
        document, name = dict(source), "this recipe"
    else:
        path = Path(source).expanduser()
        document, name = read_recipe(path), str(path / FILE if path.is_dir() else path)
    return replayed(document, model, name, other_weights=other_weights)


def replayed(document: Mapping[str, Any], model: nn.Module, name: str, *, other_weights: bool = False) -> Result:
    """`replay` of a recipe that was read already, which messages call by `name`."""
    from ..compiler import apply

    _check(document, name)
    try:
        call = CallSpec.from_data(document["inputs"]).example()
        roadmap = Roadmap.from_dict(document["roadmap"], origin=f"the roadmap in {name}")
    except RoadmapError as error:
        raise BundleError(f"{name} cannot be replayed: {error}") from error
    except (RuntimeError, ValueError) as error:  # of a dtype that torch has no values of, say
        raise BundleError(f"{name} is damaged: inputs: {one_line(error)}", code="damaged") from error
    if roadmap.target is not None:
        raise BundleError(f"{name} is damaged: roadmap.target: what a recipe says was decided already", code="damaged")
    check_architecture(document["architecture"], model, call)
    if not other_weights and (difference := original.difference(document, model)):
        raise BundleError(difference, code="other-original")
    result = apply(model, roadmap, call)
    recorded, now = (_comparable(some) for some in (document["decisions"], decisions(result)))
    if recorded != now:
        differing = sorted(recorded.symmetric_difference(now))
        raise BundleError(
            f"the recipe, written by mofa-compiler {document['mofa']}, was decided otherwise this time; first "
            f"difference: {' '.join(differing[0])}",
            code="decided-otherwise",
        )
    result.channel_orders = {int(index): tuple(o) for index, o in document.get("channel_orders", {}).items()}
    return result


def check_architecture(recorded: Mapping[str, str], model: nn.Module, call: CallSpec) -> None:
    """Refuse a model that is not of a recipe's `architecture`, at an example `call`.

    Raises:
        BundleError: it is another one.
    """
    name = class_text(type(unwrapped(model)))
    advice = "use the class, with the arguments, that the bundle was made from"
    try:
        program = capture(model, call)
    except CaptureError as error:
        raise BundleError(
            f"the recipe was made from {recorded['class']}, and {name} is another one ({error}): {advice}",
            code="other-original",
        ) from error
    found = architecture_hash(program)
    if found != recorded["sha256"]:
        raise BundleError(
            f"the recipe was made from {recorded['class']} (architecture {recorded['sha256'][:12]}), and this {name} "
            f"is another one ({found[:12]}): {advice}",
            code="other-original",
        )


def decisions(result: Result) -> list[dict[str, Any]]:
    """What a recipe says of each layer that a pass rewrote, adjusted or left alone."""
    found: list[dict[str, Any]] = []
    for diff in (d for d in result.diffs if d.pass_name != "calibration"):  # that changes weights, decided by inputs
        for edit in diff.edits:
            decision = {"pass": diff.pass_name, "path": edit.path, "before": edit.before, "after": edit.after}
            found.append({**decision, "fate": edit.fate, "exact": edit.exact})
        for skip in diff.skips:
            decision = {"pass": diff.pass_name, "path": skip.path, "before": skip.layer, "after": skip.layer}
            found.append({**decision, "fate": "skipped", "exact": True, "reason": skip.reason})
    return found


def _comparable(found: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """What may not differ. Other weights may: they decide whether a rewrite is exact and which neighbours adapt."""
    return {
        (d["pass"], d["path"], d["before"], d["after"], "skipped" if d["fate"] == "skipped" else "rewritten")
        for d in found
        if d["fate"] != "compensated"
    }


def class_name(program: Program) -> str:
    """The captured model's class, with its module."""
    kind = program.containers.get("") or type(program.modules[""])
    return class_text(kind)


def architecture_hash(program: Program) -> str:
    """SHA-256 of what a program computes and of the shapes of its weights.

    It does not depend on weights, devices, modes, names of values or the size of the input.
    """
    numbers = {node: index for index, node in enumerate(program.graph.nodes)}
    lines = [
        f"{node.op} {_target(node.target)} {_structure(node.args, numbers)} {_structure(node.kwargs, numbers)}"
        for node in program.graph.nodes
    ]
    lines += [f"{path}: {_layer(module)}" for path, module in sorted(program.modules.items())]
    lines += [f"{path}: {tuple(tensor.shape)}" for path, tensor in sorted(program.tensors.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _target(target: Any) -> str:
    if isinstance(target, str):
        return target
    target = getattr(target, "autograd_function", target)
    name = getattr(target, "__qualname__", None) or getattr(target, "__name__", None) or str(target)
    return f"{getattr(target, '__module__', None)}.{name}"


def _structure(value: Any, numbers: Mapping[fx.Node, int]) -> str:
    if isinstance(value, fx.Node):
        return f"%{numbers[value]}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_structure(item, numbers) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_structure(item, numbers)}' for key, item in value.items())}}}"
    if isinstance(value, slice):
        return f"slice{_structure((value.start, value.stop, value.step), numbers)}"
    return "device" if isinstance(value, torch.device) else repr(value)


def _layer(module: nn.Module) -> str:
    """Class, settings and shapes of a layer and what is inside it."""
    parts = []
    for name, inner in module.named_modules():
        parts.append(f"{name}={type(inner).__module__}.{type(inner).__qualname__}{sorted(settings(inner).items())}")
    shapes = sorted((key, tuple(tensor.shape)) for key, tensor in module.state_dict(keep_vars=True).items())
    return f"{' '.join(parts)} {shapes}"
