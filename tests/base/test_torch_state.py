"""Global generators and autograd's mode are as before, alone and among threads."""

from __future__ import annotations

import random
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import Result, apply, capture, load, recover, verify
from mofa_compiler.base.torch_state import in_normal_mode, kept_randomness, own_randomness, patched_names
from mofa_compiler.export import export


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.depth, self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.head(self.mix(self.depth(self.stem(x))))  # type: ignore[no-any-return]


X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def states() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tobytes(), numpy[2], torch.get_rng_state().numpy().tobytes()


def draw() -> None:
    random.random()
    np.random.rand()
    torch.rand(1)


@pytest.mark.parametrize("keep", [own_randomness, kept_randomness])
def test_every_generator_is_put_back(keep: Callable[[], Any]) -> None:
    before = states()

    def fail() -> None:
        with keep():
            draw()
            assert states() != before
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert states() == before


def test_a_seed_is_for_what_is_inside() -> None:
    with own_randomness(seed=3):
        first = torch.rand(2)
    with own_randomness(seed=3):
        draw()
    with own_randomness(seed=3):
        assert torch.equal(torch.rand(2), first)


def test_threads_wait_for_one_another() -> None:
    before, drawn = states(), []

    def work(seed: int) -> None:
        for _ in range(50):
            with own_randomness(seed=seed):
                drawn.append((seed, tuple(torch.rand(2).tolist())))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 4
    assert states() == before


@pytest.fixture
def result() -> Result:
    torch.manual_seed(0)
    return apply(Net().eval(), "mofa", X)


CALLS: dict[str, Callable[[Result, Path], object]] = {
    "capture": lambda result, folder: capture(result.model, X),
    "apply": lambda result, folder: apply(result.original.program.graph_module, "mofa", X).verdicts,
    "save": lambda result, folder: result.save(folder / "new"),
    "load": lambda result, folder: load(folder / "bundle"),
    "verify": lambda result, folder: verify(folder / "bundle", result.original.program.graph_module),
    "torchscript": lambda result, folder: export(folder / "bundle", "torchscript", folder / "a.pt"),
    "pt2": lambda result, folder: export(folder / "bundle", "pt2", folder / "a.pt2"),
    "recover": lambda result, folder: recover(
        result, result.original.program.graph_module, list(X.expand(12, -1, -1, -1)), steps=2, batch=2, cpu=True
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.sample(3)
def test_a_call_leaves_generators_and_filters_as_they_were(call: str, result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "bundle")
    before, filters = states(), list(warnings.filters)
    CALLS[call](result, tmp_path)
    assert states() == before
    assert list(warnings.filters) == filters


def test_applying_in_threads() -> None:
    nets = [Net().eval() for _ in range(4)]
    before = states()
    threads = [threading.Thread(target=lambda net=net: apply(net, "mofa", X).verdicts) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states() == before


def test_what_is_made_in_inference_mode_can_be_trained(tmp_path: Path) -> None:
    with torch.inference_mode():
        born = Net()
        results = [apply(Net(), "mofa", X.clone()), apply(born, "mofa", X)]
        loaded = load(results[0].save(tmp_path / "bundle"))
        assert all(verdict.holds for verdict in results[1].verdicts)
    results.append(apply(born, "mofa", X))
    for model in (*(result.model for result in results), loaded):
        model.train()(X).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    assert born.stem.weight.is_inference()


def test_gradients_stay_off_where_they_are() -> None:
    seen = in_normal_mode(lambda: (torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
    with torch.no_grad():
        assert seen() == (False, False)
    with torch.inference_mode():
        assert seen() == (True, False)


class Parent:
    inherited = 1


class Child(Parent):
    own = 2


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_everything_is_put_back(error: type[BaseException] | None) -> None:
    module, space = types.ModuleType("module"), {"a": 1}
    module.value = 3  # type: ignore[attr-defined]
    homes = (module, Child, space)
    before = [dict(home) if home is space else dict(vars(home)) for home in homes]
    patches = [
        *((Child, "inherited", 10), (Child, "own", 20), (module, "value", 30)),
        *((space, "a", 40), (space, "b", 50), (space, "a", 60)),
    ]
    try:
        with patched_names(patches):
            assert (Child.inherited, Child.own, module.value, space) == (10, 20, 30, {"a": 60, "b": 50})
            if error:
                raise error
    except KeyboardInterrupt:
        assert error
    assert [dict(home) if home is space else dict(vars(home)) for home in homes] == before


def test_what_was_patched_is_put_back_where_the_rest_cannot_be_made() -> None:
    def patches() -> Iterator[tuple[Any, str, Any]]:
        yield Child, "own", 20
        assert Child.own == 20
        raise LookupError

    with pytest.raises(LookupError), patched_names(patches()):
        pytest.fail("not entered")
    assert Child.own == 2
