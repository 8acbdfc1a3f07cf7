from __future__ import annotations

import pytest
import torch
from torch import nn

from mofa_compiler.passes import DecoupleDownsampling
from mofa_compiler.rewriting.engine import rewrite
from tests.rewrites import assert_rewrites, chain, network, output


@pytest.mark.parametrize(
    ("kernel_size", "padding", "new"), [(2, 0, 3), (3, 1, 3), (4, 1, 3), (5, 2, 5)], ids=["k2", "k3", "k4", "k5"]
)
def test_dense(kernel_size: int, padding: int, new: int):
    model = chain(nn.Conv2d(8, 16, kernel_size, 2, padding))
    before = network(model)
    after, _ = assert_rewrites(
        DecoupleDownsampling(),
        model,
        after={
            "1": None,
            "1.pool": "AvgPool2d(2)",
            "1.pconv": f"PConv2d(8, k{new}, portion=1/4)",
            "1.pointwise": "Conv2d(8→16, k1, bias)",
        },
    )
    for size in [(32, 32), (31, 18), (29, 23)]:  # odd sizes round as before
        x = torch.rand(1, 8, *size)
        assert output(after, x).shape == output(before, x).shape


def test_separable():
    assert_rewrites(
        DecoupleDownsampling(pointwise_bias="drop"),
        chain(nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False), nn.Conv2d(8, 16, 1)),
        after={
            "1": None,
            "1.pool": "AvgPool2d(2)",
            "1.pconv": "PConv2d(8, k5, portion=1/4)",
            "2": "Conv2d(8→16, k1)",
        },
    )


def test_stays_separable_on_request():
    assert_rewrites(
        DecoupleDownsampling(convolution="separable"),
        chain(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 16, 1)),
        after={"1": None, "1.pool": "AvgPool2d(2)", "1.depthwise": "Conv2d(8, k3, bias, depthwise)"},
    )


@pytest.mark.parametrize(
    ("conv", "code"),
    [
        (nn.Conv2d(8, 8, 1, 2), "pointwise"),
        (nn.Conv2d(8, 8, 3, 2), "factor"),
        (nn.Conv2d(8, 8, 16, 16), "too-far"),
        (nn.Conv2d(8, 8, 3, (2, 1), 1), "factor"),
        (nn.Conv2d(8, 8, 3, 2, 1, groups=4), "grouped"),
    ],
)
def test_refusals(conv: nn.Conv2d, code: str):
    _, diff = assert_rewrites(DecoupleDownsampling(), chain(conv), after={})
    assert diff.skips[0].code == code


@pytest.mark.parametrize("groups", [1, 8])
def test_reflected_border_fits_small_inputs(groups: int):
    """Behind the pooling a reflection of three pixels would need four."""
    conv = nn.Conv2d(8, 8, 7, 2, 3, groups=groups, padding_mode="reflect")
    before = network(chain(conv), 1, 8, 4, 4)
    after, _ = rewrite(before, DecoupleDownsampling())
    assert after.program.modules["1.pconv"].conv.padding_mode == "replicate"
    x = torch.rand(1, 8, 5, 4)
    assert output(after, x).shape == output(before, x).shape


def test_circular_border_that_does_not_fit_is_refused():
    conv = nn.Conv2d(8, 8, 7, 2, 3, padding_mode="circular")
    assert_rewrites(DecoupleDownsampling(), chain(conv), after={}, skips={"1": "padding"}, shape=(1, 8, 4, 4))


def test_fit_recovers_what_the_new_form_can_express():
    """A strided convolution that averages comes back as the pooling, exactly."""
    conv = nn.Conv2d(8, 8, 2, 2).double()
    with torch.no_grad():
        conv.weight.copy_(torch.randn(8, 8, 1, 1).expand(8, 8, 2, 2))
    before = network(chain(conv).double())
    after, _ = rewrite(before, DecoupleDownsampling())
    x = torch.randn(1, 8, 12, 14, dtype=torch.float64)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-6, atol=1e-6)
