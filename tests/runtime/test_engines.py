"""Every engine on small networks: it computes what they compute, says what took the time, and keeps quiet."""

from __future__ import annotations

import importlib.metadata
import os
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from architectures.nafnet import LayerNorm2d
from mofa_compiler.base.errors import EngineError
from mofa_compiler.base.precision import Precision
from mofa_compiler.frontend import capture
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.runtime import Compiled, engine, engines, race
from tests.raising import raising

CPU = ["eager", "channels-last", "inductor", "onnxruntime", "xnnpack", "openvino", "mnn"]
PROFILED = ["eager", "channels-last", "onnxruntime", "xnnpack", "openvino"]


class Net(nn.Module):
    """A convolution with a BatchNorm to fold, a partial one, and a custom autograd function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.norm = LayerNorm2d(8)
        self.body = PConv2d(8, 2, 3)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.head(self.body(self.norm(self.stem(x))))


class Two(nn.Module):
    """Two inputs, which must not be mixed up, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x) - y, 2 * y


class First(nn.Module):
    """Two inputs, one of which says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x)


def runs_here(name: str) -> str:
    """The engine's name; skips the test where it is not installed, which must not happen in CI."""
    if missing := engines()[name].missing():
        if os.environ.get("CI"):
            pytest.fail(f"{name}: {missing}")
        pytest.skip(missing)
    return name


def example() -> Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@cache
def network() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    net.stem[1].running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr, operator]
    return net


@cache
def compiled(name: str) -> Compiled:
    return engine(runs_here(name)).compile(network(), [example()])


def agree(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CPU)
@pytest.mark.sample("eager", "onnxruntime")
def test_outputs_are_the_networks(name: str) -> None:
    before = {key: value.clone() for key, value in network().state_dict().items()}
    with torch.no_grad():
        agree(compiled(name).outputs(), [network()(example())])
        other = example().flip(3)
        agree(compiled(name).outputs([other]), [network()(other)])
        agree(compiled(name).outputs(), [network()(example())])  # the first inputs are still there
    assert all(torch.equal(value, before[key]) for key, value in network().state_dict().items())


LOSSES: dict[Precision, float] = {"fp16": 3e-3, "bf16": 3e-2, "int8": 0.1}
"""Relative errors that a precision may come to"""


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *(("eager", precision) for precision in ("fp16", "bf16")),
        *(("onnxruntime", precision) for precision in ("fp16", "int8")),
        *(("xnnpack", precision) for precision in ("fp16", "int8")),
        *(("openvino", precision) for precision in ("fp16", "bf16")),
        *(("mnn", precision) for precision in ("fp16", "bf16")),
    ],
)
@pytest.mark.sample("onnxruntime")
def test_a_precision_computes_about_the_same(name: str, precision: Precision, captured: bool) -> None:
    net = capture(network(), example()).graph_module if captured else network()
    (found,) = engine(runs_here(name), precision).compile(net, [example()]).outputs()
    with torch.no_grad():
        expected = network()(example())
    assert found.dtype == torch.float32
    error = float((found - expected).norm() / expected.norm())
    assert (0 if name in ("openvino", "mnn") else 1e-6) < error < LOSSES[precision]  # those two may compute in float32


@pytest.mark.parametrize("name", ["onnxruntime", "xnnpack"])
@pytest.mark.sample("onnxruntime")
def test_layers_stay_in_float(name: str) -> None:
    chosen = engine(runs_here(name), "int8")
    with torch.no_grad():
        expected = network()(example())
    errors = []
    for floating in ([], ["stem", "body"]):
        (found,) = chosen.calibrated([[example()]], floating).compile(network(), [example()]).outputs()
        errors.append(float((found - expected).norm() / expected.norm()))
    assert errors[0] > errors[1]


@pytest.mark.parametrize("name", ["onnxruntime", "xnnpack"])
@pytest.mark.sample("onnxruntime")
def test_ranges_are_those_of_the_examples(name: str) -> None:
    """What is beyond them is cut off."""
    chosen, inputs, layer = engine(runs_here(name), "int8"), example(), nn.Conv2d(3, 3, 1, groups=3, bias=False)
    nn.init.ones_(layer.weight)
    (found,) = chosen.calibrated([[inputs / 4]]).compile(layer, [inputs]).outputs()
    torch.testing.assert_close(found, inputs.clamp_max(0.25), rtol=0, atol=0.25 / 255)


def test_a_precision_that_an_engine_lacks() -> None:
    with raising(EngineError, "unknown-option", "int8"):
        engine("eager", "int8")


@pytest.mark.parametrize("name", CPU)
@pytest.mark.sample("eager", "onnxruntime")
def test_a_captured_graph_compiles_too(name: str) -> None:
    """Custom autograd functions are one call in it."""
    graph = capture(network(), example()).graph_module
    with torch.no_grad():
        agree(engine(runs_here(name)).compile(graph, [example()]).outputs(), [network()(example())])


@pytest.mark.parametrize("name", CPU)
@pytest.mark.sample("eager", "onnxruntime")
def test_several_inputs_and_outputs(name: str) -> None:
    net, inputs = Two().eval(), [torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)]
    with torch.no_grad():
        agree(engine(runs_here(name)).compile(net, inputs).outputs(), list(net(*inputs)))


