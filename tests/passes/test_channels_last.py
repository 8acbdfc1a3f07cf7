from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures import PMRID
from mofa_compiler import capture
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.passes import ChannelsLast
from mofa_compiler.rewriting.engine import rewrite
from tests.rewrites import chain, network, output, scattered


def test_convolutions_see_channels_last():
    model = scattered(PMRID()).double()
    after, diff = rewrite(network(model, 1, 3, 32, 32), ChannelsLast())
    assert [(edit.path, edit.after) for edit in diff.edits] == [("image", "Tensor(1, 3, 32, 32), channels last")]
    seen = []
    module = after.program.graph_module
    for path in ("enc4.3.conv2.depthwise", "dec4.upsample"):
        module.get_submodule(path).register_forward_pre_hook(
            lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
    module(torch.rand(1, 3, 32, 48, dtype=torch.float64))
    assert seen == [True, True]
    x = torch.rand(1, 3, 48, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(output(after, x), model(x), rtol=1e-9, atol=0)


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(8, 8, 1), nn.Linear(4, 8)

    def forward(self, x: Tensor, level: Tensor, other: Tensor) -> Tensor:
        return self.conv(x + other) + self.linear(level)[:, :, None, None]


def test_every_image_input_and_nothing_else():
    image = torch.rand(1, 8, 6, 6)
    program = capture(Sum(), (image, torch.rand(1, 4), image))
    before = Network(program, infer(program))
    assert [edit.path for edit in rewrite(before, ChannelsLast())[1].edits] == ["x", "other"]
    assert [edit.path for edit in rewrite(before, ChannelsLast(layers=("o*",)))[1].edits] == ["other"]


def test_a_view_that_needs_the_other_order():
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(x.shape[0], -1, 4).flip(1).view(x.shape)

    model = chain(Flat())
    before = network(model, 1, 8, 8, 8)
    after, diff = rewrite(before, ChannelsLast())
    assert not diff.edits
    assert [skip.code for skip in diff.skips] == ["layout"] and "view() in '1'" in diff.skips[0].reason
    assert str(after.program.graph) == str(before.program.graph)
