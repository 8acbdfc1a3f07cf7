"""What the front benchmark says of its figures, and that int8 networks see whole images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mofa_compiler.runtime import Compiled
from tests.benchmarks.front_table import OURS, PEER, ahead, change, fastest, markdown
from tests.benchmarks.quantized import Tiled, mosaics


def _row(name: str, kind: str, ms: float, *changes: float) -> dict[str, Any]:
    images = {str(index): value for index, value in enumerate(changes)}
    return {"name": name, "kind": kind, "ms": ms, "ratio": ms / 10, "interval": [0, 1], "changes": images} | {
        "to_exact": ms / 8,
        "macs": 1000,
    }


ROWS = [
    _row("original", "original", 10.0, 0.0),
    _row("exact", OURS, 8.0, 0.0, 0.0),
    _row("careful", OURS, 6.0, -0.3, 0.0),
    _row("bold", OURS, 4.0, -0.5, -0.3),
]


def test_change_is_the_mean_over_images() -> None:
    assert [change(row) for row in ROWS[1:3]] == [0.0, -0.15]
    assert change({"name": "limit"}) is None


@pytest.mark.parametrize(("lost", "name"), [(0.0, "exact"), (0.15, "careful"), (0.4, "bold")])
def test_fastest_of_ours_within_a_loss(lost: float, name: str) -> None:
    found = fastest([*ROWS, _row("rival", PEER, 1.0, 0.0)], lost)
    assert found is not None
    assert found["name"] == name


def test_nothing_of_ours_within_a_loss() -> None:
    assert fastest(ROWS[3:], 0.1) is None


@pytest.mark.parametrize(("ms", "above"), [(7.0, 0.85), (5.0, 0.6), (3.0, None)])
def test_a_rival_is_compared_with_ours_that_are_as_fast(ms: float, above: float | None) -> None:
    found = ahead(ROWS, _row("rival", PEER, ms, -1.0))
    assert found == (None if above is None else pytest.approx(above))


def test_the_table_has_every_row_and_says_what_failed() -> None:
    failed = {"name": "int8", "kind": PEER, "problem": "does not take it"}
    one = {"network": "N", "engine": "E", "rows": [*ROWS, failed], "control": [0.99, 1.01], "rounds": 10}
    one |= {"seconds": 20.0, "fitting": 10.0}
    broken = {"network": "N", "engine": "other", "problem": "not installed"}
    lines = markdown({"crops": 32, "tuning": 200, "races": [one, broken]}).splitlines()
    assert [line for line in lines if line.startswith("| int8 | does not take it")]
    assert "- the least time at −0.15 dB or better: 0.75 of the exact lowerings alone (careful)." in lines
    assert lines[-1] == "Not measured: not installed"
    assert sum(line.startswith("| ") for line in lines) == 1 + len(ROWS) + 1


class _Doubling(Compiled):
    def run(self) -> None: ...

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        assert inputs is not None
        assert inputs[0].shape[-2:] == (8, 8)
        return [2 * inputs[0]]


@pytest.mark.parametrize("sides", [(8, 8), (19, 5), (16, 17)])
def test_tiles_give_images_of_any_size(sides: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *sides)
    assert torch.equal(Tiled(_Doubling(), 8)(x), 2 * x)


def test_mosaics_are_of_whole_crops() -> None:
    batches = [torch.rand(4, 3, 2, 2), torch.rand(3, 3, 2, 2), torch.rand(2, 3, 2, 2)]
    found = mosaics(batches, 4)
    crops = torch.cat(batches)
    assert [one.shape for one in found] == 2 * [(1, 3, 4, 4)]
    assert torch.equal(found[1][0, :, 2:, :2], crops[6])
