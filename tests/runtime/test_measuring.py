"""`measure` and `peak_memory` on real engines; times are not tested here."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import mofa_compiler
from mofa_compiler.base.errors import EngineError
from mofa_compiler.runtime import engine, measure, peak_memory
from tests.raising import raising

QUICK = {"seconds": 0.1, "threads": 1}


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Large(nn.Module):
    """Holds an intermediate value of `mib` MiB."""

    def __init__(self, mib: int):
        super().__init__()
        self.widen = nn.Conv2d(4, 16 * mib, 1)
        self.narrow = nn.Conv2d(16 * mib, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.widen(x))


@pytest.mark.slow
def test_a_measurement_says_what_was_measured_and_where() -> None:
    found = measure(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 8, 3), engine="eager", threads=1, input_shape=(1, 3, 16, 16))
    assert found.ratio == pytest.approx(found.a_ms / found.b_ms)
    assert found.interval[0] <= found.interval[1]
    assert (found.engine, found.version, found.threads) == ("eager", torch.__version__, 1)
    assert found.shapes == ((1, 3, 16, 16),)
    assert found.rounds >= 3


def test_it_is_a_public_name() -> None:
    assert mofa_compiler.runtime.measure is measure


def test_more_inputs() -> None:
    found = measure(Sum(), Sum(), engine="eager", example_inputs=[torch.rand(2, 3), torch.rand(2, 3)], **QUICK)
    assert found.shapes == ((2, 3), (2, 3))


@pytest.mark.parametrize("given", [[], [1.5], ["x"]])
def test_inputs_that_are_none(given: list[object]) -> None:
    with raising(EngineError, "wrong-input", "example_inputs"):
        measure(Sum(), Sum(), engine="eager", example_inputs=given)  # type: ignore[arg-type]


def test_wrong_settings() -> None:
    net = nn.Conv2d(3, 4, 3)
    with raising(EngineError, "bad-value", "threads"):
        measure(net, net, engine="eager", threads=0)
    with raising(EngineError, "unknown-name", "eagre"):
        measure(net, net, engine="eagre")
    with raising(EngineError, "wrong-input", "Conv2d"):
        measure(net, net, engine="eager", input_shape=(1, 5, 16, 16))


def test_importing_the_package_does_not_import_engines() -> None:
    code = (
        "import sys, mofa_compiler; assert 'torch' not in sys.modules; import mofa_compiler.runtime as r; r.engines();"
        "print(sorted({'onnx', 'onnxruntime', 'executorch', 'openvino', 'MNN', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_peak_memory_is_that_of_intermediate_values() -> None:
    x = torch.rand(1, 4, 128, 128)
    # Above 32 MiB the C library gives memory back at once; below, it may keep what was freed.
    sizes = (40, 104)
    small, large = (peak_memory(engine("eager").pack(Large(mib).eval(), [x]), [x], engine("eager")) for mib in sizes)
    assert small is not None and large is not None
    assert large - small == pytest.approx(64, abs=16)


@pytest.mark.slow
def test_a_process_that_fails() -> None:
    with pytest.raises(
        EngineError, match=r"measuring memory on eager failed \(exit code 1\): .*does not take the packed"
    ):
        peak_memory(b"nothing", [torch.rand(1)], engine("eager"))
