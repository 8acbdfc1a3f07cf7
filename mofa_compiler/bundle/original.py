"""Which weights a bundle was made from, by a digest of the original's, and what made those that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..analysis.fingerprint import checksum
from ..base.errors import BundleError
from ..base.spelling import printable
from ..loading.importing import class_text
from ..loading.wrappers import unwrapped
from ..result.rewrite import Rewrite

_SHOWN = 12


def digest(model: nn.Module) -> str:
    """SHA-256 of names, precisions, shapes and values of what a model's state_dict holds.

    It depends on no device or layout in memory. Left out is how many batches a normalization has seen, which nothing
    that it computes in eval mode depends on. Wrappers, such as that of torch.compile, are looked through.
    """
    return checksum(_state(unwrapped(model)))


def recorded(document: Mapping[str, Any]) -> str:
    """The digest in a recipe, empty where it was written before there was one."""
    found = document.get("original")
    return str(found["sha256"]) if found else ""


def difference(document: Mapping[str, Any], model: nn.Module) -> str:
    """A sentence that names both, where `model` has other weights than those that a recipe was made from; else empty.

    It ends in what to do. It is empty, too, where the recipe does not say.
    """
    expected, found = recorded(document), digest(model)
    if expected in ("", found):
        return ""
    checkpoint = document["original"].get("checkpoint")
    said = f"sha256 {short(expected)}{f', read from {printable(checkpoint)}' if checkpoint else ''}"
    advice = "give the checkpoint that it was made from (--checkpoint)"
    if checkpoint == "":
        advice = (
            "that was given no checkpoint, and a class may start with others each time: rewrite it from a saved one"
        )
    return (
        f"the bundle was made from an original with other weights ({said}) than this {class_text(type(model))} has "
        f"(sha256 {short(found)}): {advice}"
    )


def short(sha256: str) -> str:
    """As much of a digest as a reader compares."""
    return sha256[:_SHOWN]


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers by all of their names, whatever a class makes of its state_dict."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        left_out = set(module._non_persistent_buffers_set)
        if isinstance(module, nn.modules.batchnorm._NormBase):
            left_out.add("num_batches_tracked")
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in left_out:
                found[f"{path}.{name}" if path else name] = tensor
    return found


CHECKSUM, MADE_BY = "sha256", "made-by"
REWRITE, CALIBRATION, TRAINING = "rewrite", "calibration", "training"


def marks(rewrite: Rewrite, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata for the file that `weights` go into: their checksum, and what made them as they are."""
    return {CHECKSUM: checksum(weights), MADE_BY: _made_by(rewrite)}


def read_marks(file: Path) -> dict[str, str]:
    """The metadata of a bundle's weights; empty where another program wrote them.

    Raises:
        BundleError: the file cannot be read.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file} is damaged: {error}", code="damaged") from error


def _made_by(rewrite: Rewrite) -> str:
    now = rewrite.model.state_dict()
    if any(not torch.equal(now[key].cpu(), tensor.cpu()) for key, tensor in rewrite.rewritten.program.state().items()):
        return TRAINING
    return CALIBRATION if any(step.pass_ is None for step in rewrite.steps) else REWRITE
