"""Weighted sums of keys and values."""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest

from lorablend.engine.live.context_mix import ContextMix

COEFFICIENTS = np.array([[0.5, 0.25], [0, 1], [2, -1]], np.float32)  # products and sums are exact in f32


@pytest.mark.parametrize(("kind", "bits"), [("float32", "int32"), ("bfloat16", "int16")])
def test_sums_are_rounded_to_the_nearest(kind: str, bits: str) -> None:
    """Compared with torch bit by bit; truncation would make the sums smaller on average."""
    import torch

    values = torch.randn((2, 5, 700), generator=torch.Generator().manual_seed(0)).to(getattr(torch, kind))
    terms = []
    for value in values:
        tensor = ov.Tensor({"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}[kind], ov.Shape([1, 5, 700]))
        tensor.data.view(bits)[:] = value.view(getattr(torch, bits)).numpy()
        terms.append({"context.0": tensor, "text_embeds": ov.Tensor(np.zeros(3, np.float32))})
    mix = ContextMix(["context.0"])
    mixed = mix(mix.stack(terms), COEFFICIENTS)
    expected = torch.einsum("rt,tij->rij", torch.from_numpy(COEFFICIENTS), values.float()).to(values.dtype)
    assert np.array_equal(mixed["context.0"].data.view(bits), expected.view(getattr(torch, bits)).numpy())
    assert mixed["text_embeds"] is terms[0]["text_embeds"]
