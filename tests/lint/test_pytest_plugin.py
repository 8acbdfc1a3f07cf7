"""The pytest plugin, in a pytest run of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest
import torch
from torch import nn
from mofa_compiler.lint import assert_clean

@pytest.fixture
def loss():
    return nn.L1Loss()

@pytest.fixture(scope="module")
def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Conv2d(16, 3, 3, padding=1),
    )

X = torch.rand(1, 3, 32, 32)

@pytest.mark.mofa_clean(inputs=X)
def test_marked(net):
    raise RuntimeError("is not reached")

@pytest.mark.mofa_clean(inputs=X)
def test_marked_again(net, loss):
    raise RuntimeError("is not reached")

@pytest.mark.mofa_clean(inputs=X, slect=["MOFA2"])
def test_misspelt(net):
    pass

@pytest.mark.mofa_clean(inputs=X, ignore=["MOFA201"])
def test_ignored(net, loss):
    pass

@pytest.mark.mofa_clean(inputs=X, select=["MOFA5"], budgets={"parameters": 10})
def test_budget(net):
    pass

@pytest.mark.mofa_clean
def test_no_module():
    pass

def test_asserted(net):
    assert_clean(net, X, select=["MOFA202"])
    with pytest.raises(AssertionError, match="MOFA201"):
        assert_clean(net, X)
    assert net.training

def test_unmarked(net):
    pass
"""


@pytest.mark.slow
def test_marked_tests_fail_where_something_is_found(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q")
    result.assert_outcomes(passed=3, failed=5)
    line = next(n for n, text in enumerate(TESTS.strip().splitlines(), 1) if "groups=16" in text)
    result.stdout.fnmatch_lines(
        [
            f"*{path.name}:{line}:9: MOFA201 depthwise convolution of all 16 channels*[[]1]",
            f"*{path.name}:{line}:9: MOFA201 depthwise convolution of all 16 channels*[[]1]",
            "*mofa_clean: *unexpected keyword argument 'slect'*",
            "*MOFA501*over the budget of 10*",
            "*mofa_clean: no fixture of test_no_module is an nn.Module*",
        ]
    )
    result.stdout.no_fnmatch_line("*is not reached*")


def test_the_marker_is_known_and_nothing_is_imported_for_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\ndef test_nothing(): assert 'torch' not in sys.modules")
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q", "--strict-markers").assert_outcomes(passed=1)
    marks = pytester.runpytest_subprocess("--markers", "-p", "no:cacheprovider")
    marks.stdout.fnmatch_lines(["@pytest.mark.mofa_clean(*"])
