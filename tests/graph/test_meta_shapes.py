"""Meta values of operations that torch has none for: the shapes and dtypes that torch returns for real ones."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_compiler.graph import meta_shapes


@settings(deadline=None, max_examples=30)
@given(
    frames=st.integers(3, 9),
    hop=st.sampled_from([4, 8, None]),
    length=st.sampled_from([None, 20]),
    center=st.booleans(),
    batch=st.sampled_from([(), (3,)]),
    halved=st.sampled_from([True, False, None]),
)
@pytest.mark.filterwarnings("ignore")
def test_istft(frames: int, hop: int | None, length: int | None, center: bool, batch: Any, halved: bool | None) -> None:
    bins = 16 if halved is False else 9
    z = torch.rand(*batch, bins, frames, dtype=torch.complex64)
    window = torch.ones(16)
    options: dict[str, Any] = {"hop_length": hop, "window": window, "center": center, "onesided": halved}
    expected = torch.istft(z, 16, length=length, **options)
    got = meta_shapes.call(torch.istft, (z.to("meta"), 16), {"length": length, **options, "window": window.to("meta")})
    assert (got.shape, got.dtype, got.is_meta) == (expected.shape, expected.dtype, True)


@pytest.mark.parametrize("z", [torch.rand(9, 4), torch.rand(8, 4, dtype=torch.complex64)])
def test_istft_of_what_torch_does_not_take(z: torch.Tensor) -> None:
    for function in (torch.istft, lambda *args: meta_shapes.call(torch.istft, args, {})):
        with pytest.raises(RuntimeError):
            function(z, 16)


def test_a_mask_counts_as_if_it_selected_every_element() -> None:
    x, mask = torch.empty(2, 3, 4, device="meta"), torch.empty(2, 3, dtype=torch.bool, device="meta")
    assert meta_shapes.call(operator.getitem, (x, mask), {}).shape == (6, 4)
    assert meta_shapes.call(operator.getitem, (x, mask.byte()), {}).shape == (6, 4)
    assert meta_shapes.call(torch.masked_select, (x, mask[..., None]), {}).shape == (24,)
    assert meta_shapes.call(torch.Tensor.nonzero, (mask,), {}).shape == (6, 2)
    assert meta_shapes.call(torch.where, (mask,), {})[1].shape == (6,)
    meta_shapes.call(operator.setitem, (x, mask, torch.empty(6, 4, device="meta")), {})
    with pytest.raises(NotImplementedError):
        torch.nonzero(mask)  # nothing is left switched on
