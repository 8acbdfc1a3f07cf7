"""Fixtures for all tests: one thread, fixed seeds, and the data beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from architectures import PMRID

settings.register_profile("default", max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("nightly", max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def _measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFA_CACHE", str(tmp_path / "measurements"))


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data that lies beside the checkout here and in CI; not at a user's."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED} is missing: tests that need it must not be skipped in CI")
        pytest.skip(f"needs {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def pmrid(shared: Path) -> PMRID:
    """The raw denoiser that its authors published, in eval mode."""
    network = PMRID(channels=4)
    weights = torch.load(shared / "data/pmrid_raw_denoiser.ckp", map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval()
