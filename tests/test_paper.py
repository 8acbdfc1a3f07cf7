"""The paper's numbers, exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from architectures import PMRID, NAFNet
from mofa_compiler import Roadmap, apply
from mofa_compiler.analysis.network import Network
from tests.benchmarks.paper_table import MARKERS, table
from tests.paper_rows import ROWS, Row, measured, roadmap
from tests.rewrites import network


@pytest.mark.parametrize("index", range(len(ROWS)), ids=[f"{row.model.__name__}: {row.name}" for row in ROWS])
@pytest.mark.sample(3)
def test_row(index: int):
    row = ROWS[index]
    reported, counted, macs = measured(index)
    assert reported == counted == row.parameters
    assert row.macs in (None, macs)


@pytest.mark.sample(2)
@pytest.mark.parametrize("row", [ROWS[0], ROWS[13], *ROWS[-2:]], ids=lambda row: row.name)
def test_macs_are_those_of_the_flop_counter(row: Row):
    result = apply(row.model(), roadmap(row), torch.rand(1, 3, 64, 96))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        result.model(torch.rand(1, 3, 64, 96))
    assert 2 * result.after.macs == counter.get_total_flops()


def test_presets_name_no_stage_and_differ_only_in_threshold_and_resampling():
    pmrid, nafnet = (Roadmap.load(f"paper-{name}").to_dict()["pass"] for name in ("pmrid", "nafnet"))
    assert not any("encoder" in str(table) or "decoder" in str(table) for table in pmrid + nafnet)
    different = [table for table in nafnet if table not in pmrid]
    assert [table["name"] for table in different] == ["decouple-downsampling", "pconv-to-pdwconv"]


def shares(found: Network) -> dict[str, float]:
    return {share.stage: round(share.vanilla / 1e9, 1) for share in found.totals.stages}


def test_vanilla_estimate_of_the_stages():
    """Figure 4: an encoder stage of PMRID costs 1.5 to 3.4 G, the bottleneck 0.08 G, a decoder stage 0.2 to 0.5 G."""
    found = network(PMRID(), 1, 3, 256, 256)
    cost = shares(found)
    assert [cost[f"encoder {k}"] for k in range(1, 5)] == [1.5, 1.8, 3.4, 3.4]
    assert [cost[f"decoder {k}"] for k in range(1, 5)] == [0.2, 0.2, 0.4, 0.5]
    assert cost["bottleneck"] == 0.1
    cheap = {stage.name for stage in found.anatomy.stages if found.is_cheap(stage)[0]}
    assert cheap == {"bottleneck", "decoder 1", "decoder 2", "decoder 3", "decoder 4"}


def test_nothing_in_nafnet_is_cheap():
    found = network(NAFNet(), 1, 3, 256, 256)
    assert not any(found.is_cheap(stage)[0] for stage in found.anatomy.stages)


@pytest.mark.slow
def test_the_table_is_generated():
    page = (Path(__file__).parents[1] / "examples" / "guides" / "benchmarks.md").read_text(encoding="utf-8")
    start, end = MARKERS
    written = page.split(start)[1].split(end)[0].strip()
    assert written == table().strip(), "run `make readme`"
