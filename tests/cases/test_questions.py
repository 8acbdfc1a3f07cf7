"""Questions about types: eager's answers (front-end/isinstance_…, type_is_tensor), and what cannot be rewritten."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from mofa_compiler import apply, capture
from mofa_compiler.base.errors import MofaError


def agrees(net: nn.Module, side: int = 32) -> None:
    """The graph computes what eager does, where it was made and at another size, and was compared by `capture`."""
    program = capture(net.eval(), torch.rand(1, 3, side, side))
    assert len(program.comparison.sizes) == 2 and not program.opaque
    with torch.no_grad():
        for other in (side, 2 * side):
            x = torch.rand(1, 3, other, other)
            assert torch.equal(program.graph_module(x), net(x))


@pytest.mark.case("front-end/isinstance_helper/net.py")
@pytest.mark.parametrize("kind", ["Checked", "Branching"])
def test_a_helper_in_another_module_sees_tensors(case: ModuleType, kind: str) -> None:
    agrees(getattr(case, kind)())


@pytest.mark.case("front-end/isinstance_int_helper.py")
def test_a_helper_in_another_module_sees_numbers(case: ModuleType) -> None:
    agrees(case.Net())


@pytest.mark.case("front-end/type_is_tensor.py")
def test_the_type_of_an_image_is_tensor(case: ModuleType) -> None:
    agrees(case.Net())


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of torchvision, which has no CPU build, as asks for types: its `normalize`."""
    functional = ModuleType("torchvision.transforms.functional")

    def normalize(image: object, mean: list[float], std: list[float]) -> torch.Tensor:
        if not isinstance(image, torch.Tensor):
            raise TypeError(f"img should be Tensor Image. Got {type(image)}")
        if not image.is_floating_point() or image.ndim < 3:
            raise ValueError("not an image of floats")
        centre = torch.as_tensor(mean, dtype=image.dtype, device=image.device)
        spread = torch.as_tensor(std, dtype=image.dtype, device=image.device)
        if (spread == 0).any():
            raise ValueError("a deviation of 0")
        return image.clone().sub_(centre.view(-1, 1, 1)).div_(spread.view(-1, 1, 1))

    functional.normalize = normalize  # type: ignore[attr-defined]
    for name in ("torchvision", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, functional.__name__, functional)


@pytest.mark.case("front-end/isinstance_torchvision.py")
@pytest.mark.usefixtures("torchvision")
def test_a_library_that_checks_its_image_is_seen_through(request: pytest.FixtureRequest) -> None:
    agrees(request.getfixturevalue("case").Net())


@pytest.mark.case("reliability/10_raw_exceptions_from_apply.py")
def test_a_compiled_model_is_refused_in_a_sentence(case: ModuleType) -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        model = case.scripted()
    with pytest.raises(MofaError, match=r"torch\.jit"):
        apply(model, "mofa", torch.rand(1, 3, 32, 32))
