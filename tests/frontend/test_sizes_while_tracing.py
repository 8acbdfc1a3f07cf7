"""Sizes while tracing: what is decided for one, what stays open, and that another is right or an error."""

import math

import pytest
import torch
import torch.nn.functional as F

from mofa_compiler import capture
from tests.frontend.small import Sizes


def crop(x):
    """Two branches on a size."""
    return x[..., 1:] if x.shape[-1] % 2 else x


def windows(x):
    """A loop over as many windows as there are."""
    return torch.cat([x[..., i * 4 : i * 4 + 4].softmax(-1) for i in range(x.shape[-1] // 4)], dim=-1)


def pieces(x):
    """As many pieces as the width gives."""
    return sum(piece.mean(-1) for piece in x.split(4, dim=-1))


def to_int(x):
    return F.adaptive_avg_pool2d(x, int(x.shape[-1] / 2))


def unpacked(x):
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height * width).transpose(1, 2).reshape(batch, height, width, channels)


def rounded(x):
    return F.interpolate(x, size=(math.ceil(x.shape[2] / 2), round(x.shape[3] / 2)))


def aliased(x):
    y = x
    x += 1
    return x * y


def written(x):
    x = x.clone()
    x[:, :2] = x[:, 2:] * 2
    x[..., 0] += 1
    return x


def checked(x):
    if not isinstance(x, torch.Tensor) or not torch.is_tensor(x) or not torch.jit.isinstance(x, torch.Tensor):
        return x
    return x.relu() if isinstance(x.shape[2], int) and x.dim() == 4 and x.dtype.is_floating_point else -x


def factories(x):
    grid = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) + torch.zeros(x.size(2), 1).to(x)
    return x + grid


def checkpointed(x):
    return torch.utils.checkpoint.checkpoint(torch.sigmoid, x, use_reentrant=True) * 2


FREE = [unpacked, rounded, aliased, written, checked, factories, checkpointed, to_int]
GUARDED = [crop, windows, pieces]


@pytest.mark.parametrize("body", FREE + GUARDED, ids=lambda body: body.__name__)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_decisions_on_sizes(body):
    model = Sizes(body)
    program = capture(model, torch.rand(2, 3, 8, 12))
    assert program.opaque == {}
    x = torch.rand(2, 3, 8, 12)
    assert torch.equal(program.graph_module(x), model(x))


@pytest.mark.parametrize("body", FREE, ids=lambda body: body.__name__)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_sizes_stay_symbolic(body):
    model = Sizes(body)
    module = capture(model, torch.rand(2, 3, 8, 12)).graph_module
    x = torch.rand(3, 3, 10, 9)
    assert torch.equal(module(x), model(x))


@pytest.mark.parametrize("body", GUARDED, ids=lambda body: body.__name__)
def test_another_size_is_right_or_an_error_that_says_so(body):
    model = Sizes(body)
    module = capture(model, torch.rand(1, 3, 8, 12)).graph_module
    with pytest.raises(RuntimeError, match="capture it again at this"):
        module(torch.rand(1, 3, 8, 17))
    x = torch.rand(1, 3, 8, 17)
    assert torch.equal(capture(model, x).graph_module(x), model(x))
