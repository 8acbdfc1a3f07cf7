"""Replay: what a recipe says, done again to a model of the same architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..analysis.fingerprint import architecture_hash
from ..base.errors import BundleError, CaptureError, RoadmapError, one_line
from ..bundle import original
from ..bundle.recipe import FILE, check, decisions, read_recipe
from ..compiler import Result, apply_captured
from ..frontend import capture
from ..frontend.causes import check_model
from ..frontend.state import copied
from ..graph.call_spec import CallSpec
from ..graph.program import Program
from ..loading.importing import class_text
from ..loading.wrappers import unwrapped
from ..numerics.finite import check_weights
from ..rewriting.roadmap import Roadmap


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
    check(document, name)
    try:
        call = CallSpec.from_data(document["inputs"]).example()
        roadmap = Roadmap.from_dict(document["roadmap"], origin=f"the roadmap in {name}")
    except RoadmapError as error:
        raise BundleError(f"{name} cannot be replayed: {error}") from error
    except (RuntimeError, ValueError) as error:  # of a dtype that torch has no values of, say
        raise BundleError(f"{name} is damaged: inputs: {one_line(error)}", code="damaged") from error
    if roadmap.target is not None:
        raise BundleError(f"{name} is damaged: roadmap.target: what a recipe says was decided already", code="damaged")
    model = unwrapped(model)
    check_model(model)
    check_weights(model)
    program = check_architecture(document["architecture"], copied(model), call, compare=True)
    if not other_weights and (difference := original.difference(document, model)):
        raise BundleError(difference, code="other-original")
    result = apply_captured(model, program, roadmap)
    recorded, now = (_comparable(some) for some in (document["decisions"], decisions(result.record)))
    if recorded != now:
        differing = sorted(recorded.symmetric_difference(now))
        raise BundleError(
            f"the recipe, written by mofa-compiler {document['mofa']}, was decided otherwise this time; first "
            f"difference: {' '.join(differing[0])}",
            code="decided-otherwise",
        )
    orders = {int(index): tuple(order) for index, order in document.get("channel_orders", {}).items()}
    return Result(result.record.with_channel_orders(orders))


def check_architecture(
    recorded: Mapping[str, str], model: nn.Module, call: CallSpec, *, compare: bool = False
) -> Program:
    """Capture a model at an example `call`, and refuse it where it is not of a recipe's `architecture`.

    Raises:
        BundleError: it is another one.
    """
    name = class_text(type(unwrapped(model)))
    advice = "use the class, with the arguments, that the bundle was made from"
    try:
        program = capture(model, call, compare=compare)
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
    return program


def _comparable(found: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """What may not differ. Other weights may: they decide whether a rewrite is exact and which neighbours adapt.

    Several edits of one path are compared as one: that is what earlier versions made of them.
    """
    joined: dict[tuple[str, str, str], tuple[str, str]] = {}
    for d in found:
        if d["fate"] != "compensated":
            key = d["pass"], d["path"], "skipped" if d["fate"] == "skipped" else "rewritten"
            joined[key] = joined.get(key, (d["before"],))[0], d["after"]
    return {(*key, *forms) for key, forms in joined.items()}
