"""Files that diffusers and PEFT write, compared to what PEFT adds to the weights."""

from pathlib import Path

import numpy as np
import pytest

from lorablend.adapters import Adapter, load_adapter
from tests.adapter_files import Module, add_random_lora, peft_deltas, save_diffusers

pytest.importorskip("peft")

UNET_TARGETS = [
    "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "time_emb_proj",
    "conv1", "conv2", "conv_shortcut", "conv_in", "conv_out", "downsamplers.0.conv", "upsamplers.0.conv",
    "time_embedding.linear_1",
]  # fmt: skip
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 4},
    "alpha": {"r": 4, "lora_alpha": 1},
    "patterns": {
        "r": 4,
        "lora_alpha": 2,
        "rank_pattern": {"to_q": 8, "fc1": 3},
        "alpha_pattern": {"to_q": 3, "mlp.fc1": 5},
    },
    "rslora": {"r": 8, "lora_alpha": 3, "use_rslora": True},
}


def assert_like_peft(adapter: Adapter, expected: dict[Module, np.ndarray]) -> None:
    assert set(adapter.deltas) == set(expected)
    for module, ours in adapter.deltas.items():
        theirs = expected[module]
        difference = np.linalg.norm(ours.dense(theirs) - theirs) / np.linalg.norm(theirs)
        assert difference <= 1e-6, (module, difference)


@pytest.mark.parametrize("config", CONFIGS)
def test_an_sdxl_adapter_saved_by_diffusers(sdxl_source: Path, tmp_path: Path, config: str) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    models = {
        "unet": UNet2DConditionModel.from_pretrained(sdxl_source / "unet"),
        "text_encoder": CLIPTextModel.from_pretrained(sdxl_source / "text_encoder"),
        "text_encoder_2": CLIPTextModelWithProjection.from_pretrained(sdxl_source / "text_encoder_2"),
    }
    for name, model in models.items():
        add_random_lora(model, target_modules=UNET_TARGETS if name == "unet" else TEXT_TARGETS, **CONFIGS[config])
    adapter = load_adapter(save_diffusers(tmp_path, models))
    assert adapter.base_model == "sdxl"
    assert_like_peft(
        adapter, {key: delta for name, model in models.items() for key, delta in peft_deltas(name, model).items()}
    )


def test_an_sd15_adapter_saved_by_diffusers_with_1x1_convolutions(sd15_source: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(sd15_source / "unet")
    add_random_lora(unet, target_modules=UNET_TARGETS, r=4, lora_alpha=4)
    adapter = load_adapter(save_diffusers(tmp_path, {"unet": unet}, alphas=False))
    assert adapter.base_model == "sd15"
    assert_like_peft(adapter, peft_deltas("unet", unet))


def test_an_adapter_saved_by_peft(sdxl_source: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig, get_peft_model

    unet = UNet2DConditionModel.from_pretrained(sdxl_source / "unet")
    config = LoraConfig(target_modules=UNET_TARGETS, init_lora_weights=False, **CONFIGS["patterns"])
    model = get_peft_model(unet, config)
    model.save_pretrained(str(tmp_path))
    assert_like_peft(load_adapter(tmp_path / "adapter_model.safetensors"), peft_deltas("unet", model.get_base_model()))


def test_an_adapter_saved_by_save_lora_adapter(sdxl_source: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(sdxl_source / "unet")
    add_random_lora(unet, target_modules=UNET_TARGETS, **CONFIGS["patterns"])
    unet.save_lora_adapter(tmp_path, adapter_name="default")
    assert_like_peft(load_adapter(tmp_path / "pytorch_lora_weights.safetensors"), peft_deltas("unet", unet))


def test_a_dora_saved_by_diffusers(sdxl_source: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(sdxl_source / "unet")
    before = {name: weight.detach().numpy().copy() for name, weight in unet.named_parameters()}
    add_random_lora(unet, target_modules=["to_q", "ff.net.2", "conv1", "proj_in"], r=4, lora_alpha=2, use_dora=True)
    for name, parameter in unet.named_parameters():
        if "lora_magnitude_vector" in name:  # those that add_random_lora made may be negative
            parameter.data.add_(1)
    adapter = load_adapter(save_diffusers(tmp_path, {"unet": unet}))
    unet.fuse_lora()
    assert len(adapter.deltas) > 20
    for (_, path), delta in adapter.deltas.items():
        assert delta.algorithm == "dora"
        weight = before[f"{path}.weight"]
        fused = unet.get_submodule(path).base_layer.weight.detach().numpy()
        difference = np.linalg.norm(delta.dense(weight) - (fused - weight)) / np.linalg.norm(fused - weight)
        assert difference <= 1e-5, (path, difference)


def test_an_adapter_converted_to_kohya_by_diffusers(sdxl_source: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.utils import convert_state_dict_to_kohya
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    unet = UNet2DConditionModel.from_pretrained(sdxl_source / "unet")
    add_random_lora(unet, target_modules=UNET_TARGETS, r=4, lora_alpha=4)
    named = {f"unet.{key}": value for key, value in get_peft_model_state_dict(unet).items()}
    save_file(convert_state_dict_to_kohya(named), tmp_path / "x.safetensors")
    assert_like_peft(load_adapter(tmp_path / "x.safetensors"), peft_deltas("unet", unet))
