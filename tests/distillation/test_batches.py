"""Examples: an order that depends on seed and step alone, shares of processes, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from mofa_compiler.base.errors import RecoveryError
from mofa_compiler.distillation.batches import Stream, feed
from mofa_compiler.graph.call_spec import InputSpec
from tests.raising import raising

INPUTS = [InputSpec((1, 3, 16, 16))]
NUMBERS = [torch.full((1,), float(i)) for i in range(10)]


class Noisy:
    """Items that draw from torch's global generator and know their epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(self.epoch), float(index)]) + torch.rand(()) / 2


def taken(stream: Stream, count: int, first: int, rows: int, of: int, offset: int = 0) -> list[list[float]]:
    batches = itertools.islice(stream.batches(first, rows, of, offset), count)
    return [batch.args[0].flatten().tolist() for batch in batches]


def test_every_epoch_has_every_example_once_in_another_order() -> None:
    def numbers(seed: int) -> list[float]:
        return list(itertools.chain(*taken(Stream(NUMBERS, seed, shuffled=True), 5, 0, 4, 4)))

    first, second = numbers(0)[:10], numbers(0)[10:]
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert numbers(1) != numbers(0)


def test_a_run_that_goes_on_at_a_step_sees_what_it_would_have_seen() -> None:
    whole = taken(Stream(Noisy(), 3, shuffled=True), 9, 0, 3, 3)
    torch.rand(7)
    assert taken(Stream(Noisy(), 3, shuffled=True), 4, 5, 3, 3) == whole[5:]
    assert len({tuple(batch) for batch in whole}) == 9  # epochs and noise differ


def test_processes_share_a_batch() -> None:
    stream = Stream(NUMBERS, 0, shuffled=True)
    shares = [taken(stream, 5, 0, 2, 4, offset) for offset in (0, 2)]
    assert [one + other for one, other in zip(*shares, strict=True)] == taken(stream, 5, 0, 4, 4)


def test_examples_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    taken(Stream(Noisy(), 0, shuffled=True), 3, 0, 2, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tenth_is_set_aside() -> None:
    fed = feed([torch.full((3, 16, 16), float(i)) for i in range(20)], None, INPUTS)
    training, aside = (
        {float(stream[i]["args"][0].max()) for i in range(stream.length)} for stream in (fed.training, fed.validation)
    )
    assert len(training) == 18 and len(aside) == 2 and not training & aside
    assert fed.description == {"examples": 18, "validation": 2} and not fed.paired


IMAGE = torch.ones(3, 8, 8)
FORMS: dict[str, tuple[Any, list[InputSpec], int, list[str], int]] = {
    "tensor": (IMAGE, INPUTS, 1, [], 0),
    "array": (np.ones((3, 8, 8), np.float32), INPUTS, 1, [], 0),
    "pair": ((IMAGE, torch.ones(3, 16, 16)), INPUTS, 1, [], 1),
    "by name": ({"x": IMAGE}, INPUTS, 0, ["x"], 0),
    "several inputs": (((IMAGE, torch.ones(1)), IMAGE), [*INPUTS, InputSpec((1, 1))], 2, [], 1),
    "several targets": ((IMAGE, {"a": torch.ones(1), "b": torch.ones(2)}), INPUTS, 1, [], 2),
}


@pytest.mark.parametrize(("item", "inputs", "args", "kwargs", "targets"), FORMS.values(), ids=FORMS.keys())
def test_forms_of_examples(item: Any, inputs: Any, args: int, kwargs: list[str], targets: int) -> None:
    batch = feed([item, item], None, inputs).training.batch([0, 1, 2])
    assert (len(batch.args), list(batch.kwargs), len(batch.targets)) == (args, kwargs, targets)
    assert all(len(tensor) == 3 for tensor in (*batch.args, *batch.kwargs.values(), *batch.targets))


def test_datasets_of_torch() -> None:
    assert feed(TensorDataset(torch.rand(5, 3, 8, 8), torch.rand(5, 3, 8, 8)), None, INPUTS).paired
    assert not feed(TensorDataset(torch.rand(5, 3, 8, 8)), None, INPUTS).paired
    assert not feed(torch.rand(5, 3, 8, 8), None, INPUTS).paired


def test_folders(tmp_path: Path) -> None:
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.random.default_rng(index).random((3, 40, 40), np.float32))
    fed = feed(tmp_path, None, INPUTS, degradation="gaussian:25", patch=16, crops=6)
    batch = fed.training.batch(range(4))
    assert fed.paired and batch.args[0].shape == batch.targets[0].shape == (4, 3, 16, 16)
    assert (fed.training.length, fed.validation.length) == (2, 6)
    assert fed.description["degradation"] == "gaussian:25"
    assert feed(tmp_path, None, INPUTS, degradation="gaussian:25", patch=16, crops=6).fingerprint == fed.fingerprint
    assert feed(tmp_path, None, INPUTS, degradation="gaussian:30", patch=16, crops=6).fingerprint != fed.fingerprint


REFUSED: dict[str, tuple[Any, list[InputSpec], dict[str, Any], str]] = {
    "empty": ([], INPUTS, {}, "no-data"),
    "one": ([IMAGE], INPUTS, {}, "no-data"),
    "no length": (iter([IMAGE]), INPUTS, {}, "bad-image"),
    "channels": ([torch.rand(4, 8, 8)] * 2, INPUTS, {}, "wrong-input"),
    "batches": ([torch.rand(2, 3, 8, 8)] * 2, INPUTS, {}, "wrong-input"),
    "too many inputs": ([(IMAGE, IMAGE, IMAGE)] * 2, INPUTS, {}, "wrong-input"),
    "degradation": ([IMAGE] * 2, INPUTS, {"degradation": "gaussian:25"}, "needs-option"),
    "folder for two inputs": ("photos", INPUTS * 2, {}, "wrong-input"),
}


@pytest.mark.parametrize(("data", "inputs", "options", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(data: Any, inputs: Any, options: Any, code: str) -> None:
    with raising(RecoveryError, code):
        feed(data, None, inputs, **options)
