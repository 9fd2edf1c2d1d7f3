"""Which adapters belong on which model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lorablend.adapters import Adapter, Blend, BlendItem, load_adapter
from lorablend.adapters.errors import AdapterError, BaseModelError
from lorablend.engine.attach import check_attach
from tests.adapter_files import random_factors, write_kohya

LINEAR = ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
POINTWISE = ("unet", "mid_block.attentions.0.proj_in")
MODULES = {LINEAR: (64, 32), POINTWISE: (64, 48, 1, 1)}


def _adapter(path: Path, shapes: dict[tuple[str, str], tuple[int, ...]], base: str = "sdxl") -> Adapter:
    adapter = load_adapter(write_kohya(path / "ink.safetensors", random_factors(shapes), base="sdxl"))
    return dataclasses.replace(adapter, base_model=base)


def _check(adapter: Adapter, weight: float = 1.0) -> None:
    check_attach(Blend((BlendItem(adapter, weight),)), MODULES, "sdxl")


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
        "ink changes unet mid_block.attentions.0.transformer_blocks.0.attn1.to_q of shape [64, 33], "
        "the model's is [64, 32]; choose an adapter made for this model"
    )
