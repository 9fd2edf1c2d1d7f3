"""Which adapters fit which model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lorablend.adapters import Adapter, Blend, BlendItem, load_adapter
from lorablend.adapters.errors import AdapterError, BaseModelError
from lorablend.engine.attach import check_attach
from tests.adapter_files import random_factors, write_kohya

LINEAR = ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
POINTWISE = ("unet", "mid_block.attentions.0.proj_in")
PARAMETERS = {
    (name, f"{path}.weight"): shape for (name, path), shape in {LINEAR: (64, 32), POINTWISE: (64, 48, 1, 1)}.items()
}


def _adapter(path: Path, shapes: dict[tuple[str, str], tuple[int, ...]], base: str = "sdxl") -> Adapter:
    adapter = load_adapter(write_kohya(path / "ink.safetensors", random_factors(shapes), base="sdxl"))
    return dataclasses.replace(adapter, base_model=base)


def _check(adapter: Adapter, weight: float = 1.0) -> None:
    check_attach(Blend((BlendItem(adapter, weight),)), PARAMETERS, "sdxl")


@pytest.mark.parametrize("tail", [(), (1, 1)])
@pytest.mark.parametrize("base", ["sdxl", "unknown"])
def test_linear_and_pointwise_are_the_same(tmp_path: Path, tail: tuple[int, ...], base: str) -> None:
    adapter = _adapter(tmp_path, {LINEAR: (64, 32, *tail), POINTWISE: (64, 48, *tail)}, base)
    _check(adapter)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_another_base_model(tmp_path: Path, weight: float) -> None:
    adapter = _adapter(tmp_path, {LINEAR: (64, 32)}, "sd15")
    with pytest.raises(BaseModelError) as caught:
        _check(adapter, weight)
    assert str(caught.value) == "ink is for sd15, the model is sdxl; choose an adapter for sdxl"


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path, {("unet", "mid_block.attentions.0.proj_out"): (64, 32)}, "unknown")
    with pytest.raises(AdapterError) as caught:
        _check(adapter)
    assert str(caught.value) == (
        "ink changes unet mid_block.attentions.0.proj_out, which the model does not have; "
        "choose an adapter made for this model"
    )


def test_another_shape(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path, {LINEAR: (64, 33)})
    with pytest.raises(AdapterError) as caught:
        _check(adapter)
    assert str(caught.value) == (
        "ink changes unet mid_block.attentions.0.transformer_blocks.0.attn1.to_q of shape 64×33, "
        "the model's is 64×32; choose an adapter made for this model"
    )


def _with_words(path: Path, width: int) -> Adapter:
    words = {"bundle_emb.inkfox.clip_l": np.zeros((2, width), np.float32)}
    adapter = _adapter(path, {LINEAR: (64, 32)})
    folder = path / str(width)  # a loaded file must not be overwritten
    folder.mkdir()
    save_file(load_file(adapter.path) | words, folder / "words.safetensors")
    return load_adapter(folder / "words.safetensors")


def test_words_of_another_width(tmp_path: Path) -> None:
    parameters = PARAMETERS | {("text_encoder", "text_model.embeddings.token_embedding.weight"): (100, 768)}
    check_attach(Blend((BlendItem(_with_words(tmp_path, 768)),)), parameters, "sdxl")
    with pytest.raises(AdapterError) as caught:
        check_attach(Blend((BlendItem(_with_words(tmp_path, 1024)),)), parameters, "sdxl")
    assert str(caught.value) == (
        "words brings the word inkfox with 1024 numbers for text_encoder; the model's words have 768; "
        "choose an adapter made for this model"
    )


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (None, "bias changes unet mid_block.attentions.0.proj_in's bias, which the model does not have;"),
        ((63,), "bias changes unet mid_block.attentions.0.proj_in's bias of shape 64, the model's is 63;"),
        ((64,), ""),
    ],
)
def test_biases(tmp_path: Path, bias: tuple[int, ...] | None, message: str) -> None:
    key = "lora_unet_mid_block_attentions_0_proj_in.diff_b"
    save_file({key: np.ones(64, np.float32)}, tmp_path / "bias.safetensors")
    parameters = PARAMETERS if bias is None else PARAMETERS | {("unet", f"{POINTWISE[1]}.bias"): bias}
    blend = Blend((BlendItem(load_adapter(tmp_path / "bias.safetensors")),))
    if not message:
        check_attach(blend, parameters, "sdxl")
        return
    with pytest.raises(AdapterError) as caught:
        check_attach(blend, parameters, "sdxl")
    assert str(caught.value) == f"{message} choose an adapter made for this model"
