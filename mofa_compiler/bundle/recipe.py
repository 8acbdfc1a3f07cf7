"""The recipe: what was done to which architecture, so that it can be done again and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..analysis.fingerprint import architecture_hash
from ..base.atomic_files import put_back
from ..base.errors import BundleError
from ..base.plain import plain_data, read_json, versions
from ..graph.program import Program
from ..loading.importing import class_text
from ..result.rewrite import Rewrite
from . import schema

SCHEMA = "mofa-recipe/1"
FILE = "recipe.json"


def recipe(rewrite: Rewrite) -> dict[str, Any]:
    """Plain data, schema `mofa-recipe/1`.

    Keys: `schema`, `mofa` and `torch` (versions), `roadmap`, `architecture` (`class`, `sha256`), `original` (`sha256`
    of its weights, see `bundle.original`, and the `checkpoint` that they were read from, as in a report), `inputs`
    (`args` and `kwargs`; a tensor is its `shape` and `dtype`), `decisions`: one object a layer that a pass rewrote,
    adjusted or left alone (`skipped`, with the reason). `measured`: null, or what the roadmap's target was decided on;
    the passes name the layers then, and are replayed without measuring. `channel_orders`: how calibration permuted the
    channels of what the preparations left of the original, by the number of a set of channels that may change places;
    empty without. `frozen`: the parameters of the saved network that need no gradient, which its source says. The
    fitted weights are in no recipe.
    """
    program = rewrite.original.program
    written_by = versions()
    document = {
        "schema": SCHEMA,
        "mofa": written_by["mofa-compiler"],
        "torch": written_by["torch"],
        "roadmap": rewrite.roadmap.to_dict(),
        "architecture": {"class": class_name(program), "sha256": architecture_hash(program)},
        "original": {"sha256": rewrite.provenance.original_digest, "checkpoint": rewrite.provenance.checkpoint},
        "inputs": program.call.to_data(),
        "decisions": decisions(rewrite),
        "measured": None if rewrite.provenance.decisions is None else rewrite.provenance.decisions.to_data(),
        "channel_orders": {str(index): order for index, order in rewrite.provenance.channel_orders.items()},
        "frozen": sorted(name for name, p in rewrite.model.named_parameters() if not p.requires_grad),
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
    check(document, str(file))
    return dict(document)


def check(document: Any, where: str) -> None:
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


def decisions(rewrite: Rewrite) -> list[dict[str, Any]]:
    """What a recipe says of each layer that a pass rewrote, adjusted or left alone."""
    found: list[dict[str, Any]] = []
    for diff in (step.diff for step in rewrite.steps if step.pass_ is not None):  # a calibration changes weights alone
        for edit in diff.edits:
            decision = {"pass": diff.pass_name, "path": edit.path, "before": edit.before, "after": edit.after}
            found.append({**decision, "fate": edit.fate, "exact": edit.exact})
        for skip in diff.skips:
            decision = {"pass": diff.pass_name, "path": skip.path, "before": skip.layer, "after": skip.layer}
            found.append({**decision, "fate": "skipped", "exact": True, "reason": skip.reason})
    return found


def class_name(program: Program) -> str:
    """The captured model's class, with its module."""
    kind = program.containers.get("") or type(program.modules[""])
    return class_text(kind)
