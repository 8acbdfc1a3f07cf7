"""A bundle as the file that its engine loads: ONNX, PT2, ExecuTorch, OpenVINO, TorchScript.

    from mofa_compiler.export import export
    export("net-mofa", "onnx", "net.onnx", dynamic=True)

`mofa_compiler.export` is this package; the function is `mofa_compiler.export.export`.
"""

from ..formats.comparing import Comparison
from ..formats.registry import formats
from .exporting import SCHEMA, Exported, export

__all__ = ["SCHEMA", "Comparison", "Exported", "export", "formats"]
