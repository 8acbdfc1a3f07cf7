"""A plugin for pytest: tests marked `mofa_clean` fail where the linter finds something in a module that they are given.

    @pytest.mark.mofa_clean(inputs=torch.rand(1, 3, 64, 64), select=["MOFA5"], budgets={"macs": "1G"})
    def test_net_is_lean(net):  # a fixture that returns an nn.Module
        ...

Every fixture of the test whose value is an `nn.Module` is linted before the test runs. The marker's arguments are those
of `mofa_compiler.lint.assert_clean`. Without such a test nothing is imported, and nothing else is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

MARKER = "mofa_clean"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(inputs=None, **settings): modules among the test's fixtures have no finding of mofa lint; settings "
        "are those of mofa_compiler.lint.assert_clean",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Remember where layers are made, for fixtures of marked tests."""
    if item.get_closest_marker(MARKER) is None:
        return (yield)
    from .positions import recording

    with recording() as made:
        result = yield
    item.stash[_MADE] = made
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Lint what a marked test is given."""
    __tracebackhide__ = True
    marker = item.get_closest_marker(MARKER)
    if marker is None:
        return
    from torch import nn

    from .calling import assert_clean

    modules = {k: v for k, v in getattr(item, "funcargs", {}).items() if isinstance(v, nn.Module)}
    if not modules:
        pytest.fail(f"{MARKER}: no fixture of {item.name} is an nn.Module", pytrace=False)
    settings = dict(marker.kwargs)
    inputs = settings.pop("inputs", None)
    made = item.stash.get(_MADE, None)
    for model in modules.values():
        positions = made.positions(model) if made is not None else None
        try:
            assert_clean(model, inputs, positions=positions, **settings)
        except AssertionError as error:
            pytest.fail(str(error), pytrace=False)


_MADE = pytest.StashKey[Any]()
"""What `pytest_runtest_setup` recorded"""
