"""Networks that the front end once refused, bound to one size, or took its time for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply, capture, load
from mofa_compiler.codegen.source import emit
from mofa_compiler.frontend import GUARDS
from mofa_compiler.graph.macs import node_macs
from mofa_compiler.rewriting.roadmap import Roadmap
from passes.shrink_kernels import ShrinkKernels
from tests.emitted import run

Case = Callable[..., nn.Module]


def check(net: nn.Module, example: Tensor, others: list[Tensor], folder: Path) -> None:
    """Captured without guards, equal to eager at these inputs, and so is a bundle of it."""
    net.eval()
    program = capture(net, example)
    assert not program.opaque
    assert not [node for node in program.graph.nodes if node.target in GUARDS]
    result = apply(net, Roadmap([ShrinkKernels()]), example)
    loaded = load(result.save(folder / "bundle"))
    for x in (example, *others):
        with torch.no_grad():
            assert torch.equal(program.graph_module(x), net(x))
            assert torch.equal(loaded(x), result.model(x))


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    return [torch.rand(1, 3, *size) for size in sizes]


@pytest.mark.case("front-end/ceil_padding.py")
@pytest.mark.parametrize("ceil", [np.ceil, math.ceil])
def test_padding_by_numpy_is_of_every_size(case: ModuleType, ceil: Case, tmp_path: Path) -> None:
    check(case.Net(ceil), torch.rand(1, 3, 64, 64), images((96, 128), (61, 50)), tmp_path)


@pytest.mark.case("front-end/irfft2_size.py")
def test_sizes_that_are_only_handed_on_are_no_decisions(case: ModuleType, tmp_path: Path) -> None:
    check(case.Net(), torch.rand(1, 3, 64, 64), images((96, 128)), tmp_path)


@pytest.mark.case("front-end/shape_np_prod.py")
def test_the_number_of_elements_by_numpy_follows_the_size(case: ModuleType, tmp_path: Path) -> None:
    check(case.Net(), torch.rand(1, 3, 32, 32), images((48, 64)), tmp_path)


@pytest.mark.case("front-end/istft.py")
def test_the_shape_of_samples_follows_from_arguments(case: ModuleType) -> None:
    net = case.Net().eval()
    program = capture(net, torch.rand(1, 2, 1024))
    assert not program.opaque
    assert {"a", "d", "z"} <= program.modules.keys()
    built = run(emit(program, program.graph_module))
    built.load_state_dict(net.state_dict())
    for samples in (1024, 2048):
        x = torch.rand(1, 2, samples)
        assert torch.equal(program.graph_module(x), net(x))
        assert torch.equal(built(x), net(x))


@pytest.mark.case("front-end/mask_assignment.py")
def test_values_under_a_mask_are_ordinary_ones(case: ModuleType, tmp_path: Path) -> None:
    check(case.Net(), torch.rand(1, 3, 32, 32), images((48, 64)), tmp_path)


@pytest.mark.case("front-end/torch_Tensor_constructor.py")
@pytest.mark.parametrize("kind", ["New", "Old"])
def test_a_tensor_of_sizes_is_an_empty_one(case: ModuleType, kind: str, tmp_path: Path) -> None:
    check(getattr(case, kind)(), torch.rand(1, 3, 32, 32), images((48, 64)), tmp_path)
    assert torch.Tensor(2, 3).shape == (2, 3)


@pytest.mark.case("front-end/scripted_function.py")
def test_a_scripted_function_is_seen_through(case: ModuleType, tmp_path: Path) -> None:
    check(case.Net(), torch.rand(1, 3, 32, 32), images((48, 64)), tmp_path)


@pytest.mark.case("front-end/own_checkpoint.py")
def test_a_checkpoint_of_ones_own_is_seen_through(case: ModuleType, tmp_path: Path) -> None:
    net = case.Net()
    check(net, torch.rand(1, 3, 32, 32), images((48, 64)), tmp_path)
    assert "b.c" in capture(net, torch.rand(1, 3, 32, 32)).modules


@pytest.mark.case("front-end/conv_subclass.py")
def test_a_convolution_that_pads_itself_is_seen_into(case: ModuleType, tmp_path: Path) -> None:
    check(case.Net(), torch.rand(1, 3, 32, 32), images((48, 64)), tmp_path)


@pytest.mark.case("front-end/gru_slow.py")
def test_a_recurrent_layer_is_a_leaf_that_is_not_run(
    case: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, lengths = case.Net().eval(), []
    run = torch._VF.gru

    def noted(input: Tensor, *args: object) -> object:
        lengths.append(input.shape[1])
        return run(input, *args)

    monkeypatch.setattr(torch._VF, "gru", noted)
    program = capture(net, torch.rand(1, 3, 32, 4096), compare=False)  # which runs it, at a small size
    (gru,) = (node for node in program.graph.nodes if node.target == "gru")
    assert node_macs(gru, program) == 16 * 2048 * 2 * 3 * 8 * (8 + 8)
    assert set(lengths) == {1}
    monkeypatch.undo()
    check(net, torch.rand(1, 3, 8, 32), images((16, 64)), tmp_path)