@pytest.mark.parametrize("name", PROFILED)
@pytest.mark.sample("eager", "onnxruntime")
def test_profiles_name_layers(name: str) -> None:
    operators = compiled(name).profile()
    assert operators is not None
    assert all(one.ms is not None and one.ms >= 0 for one in operators)
    assert sum(one.ms or 0.0 for one in operators) > 0
    convolutions = [one.layer for one in operators if "conv" in one.kind.lower() or one.kind == "Fully Connected"]
    assert len(convolutions) == 3
    stem, body, head = convolutions
    assert (stem, head) == ("stem.0", "head") or (name == "xnnpack" and head == "head" and stem in ("stem.0", "stem.1"))
    assert body in ("body", "body.conv")
    if name != "openvino":  # which rewrites it into nodes of its own
        assert "norm" in {one.layer for one in operators}


def test_a_profile_sees_what_a_graph_itself_calls() -> None:
    operators = engine("eager").compile(capture(network(), example()).graph_module, [example()]).profile()
    assert operators is not None
    assert {"stem.0", "norm", "body", "body.conv", "head"} <= {one.layer for one in operators}


@pytest.mark.parametrize("name", CPU)
@pytest.mark.sample("eager", "onnxruntime")
def test_several_are_prepared_together_and_each_is_as_if_it_were_alone(name: str) -> None:
    """Also one that returns several, one that shares its weights, one that the engine does not take, an idle input."""
    shared = nn.Conv2d(3, 3, 1).eval()
    two = [torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)]
    takes_less = nn.Conv2d(4, 4, 1).eval()
    given = [(network(), [example()]), (Two().eval(), two), (shared, two[:1]), (takes_less, two[:1]), (shared, two[1:])]
    if name != "openvino":  # which drops an input that nothing reads, and does not take it then
        given.append((First().eval(), two))
    ready = engine(runs_here(name)).prepare(given)
    for index, ((module, inputs), load) in enumerate(zip(given, ready, strict=True)):
        if index == 3:
            with raising(EngineError, "wrong-input", "Conv2d"):
                load()
            continue
        with torch.no_grad():
            expected = module(*inputs)
            agree(load().outputs(), list(expected) if isinstance(expected, tuple) else [expected])


@pytest.mark.parametrize("name", ["inductor", "mnn"])
@pytest.mark.slow
def test_some_cannot_tell(name: str) -> None:
    assert compiled(name).profile() is None


@pytest.mark.parametrize("name", CPU)
@pytest.mark.sample("eager", "onnxruntime")
def test_compiling_is_silent(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    runner = engine(runs_here(name)).compile(nn.Conv2d(3, 4, 3), [example()])
    with engine(name).running(1):
        runner.run()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", CPU)
@pytest.mark.sample("eager", "onnxruntime")
def test_what_was_packed_loads(name: str) -> None:
    chosen = engine(runs_here(name))
    packed = compiled(name).packed or chosen.pack(network(), [example()])
    with torch.no_grad():
        agree(chosen.load(packed, [example()]).outputs(), [network()(example())])


@pytest.mark.parametrize("name", CPU)
@pytest.mark.sample("eager", "onnxruntime")
def test_what_does_not_fit_is_named(name: str) -> None:
    with raising(EngineError, "wrong-input", name, "Net"):
        engine(runs_here(name)).compile(network(), [torch.rand(1, 5, 32, 32)])


@pytest.mark.slow
def test_inductor_compiles_more_of_a_class_than_torch_allows() -> None:
    """Beyond its recompile limit, torch.compile runs the modules of a class eagerly."""
    for channels in (1, 2, 3):
        net = nn.Conv2d(3, channels, 1)
        limit = torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True)
        with torch.no_grad(), limit:
            agree(engine(runs_here("inductor")).compile(net, [example()]).outputs(), [net(example())])


def test_threads_are_as_before_afterwards() -> None:
    torch.set_num_threads(1)
    with engine("eager").running(2):
        assert torch.get_num_threads() == 2
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == 1


def test_all_are_known_by_name() -> None:
    assert list(engines()) == [*CPU, "cuda", "cuda-inductor"]
    assert all(one.name == name and one.summary for name, one in engines().items())
    assert engine("eager").version() == torch.__version__


def test_an_unknown_engine() -> None:
    with raising(EngineError, "unknown-name", "onnx-runtime", "'onnxruntime'"):
        engine("onnx-runtime")


@pytest.mark.parametrize("name", ["onnxruntime", "xnnpack", "openvino", "mnn"])
def test_one_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr("importlib.metadata.version", gone)
    with pytest.raises(
        EngineError, match=rf"{name} cannot run here: .* is not installed: pip install 'mofa-compiler\["
    ):
        engine(name)
    with raising(EngineError, "not-installed"):
        engines()[name].compile(network(), [example()])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda-inductor"])
def test_without_a_gpu(name: str) -> None:
    with raising(EngineError, "not-installed", name):
        engine(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda-inductor"])
def test_outputs_on_a_gpu(name: str) -> None:
    with torch.no_grad():
        (found,) = engine(name).compile(network(), [example()]).outputs()
        torch.testing.assert_close(found, network()(example()), rtol=1e-2, atol=1e-2)


def test_what_is_emulated_is_not_timed() -> None:
    chosen = engine(runs_here("onnxruntime"), "fp16")
    if chosen.emulated is None:
        pytest.skip("this processor computes in fp16")
    with raising(EngineError, "not-installed", "fp16"):
        race([chosen.compile(network(), [example()])], chosen, 1)
