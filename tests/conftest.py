"""Fixtures for all tests: one thread, fixed seeds, the data beside the checkout; and which tests are quick.

`make test` runs what is not marked `slow`, with hypothesis' profile "quick"; `make test-slow` runs the rest.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from architectures import PMRID

settings.register_profile("default", max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("quick", max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("nightly", max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

torch.set_num_threads(1)  # for fixtures of a module, too

TOLD, FAILED = 4.0, 25.0
"""Seconds of a processor from which a test without the mark `slow` (due from 2 on) is told of, and fails CI.

Processor time, so that waiting for others counts for nothing. Still, what others do to the cache doubles it, and the
first test that imports a compiler or an exporter pays for it: far apart, so that no machine's mood fails a run.
Properties are limited by their number of examples.
"""

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


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all cases of a test but its sample as slow."""
    sampled = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sample"):
            sampled[item.nodeid.partition("[")[0]].append(item)
    for cases in sampled.values():
        for case in _left_out(cases, *cases[0].get_closest_marker("sample").args):
            case.add_marker(pytest.mark.slow)


def _left_out(cases: list[Any], *sample: Any) -> list[Any]:
    """The cases without one of these values, or all but so many: always the same, by a hash of the case's name."""
    if isinstance(sample[0], int):
        return sorted(cases, key=lambda case: zlib.crc32(case.name.encode()))[sample[0] :]
    return [case for case in cases if not {*sample} & {case.callspec.id, *map(str, case.callspec.params.values())}]


def _processor_seconds() -> float:
    """Of this process, and of those that it has started and waited for."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    start = _processor_seconds()
    try:
        yield
    finally:
        item.user_properties.append(("processor seconds", _processor_seconds() - start))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, a run in which a test plainly lacks the mark `slow` has failed."""
    if os.environ.get("CI") and _unmarked(session.config, FAILED) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for nodeid, seconds in _unmarked(config, TOLD).items():
        terminalreporter.write_line(f"{nodeid} took {seconds:.1f} s of a processor: mark it slow, or make it faster")


def _unmarked(config: pytest.Config, limit: float) -> dict[str, float]:
    """Seconds of each test without the mark that took more, where reports arrive: not in a worker."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    passed = reporter.stats.get("passed", []) if reporter else []
    quick = [report for report in passed if not {"slow", "hypothesis"} & report.keywords.keys()]
    seconds = {report.nodeid: dict(report.user_properties)["processor seconds"] for report in quick}
    return {nodeid: taken for nodeid, taken in seconds.items() if taken > limit}
