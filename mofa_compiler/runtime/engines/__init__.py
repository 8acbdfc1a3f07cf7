"""The engines that are known, by name."""

from __future__ import annotations

from functools import cache

from ...base.errors import EngineError, nearest
from ...base.precision import Precision
from ..engine import Engine


@cache
def _known() -> dict[str, Engine]:
    from .mnn import Mnn
    from .onnx_runtime import OnnxRuntime
    from .openvino import OpenVino
    from .pytorch import ChannelsLast, Cuda, CudaInductor, Eager, Inductor
    from .xnnpack import Xnnpack

    kinds: list[type[Engine]] = [Eager, ChannelsLast, Inductor, OnnxRuntime, Xnnpack, OpenVino, Mnn, Cuda, CudaInductor]
    return {kind.name: kind() for kind in kinds}


def engines() -> dict[str, Engine]:
    """All engines by name, also those that cannot run here: `Engine.missing` says why."""
    return dict(_known())


def engine(name: str, precision: Precision = "fp32") -> Engine:
    """The engine of this name, which can run here, computing in this precision.

    Raises:
        EngineError: there is none of this name, or not in this precision, or it is not installed; the message says
            what to do.
    """
    known = _known()
    if name not in known:
        raise EngineError(f"there is no engine {name!r}{nearest(name, known)}", code="unknown-name")
    if why := known[name].missing():
        raise EngineError(f"the engine {name} cannot run here: {why}", code="not-installed")
    return known[name].at(precision)


def usual_engine() -> str:
    """The name of the first engine here that networks are shipped with; PyTorch itself where none is installed."""
    known = _known()
    return next((name for name, one in known.items() if one.extra and not one.missing()), next(iter(known)))
