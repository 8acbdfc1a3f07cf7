"""Questions about types: while a network is traced they have eager's answers, in every module, on that thread."""

from __future__ import annotations

import builtins
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.frontend import CaptureWarning
from tests.nets import questions as helpers

Question = Callable[[Any], bool]


class Asks(nn.Module):
    """Doubles what it returns where `question` says yes of what `about` takes from it."""

    def __init__(self, question: Question, about: Callable[[Asks, Tensor], Any]):
        super().__init__()
        self.stem, self.question, self.about = nn.Conv2d(3, 4, 3, padding=1), question, about

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        return y * 2 if self.question(self.about(self, y)) else y


def agrees(net: nn.Module) -> bool:
    """Whether the graph, made without comparing, computes what eager does; and eager said yes."""
    x = torch.rand(1, 3, 16, 16)
    graph = capture(net, x, compare=False).graph_module
    with torch.no_grad():
        assert torch.equal(net(x), 2 * net.stem(x))
        return torch.equal(graph(x), net(x))


@pytest.mark.parametrize("question", helpers.TENSOR, ids=lambda f: f.__name__)
def test_images_are_tensors(question: Question) -> None:
    assert agrees(Asks(question, lambda _, y: y).eval())


@pytest.mark.parametrize("question", helpers.SIZE, ids=lambda f: f.__name__)
def test_sizes_are_numbers(question: Question) -> None:
    assert agrees(Asks(question, lambda _, y: y.shape[-1]).eval())


def test_shapes_are_sizes() -> None:
    assert agrees(Asks(lambda s: type(s) is torch.Size and isinstance(s, tuple), lambda _, y: y.shape).eval())


def test_parameters_are_parameters() -> None:
    assert agrees(Asks(helpers.is_parameter, lambda net, _: net.stem.bias).eval())


def test_no_network_is_told_that_it_is_traced() -> None:
    assert agrees(Asks(lambda _: helpers.not_traced(), lambda _, y: y).eval())


def test_code_without_a_module_is_asked_for_its_own_names() -> None:
    namespace: dict[str, Any] = {"Tensor": Tensor}
    exec("def question(x): return type(x) is Tensor", namespace)
    assert agrees(Asks(namespace["question"], lambda _, y: y).eval())


def test_a_module_that_forward_imports_is_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    late = types.ModuleType("late_helper")
    exec("def question(x):\n import numbers\n return not isinstance(x, numbers.Number)", vars(late))

    def question(x: Any) -> bool:
        monkeypatch.setitem(__import__("sys").modules, "late_helper", late)
        import late_helper  # type: ignore[import-not-found]

        return bool(late_helper.question(x))

    assert agrees(Asks(question, lambda _, y: y).eval())


def test_other_threads_get_pythons_answers() -> None:
    found: list[bool] = []
    proxies: list[Any] = []

    def question(x: Any) -> bool:
        proxies.append(x)
        thread = threading.Thread(target=lambda: found.extend([isinstance(x, Tensor), isinstance(1, int)]))
        thread.start()
        thread.join()
        return isinstance(x, Tensor)

    x = torch.rand(1, 3, 16, 16)
    capture(Asks(question, lambda _, y: y).eval(), x, compare=False)
    assert found == [False, True]


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_are_recorded_as_at_the_call(enabled: bool) -> None:
    net = Asks(lambda _: helpers.gradients() is enabled, lambda _, y: y).eval()
    with torch.set_grad_enabled(enabled):
        with pytest.warns(CaptureWarning, match="gradients"):
            graph = capture(net, torch.rand(1, 3, 16, 16)).graph_module
        x = torch.rand(1, 3, 16, 16)
        assert torch.equal(graph(x), net(x))


def test_asking_for_gradients_without_consequence_is_no_matter() -> None:
    net = Asks(lambda _: helpers.gradients() or True, lambda _, y: y).eval()
    assert agrees(net)


def test_forward_that_turns_gradients_off_is_told_so() -> None:
    def question(_: Any) -> bool:
        with torch.no_grad():
            return not torch.is_grad_enabled()

    assert agrees(Asks(question, lambda _, y: y).eval())


def test_all_names_are_put_back() -> None:
    spaces = [vars(builtins), vars(torch), vars(torch.jit), vars(helpers), globals()]
    before = [dict(space) for space in spaces]
    capture(Asks(helpers.is_int, lambda _, y: y.shape[0]).eval(), torch.rand(1, 3, 16, 16))

    def fails(_: Any) -> bool:
        raise ValueError("no")

    with pytest.raises(Exception, match="no"):
        capture(Asks(fails, lambda _, y: y).eval(), torch.rand(1, 3, 16, 16))
    for space, was in zip(spaces, before, strict=True):
        assert space.keys() == was.keys()
        assert all(space[name] is value for name, value in was.items())
