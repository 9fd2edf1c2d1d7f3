"""The networks of a single checkpoint are those of the folder that it was made from, however it stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorablend.convert.networks import load_network
from tests.convert.checkpoints import write_checkpoint

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def whole(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tensors of an SDXL checkpoint."""
    from safetensors.torch import load_file

    return load_file(write_checkpoint(sdxl_source, tmp_path_factory.mktemp("whole") / "x.safetensors"))


def loaded(cls: Any, name: str, source: Path, file: Path, tensors: dict[str, Any]) -> dict[str, Any]:
    from safetensors.torch import save_file

    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    model, missing = load_network(cls, name, source, file, None, torch.float32)
    assert missing == []
    return model.state_dict()


@pytest.mark.parametrize("name", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_every_network(sdxl_source: Path, whole: dict[str, Any], tmp_path: Path, name: str) -> None:
    cls = {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.CLIPTextModel,
        "text_encoder_2": transformers.CLIPTextModelWithProjection,
    }[name]
    expected = cls.from_pretrained(sdxl_source / name).state_dict()
    got = loaded(cls, name, sdxl_source, tmp_path / "x.safetensors", whole)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_second_text_encoder_under_transformers_names(
    sdxl_source: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    cls = transformers.CLIPTextModelWithProjection
    expected = cls.from_pretrained(sdxl_source / "text_encoder_2").state_dict()
    start = "conditioner.embedders.1."
    tensors = {key: tensor for key, tensor in whole.items() if not key.startswith(start)}
    tensors |= {f"{start}transformer.{key}": tensor for key, tensor in expected.items()}
    got = loaded(cls, "text_encoder_2", sdxl_source, tmp_path / "x.safetensors", tensors)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


@pytest.mark.parametrize("scale_name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("per_row", [False, True])
def test_scaled_fp8(sdxl_source: Path, whole: dict[str, Any], tmp_path: Path, scale_name: str, per_row: bool) -> None:
    """ComfyUI's scaled fp8: each weight is divided by a scale, so that its largest number is fp8's largest."""
    tensors = {**whole, f"{UNET}scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    changed = [
        key for key in whole if key.startswith(UNET) and key.endswith(("attn1.to_q.weight", "in_layers.2.weight"))
    ]
    for key in changed:
        size = whole[key].abs()
        scale = (size.flatten(1).amax(1) if per_row else size.max()) / 448
        rows = scale.reshape(-1, *(1,) * (size.dim() - 1)) if per_row else scale
        tensors[key] = (whole[key] / rows).to(torch.float8_e4m3fn)
        tensors[key.replace(".weight", f".{scale_name}")] = scale
    got = loaded(diffusers.UNet2DConditionModel, "unet", sdxl_source, tmp_path / "x.safetensors", tensors)
    expected = diffusers.UNet2DConditionModel.from_pretrained(sdxl_source / "unet").state_dict()
    # fp8 has three bits of fraction: half a unit in the last place is 1/16 of the number, less for subnormal ones.
    worst = max(float((got[key] - expected[key]).abs().max() / expected[key].abs().max()) for key in expected)
    assert 0 < worst <= 1 / 16
    unchanged = {key for key in expected if not key.endswith(("attn1.to_q.weight", "conv1.weight"))}
    assert all(torch.equal(got[key], expected[key]) for key in unchanged)
