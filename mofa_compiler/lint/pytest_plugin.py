"""A plugin for pytest: tests marked `mofa_clean` fail where the linter finds something in a module that they are given.

    @pytest.mark.mofa_clean(inputs=torch.rand(1, 3, 64, 64), select=["MOFA5"], budgets={"macs": "1G"})
    def test_net_is_lean(net):  # a fixture that returns an nn.Module
        ...

Every fixture of the test whose value is an `nn.Module` is linted before the test runs. The marker's arguments are those
of `mofa_compiler.lint.assert_clean`. Without such a test nothing is imported, and nothing else is done.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Generator
from typing import Any

import pytest

MARKER = "mofa_clean"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(inputs=None, **settings): modules among the test's fixtures have no finding of mofa lint; settings "
        "are those of mofa_compiler.lint.assert_clean",
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember whether a test of this run is marked, so that nothing is recorded in vain."""
    session.config.stash[_WANTED] = any(item.get_closest_marker(MARKER) for item in session.items)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Remember where the layers of modules are made that fixtures return."""
    if not request.config.stash.get(_WANTED, False):
        return (yield)
    from .source_positions import recording

    with recording() as made:
        value = yield
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        from ..loading.wrappers import unwrapped

        request.config.stash.setdefault(_MADE, weakref.WeakKeyDictionary())[value] = made.positions(unwrapped(value))
    return value


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Lint what a marked test is given; modules without a convolution, such as losses, are none of its business."""
    __tracebackhide__ = True
    marker = item.get_closest_marker(MARKER)
    if marker is None:
        return
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    from ..base.errors import MofaError
    from .api import assert_clean

    given = getattr(item, "funcargs", {}).values()
    nets = [one for one in given if isinstance(one, nn.Module) and any(isinstance(m, _ConvNd) for m in one.modules())]
    if not nets:
        pytest.fail(f"{MARKER}: no fixture of {item.name} is an nn.Module with a convolution", pytrace=False)
    settings = dict(marker.kwargs)
    inputs = settings.pop("inputs", None)
    problems = []
    for net in nets:
        positions = item.config.stash[_MADE].get(net) if _MADE in item.config.stash else None
        try:
            assert_clean(net, inputs, positions=positions, **settings)
        except AssertionError as error:
            problems.append(str(error))
        except (MofaError, TypeError) as error:
            problems.append(f"{MARKER}: {error}")
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


_WANTED = pytest.StashKey[bool]()
_MADE = pytest.StashKey[Any]()
"""Positions, by path, of the layers of modules that fixtures returned"""
