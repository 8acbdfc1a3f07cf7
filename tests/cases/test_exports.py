"""Cases of what is saved, and of what is exported."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

import mofa_compiler
from mofa_compiler.inputs import CallSpec
from mofa_compiler.verification.running import run


@pytest.mark.case("front-end/shared_parameter.py")
def test_a_parameter_of_a_module_and_its_child_is_saved_under_both_names(case: ModuleType, tmp_path: Path) -> None:
    network, x = case.Net().eval(), torch.rand(1, 3, 32, 32)
    result = mofa_compiler.apply(network, "mofa", x)
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    assert {"filters", "wave.filters"} <= loaded.state_dict().keys()
    assert loaded.get_parameter("filters") is loaded.get_parameter("wave.filters")
    assert torch.equal(run(loaded, CallSpec((x,))), run(result.model, CallSpec((x,))))


@pytest.mark.case("reliability/03_channels_last_weights_cannot_be_saved.py")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_network_in_channels_last_is_saved(case: ModuleType, layout: torch.memory_format, tmp_path: Path) -> None:
    call = CallSpec((torch.rand(1, 3, 32, 32),))
    result = mofa_compiler.apply(case.Net().eval().to(memory_format=layout), "mofa", call.args)
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    torch.testing.assert_close(run(loaded, call), run(result.model, call))
