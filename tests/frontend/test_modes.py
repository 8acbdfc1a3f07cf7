"""What the train and the eval trace may differ in without a warning, and what is warned of."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mofa_compiler import capture
from mofa_compiler.frontend import CaptureWarning


class DropPath(nn.Module):
    """Stochastic depth."""

    def forward(self, x):
        if not self.training:
            return x
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.9) / 0.9


class NormAct(nn.BatchNorm2d):
    """Batch normalization and an activation in one module, written out."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return self.act(x)


class Connect(nn.Module):
    """Stochastic depth inside of a block that has weights, as EfficientNet's first implementations write it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), NormAct(3)

    def forward(self, x):
        y = self.norm(self.conv(x))
        if self.training:
            mask = torch.floor(0.9 + torch.rand([y.shape[0], 1, 1, 1], dtype=y.dtype, device=y.device))
            y = y / 0.9 * mask
        return x + y


class Block(nn.Module):
    def __init__(self, *, contiguous=False):
        super().__init__()
        self.conv, self.norm, self.drop, self.contiguous = nn.Conv2d(3, 3, 1), NormAct(3), DropPath(), contiguous

    def forward(self, x):
        if self.contiguous and self.training:
            x = x.contiguous()
        return x + self.drop(self.norm(self.conv(x)))


class Pooled(nn.Module):
    """Cannot run in training with one image: batch normalization over one value."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), NormAct(3)

    def forward(self, x):
        return x + self.norm(self.conv(x).mean((2, 3), keepdim=True))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x) * 2 if self.training else self.conv(x)


SAME = {
    "eval": (Block, False),
    "train": (Block, True),
    "contiguous": (lambda: Block(contiguous=True), False),
    "in a block": (Connect, False),
    "in a block, train": (Connect, True),
    "one value in training": (Pooled, False),
}


@pytest.mark.parametrize(("build", "training"), SAME.values(), ids=SAME)
def test_dropout_and_what_changes_no_value_are_no_difference(build, training):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CaptureWarning)
        capture(nn.Sequential(build(), build()).train(training), torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("training", [False, True])
def test_flags_follow_beside_stochastic_depth(training):
    """`F.batch_norm(..., self.training)` reads the mode at run time although the traces differ elsewhere."""
    model, x = nn.Sequential(Block(), Block()).train(training), torch.rand(4, 3, 8, 8)
    module = capture(model, x).graph_module
    for block in model:
        block.drop = nn.Identity()
    before = copy.deepcopy(model)
    torch.testing.assert_close(module.eval()(x), model.eval()(x))
    module.train()(x)
    before.train()(x)
    torch.testing.assert_close(module.state_dict()["0.norm.running_mean"], before[0].norm.running_mean)


@pytest.mark.parametrize("build", [Block, Connect])
@pytest.mark.sample(1)
def test_stochastic_depth_is_for_training_alone_whatever_it_was_captured_in(build):
    torch.manual_seed(0)
    model, x = nn.Sequential(*[build() for _ in range(4)]).train(), torch.rand(4, 3, 8, 8)
    module = copy.deepcopy(capture(model, x).graph_module)
    assert not torch.equal(module(x), module(x))
    states = model.state_dict()
    module.load_state_dict(states)
    assert torch.equal(module.eval()(x), model.eval()(x))


def test_the_warning_names_the_module():
    with pytest.warns(CaptureWarning, match=r"something else in train than in eval mode, in '1'; captured"):
        capture(nn.Sequential(Block(), Branches()).eval(), torch.rand(1, 3, 8, 8))
