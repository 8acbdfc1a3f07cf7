"""All formats by name."""

from __future__ import annotations

from ..base.errors import ExportError, nearest
from .base import Format
from .executorch import ExecuTorch
from .onnx import Onnx
from .openvino import OpenVino
from .pt2 import Pt2
from .torchscript import TorchScript


def formats() -> dict[str, Format]:
    """Every format that can be written, by its name."""
    known: list[Format] = [Onnx(), Pt2(), ExecuTorch(), OpenVino(), TorchScript()]
    return {one.name: one for one in known}


def find(name: str) -> Format:
    """A format that can be written here.

    Raises:
        ExportError: there is none of this name, or what it needs is not installed.
    """
    known = formats()
    if name not in known:
        raise ExportError(f"there is no format {name!r}{nearest(name, known)}", code="unknown-name")
    if reason := known[name].missing():
        raise ExportError(f"cannot export to {known[name].title}: {reason}", code="not-installed")
    return known[name]
