"""Blocks that stand for a network are its own, whole, and counted."""

from __future__ import annotations

import pytest
import torch

from architectures import NAFNet
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.autotune.samples import samples
from mofa_compiler.autotune.subgraphs import extract
from mofa_compiler.frontend import capture
from mofa_compiler.passes import LowerLayerNorm, LowerShuffle
from mofa_compiler.rewriting.engine import rewrite


@pytest.fixture(scope="module")
def network() -> Network:
    program = capture(NAFNet(width=8, enc_blk_nums=(2,), dec_blk_nums=(1,)).eval(), torch.rand(1, 3, 32, 32))
    return Network(program, infer(program))


def test_the_block_around_a_layer_stands_for_all_that_are_alike(network: Network) -> None:
    (one,) = samples(
        network, [["encoders.0.0.norm1", "encoders.0.1.norm1", "decoders.0.0.norm1", "middle_blks.0.norm1"]]
    )
    assert one.count == 3, "the block in the middle has another size"
    inner = {path.rpartition(".")[2] for path in one.piece.program.modules}
    assert {"before", "behind"} < inner
    convolutions = [m for m in one.piece.module.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 2 + 6, "conv1 to conv5 and the attention's"


def test_every_list_of_layers_has_a_block(network: Network) -> None:
    found = samples(network, [["encoders.0.0.norm1"], ["ups.0.1"]])
    assert len(found) == 2
    changed = [rewrite(network, pass_)[0] for pass_ in (LowerLayerNorm(), LowerShuffle())]
    for sample, after in zip(found, changed, strict=True):
        piece = extract(after.program, sample.region)
        assert piece is not None
        assert piece.fingerprint != sample.piece.fingerprint
        with torch.no_grad():
            assert [y.shape for y in (piece.module(*piece.inputs), sample.piece.module(*sample.piece.inputs))] == [
                sample.piece.module(*sample.piece.inputs).shape
            ] * 2


def test_what_lies_in_no_block_is_judged_as_a_whole(network: Network) -> None:
    assert samples(network, [["encoders.0.0.norm1"], [""]]) == []
    assert samples(network, [["intro"]]) == []
