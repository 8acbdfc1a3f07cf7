"""Which of two networks is faster on an engine, and whether the measurement can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import EngineError
from ..base.precision import Precision
from ..base.significance import noise, verdict, widened
from ..graph.call_spec import InputSpec
from .engine import Engine
from .engines import engine as named
from .racing import Race, race


@dataclass(frozen=True)
class Measurement:
    """Two networks timed against each other on one engine.

    Attributes:
        a_ms: median time of one run of the first network, in ms.
        b_ms: of the second.
        ratio: a_ms ÷ b_ms.
        interval: the bootstrap's 95 % interval of the ratio.
        control: ratio of the second network to itself, in the same rounds: 1 but for noise.
        control_interval: 95 % interval of that.
        rounds: how many rounds there were; in each, every network runs in an order drawn anew.
        stopped: why there were no more: `narrow enough`, `time limit` or `most rounds`.
        engine: name of the engine.
        version: its version.
        threads: how many it could use.
        processor: model of what it ran on.
        shapes: the inputs' shapes.
        precision: that it computed in.
    """

    a_ms: float
    b_ms: float
    ratio: float
    interval: tuple[float, float]
    control: float
    control_interval: tuple[float, float]
    rounds: int
    stopped: str
    engine: str
    version: str
    threads: int
    processor: str
    shapes: tuple[tuple[int, ...], ...]
    precision: Precision = "fp32"

    @property
    def noise(self) -> float:
        """How far from 1 the control's interval reaches: a difference below that share shows nothing."""
        return noise(self.control_interval)

    @property
    def widened(self) -> tuple[float, float]:
        """The ratio's interval, wider on both sides by the noise: what the verdict goes by."""
        return widened(self.interval, self.control_interval)

    @property
    def verdict(self) -> str:
        """`faster` or `slower`, of the first network; `inside the noise` where the widened interval holds 1."""
        return verdict(self.interval, self.control_interval)

    @property
    def is_faster(self) -> bool:
        """Whether the first network is faster, beyond the noise."""
        return self.verdict == "faster"

    def to_data(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {**asdict(self), "widened": self.widened, "noise": self.noise, "verdict": self.verdict}

    @property
    def recorded(self) -> dict[str, Any]:
        """As the report of a bundle keeps it, of which the first network is."""
        return {
            "engine": self.engine,
            "version": self.version,
            "precision": self.precision,
            "processor": self.processor,
            "threads": self.threads,
            "input": self.shapes,
            "original_ms": self.b_ms,
            "rewritten_ms": self.a_ms,
            "ratio": self.ratio,
            "interval": self.interval,
            "verdict": self.verdict,
            "control": self.control_interval,
        }

    @classmethod
    def of(cls, result: Race, a: int, b: int, engine: Engine, threads: int, inputs: Sequence[Tensor]) -> Measurement:
        """What a race tells about runner `a` against runner `b`."""
        ratio, interval = result.ratio(a, b)
        control, control_interval = result.control
        return cls(
            a_ms=result.medians[a],
            b_ms=result.medians[b],
            ratio=ratio,
            interval=interval,
            control=control,
            control_interval=control_interval,
            rounds=len(result.times),
            stopped=result.stopped,
            engine=engine.name,
            version=engine.version(),
            threads=threads,
            processor=engine.processor(),
            shapes=tuple(tuple(x.shape) for x in inputs),
            precision=engine.precision,
        )


def measure(
    a: nn.Module,
    b: nn.Module,
    engine: str = "xnnpack",
    threads: int = 1,
    input_shape: Sequence[int] = (1, 3, 256, 256),
    *,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    precision: Precision = "fp32",
    tolerance: float = 0.01,
    seconds: float = 20.0,
) -> Measurement:
    """Time network `a` against network `b`: the ratio is a ÷ b, below 1 where `a` is faster.

    Both are compiled once, in eval mode, and neither is modified. Then they run in turns, with `b` once more as a
    control, until all ratios are known to `tolerance` or `seconds` are over.

    Args:
        a: usually the rewritten network.
        b: usually the original one.
        engine: name of an engine: `mofa engines` lists them.
        threads: how many the engine may use.
        input_shape: shape of their one input, such as (N, C, H, W).
        example_inputs: positional inputs in its place, where there are more or their values matter.
        precision: that the engine computes in; in int8 both are quantized by the inputs' values, which suits times.
        tolerance: enough where the half-width of every ratio's 95 % interval is below this share of it.
        seconds: limit of the timing; compiling comes on top of it.

    Raises:
        EngineError: the engine is unknown or not installed, lacks the precision, or does not take one of the networks.
    """
    if threads < 1:
        raise EngineError(f"threads is {threads}, but an engine needs at least 1", code="bad-value")
    chosen = named(engine, precision)
    inputs = tensors(a, [tuple(input_shape)]) if example_inputs is None else _as_tuple(example_inputs)
    runners = [chosen.compile(module, inputs, threads) for module in (b, a)]
    result = race(runners, chosen, threads, tolerance=tolerance, seconds=seconds)
    return Measurement.of(result, 1, 0, chosen, threads, inputs)


def tensors(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Example inputs of these shapes, in the precision of the network's weights."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return tuple(InputSpec(shape, dtype).example(seed=index) for index, shape in enumerate(shapes))


def _as_tuple(example_inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    wrong = next((x for x in given if not isinstance(x, Tensor)), None)
    if wrong is not None or not given:
        what = "none" if wrong is None else f"a {type(wrong).__name__}"
        raise EngineError(
            f"example_inputs must be tensors, one for each input, but there is {what}", code="wrong-input"
        )
    return tuple(x.detach().cpu() for x in given)
