"""What a bundle's weights say of themselves: a checksum, and whether the rewrite made them or a training since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..analysis.fingerprint import checksum
from ..base.errors import BundleError
from ..result.rewrite import Rewrite

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
