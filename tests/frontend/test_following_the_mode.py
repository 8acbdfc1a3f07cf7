"""A captured network follows the mode: dropout, flags, noise, and what cannot follow is told."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mofa_compiler import capture
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.frontend import CaptureWarning
from tests.frontend.small import Noisy, WithMode
from tests.raising import raising


def test_functional_dropout_follows_the_mode():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return F.dropout(self.conv(x), 0.5, self.training)

    module = capture(Model().train(), torch.rand(1, 3, 8, 8)).graph_module
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(module.eval()(x), module.conv(x))
    assert not torch.equal(module.train()(x), module.conv(x))


def test_flags_follow_the_mode_whatever_it_was_traced_in():
    class Model(WithMode):
        def forward(self, x):
            return F.batch_norm(self.conv(x), self.norm.running_mean, self.norm.running_var, training=self.training)

    model, x = Model(), torch.rand(2, 3, 8, 8)
    for mode in (True, False):
        module = capture(model.train(mode), x).graph_module
        for other in (True, False):
            expected = copy.deepcopy(model).train(other)(x)
            torch.testing.assert_close(copy.deepcopy(module).train(other)(x), expected)


@pytest.mark.parametrize(
    ("disturb", "named"),
    [
        (lambda x: F.dropout(x, 0.5, training=True), "dropout()"),
        (lambda x: x + torch.randn(1), "randn()"),
        (lambda x: x + torch.randn_like(x), "randn_like()"),
        (lambda x: x * torch.empty_like(x).bernoulli_(0.5), "bernoulli_()"),
        (lambda x: x + torch.empty(1).normal_(), "random numbers in forward"),
        (lambda x: x * random.random(), "random numbers in forward"),
        (lambda x: x * np.random.rand(), "random numbers in forward"),
    ],
)
def test_output_that_is_random_in_eval_mode_is_refused(disturb, named):
    python, numpy = random.getstate(), np.random.get_state()[1].tobytes()
    with raising(CaptureError, "random", named):
        capture(Noisy(disturb).eval(), torch.rand(1, 3, 8, 8))
    capture(Noisy(lambda x: (torch.randn_like(x), x)[1]).eval(), torch.rand(1, 3, 8, 8))
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == (python, numpy)


def test_what_cannot_follow_the_mode_is_warned_of():
    class Model(WithMode):
        def forward(self, x):
            return self.conv(x).relu() if self.training else self.conv(x)

    model = Model()
    with pytest.warns(CaptureWarning, match="does something else in train than in eval mode, in its forward"):
        module = capture(model.eval(), torch.rand(1, 3, 8, 8)).graph_module
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(module(x), model(x))
