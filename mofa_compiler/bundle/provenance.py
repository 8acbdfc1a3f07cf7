"""What a bundle's weights say of themselves: a checksum, and whether the rewrite made them or a training since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..base.errors import BundleError

if TYPE_CHECKING:
    from ..compiler import Result

CHECKSUM, MADE_BY = "sha256", "made-by"
REWRITE, CALIBRATION, TRAINING = "rewrite", "calibration", "training"


def marks(result: Result, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata for the file that `weights` go into: their checksum, and what made them as they are."""
    return {CHECKSUM: checksum(weights), MADE_BY: _made_by(result)}


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


def checksum(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, precisions, shapes and values."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        tensor = weights[key].detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _made_by(result: Result) -> str:
    now = result.model.state_dict()
    if any(not torch.equal(now[key].cpu(), tensor.cpu()) for key, tensor in result.rewritten.program.state().items()):
        return TRAINING
    return CALIBRATION if any(diff.pass_name == CALIBRATION for diff in result.diffs) else REWRITE
