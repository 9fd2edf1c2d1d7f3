"""The base model that a file is for, one kind of evidence at a time."""

from pathlib import Path

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import BaseModelError
from lorablend.adapters.names.modules import TOPOLOGIES, unet_modules
from tests.adapter_files import SD15_SHAPES, Module, Stored, message_of, random_factors, write_kohya, write_tensors

BLOCK = "transformer_blocks.0"
EVERYWHERE = f"unet.down_blocks.1.attentions.0.{BLOCK}"  # SD 1.5, SD 2, SDXL and the refiner have this one
TE = "text_model.encoder.layers.0.self_attn.q_proj"


def adapter_of(
    tmp_path: Path, names: dict[str, int], metadata: dict[str, str] | None = None, tail: tuple[int, ...] = ()
):
    """An adapter of rank 1 for modules of the given input widths."""
    tensors: dict[str, Stored] = {}
    for name, width in names.items():
        tensors[f"{name}.lora_A.weight"] = "F32", np.ones((1, width, *tail), np.float32)
        tensors[f"{name}.lora_B.weight"] = "F32", np.ones((8, 1, *tail), np.float32)
    return load_adapter(write_tensors(tmp_path / "x.safetensors", tensors, metadata))


@pytest.mark.parametrize(
    ("names", "base"),
    [
        # the width of the prompt, if it is that of a real model
        ({f"{EVERYWHERE}.attn2.to_k": 768}, "sd15"),
        ({f"{EVERYWHERE}.attn2.to_v": 1024}, "sd2"),
        ({f"{EVERYWHERE}.attn2.to_k": 2048}, "sdxl"),
        ({f"{EVERYWHERE}.attn2.to_k": 96}, "unknown"),
        ({f"{EVERYWHERE}.attn2.to_q": 768}, "unknown"),
        # modules that only some models have
        ({"unet.down_blocks.2.attentions.0.transformer_blocks.1.attn1.to_q": 8}, "sdxl"),
        ({"unet.down_blocks.0.attentions.0.proj_in": 8}, "sd15"),
        ({"unet.up_blocks.3.resnets.0.time_emb_proj": 8}, "sd15"),
        ({"unet.up_blocks.0.attentions.0.proj_out": 8}, "sdxl"),
        ({"unet.add_embedding.linear_1": 8}, "sdxl"),
        ({"lora_unet_output_blocks_1_1_proj_in": 8}, "sdxl"),
        ({"lora_unet_output_blocks_9_1_proj_in": 8}, "sd15"),
        ({f"text_encoder_2.{TE}": 64}, "sdxl"),
        # a width of the prompt cannot overrule them
        ({f"{EVERYWHERE}.attn2.to_k": 768, "unet.add_embedding.linear_1": 8}, "sdxl"),
        # text encoders
        ({f"text_encoder.{TE}": 1024}, "sd2"),
        ({f"text_encoder.{TE}": 768}, "unknown"),
        ({f"text_encoder.{TE}": 768, "unet.down_blocks.0.attentions.0.proj_in": 8}, "sd15"),
        ({f"lora_te1_{TE.replace('.', '_')}": 768}, "sdxl"),
        ({f"lora_te_{TE.replace('.', '_')}": 768}, "sd15"),
        # the width of the attention in up_blocks.1
        ({f"unet.up_blocks.1.attentions.0.{BLOCK}.attn1.to_q": 640}, "sdxl"),
        ({f"unet.up_blocks.1.attentions.0.{BLOCK}.attn1.to_q": 1280}, "sd15"),
        ({f"unet.up_blocks.1.attentions.0.{BLOCK}.attn1.to_q": 64}, "unknown"),
        ({f"{EVERYWHERE}.attn1.to_q": 640}, "unknown"),
    ],
)
def test_names_and_widths(tmp_path: Path, names: dict[str, int], base: str) -> None:
    assert adapter_of(tmp_path, names).base_model == base


TO_K = f"{EVERYWHERE}.attn2.to_k"


def ones(*shape: int) -> Stored:
    return "F32", np.ones(shape, np.float32)


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{TO_K}.hada_w{n}_a": ones(8, 2) for n in (1, 2)} | {f"{TO_K}.hada_w{n}_b": ones(2, 2048) for n in (1, 2)},
        {f"{TO_K}.lokr_w1": ones(2, 32), f"{TO_K}.lokr_w2_a": ones(4, 1), f"{TO_K}.lokr_w2_b": ones(1, 64)},
        {f"{TO_K}.lokr_w1": ones(2, 32), f"{TO_K}.lokr_w2": ones(4, 64)},
        {f"{TO_K}.lora_A.weight": ones(1, 2048), f"{TO_K}.lora_B.weight": ones(8, 1), f"{TO_K}.magnitude": ones(8)},
        {f"{TO_K}.diff": ones(8, 2048)},
        {f"{TO_K}.b{n}.weight": ones(*((8, 2), (2, 2048))[n - 1]) for n in (1, 2)}
        | {f"{TO_K}.a{n}.weight": ones(*((2048, 2), (2, 2048))[n - 1]) for n in (1, 2)},
        # it has no width, but a module that only SDXL has
        {"unet.add_embedding.linear_1.ia3_l": ones(8, 1)},
        {"unet.add_embedding.linear_1.oft_blocks": ones(2, 4, 4)},
        {"unet.add_embedding.linear_1.diff_b": ones(8)},
        {"bundle_emb.ink.clip_g": ones(1, 1280)},
    ],
    ids=lambda tensors: next(iter(tensors)),
)
def test_every_algorithm_shows_its_base_model(tmp_path: Path, tensors: dict[str, Stored]) -> None:
    assert load_adapter(write_tensors(tmp_path / "x.safetensors", tensors)).base_model == "sdxl"


def test_the_blocks_of_a_rotation_are_not_a_convolution(tmp_path: Path) -> None:
    tensors = {"unet.down_blocks.1.attentions.0.proj_in.oft_blocks": ones(1, 4, 2, 2)}
    assert load_adapter(write_tensors(tmp_path / "x.safetensors", tensors)).base_model == "unknown"


def test_names_alone_may_leave_it_open(tmp_path: Path) -> None:
    tensors = {f"{TO_K}.ia3_l": ones(8, 1)}
    assert load_adapter(write_tensors(tmp_path / "x.safetensors", tensors)).base_model == "unknown"


@pytest.mark.parametrize(
    ("role", "shape"), [("lora_A.weight", (2, 1280)), ("hada_w1_b", (2, 1280)), ("lokr_w1", (2, 2))]
)
def test_an_unnamed_text_encoder_of_width_1280_is_the_second(tmp_path: Path, role: str, shape: tuple[int, ...]) -> None:
    others = {
        "lora_A.weight": {"lora_B.weight": (8, 2)},
        "hada_w1_b": {"hada_w1_a": (8, 2), "hada_w2_a": (8, 2), "hada_w2_b": (2, 1280)},
        "lokr_w1": {"lokr_w2": (4, 640)},
    }[role]
    tensors = {f"base_model.model.{TE}.{name}": ones(*size) for name, size in {role: shape, **others}.items()}
    ((component, _),) = load_adapter(write_tensors(tmp_path / "x.safetensors", tensors)).deltas
    assert component == "text_encoder_2"


def test_a_convolution_before_the_attention_is_sd15s(tmp_path: Path) -> None:
    names = {"unet.down_blocks.1.attentions.0.proj_in": 640}
    assert adapter_of(tmp_path, names, tail=(1, 1)).base_model == "sd15"
    assert adapter_of(tmp_path, names).base_model == "unknown"


@pytest.mark.parametrize(
    ("metadata", "base"),
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"ss_base_model_version": "sdxl_"}, "sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "sd15"),
        ({"ss_base_model_version": "sd_1.5"}, "sd15"),
        ({"ss_base_model_version": "sd_v2"}, "sd2"),
        ({"ss_v2": "True", "ss_base_model_version": "sd_v1"}, "sd2"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "sd2"),
        ({"ss_base_model_version": "None"}, "unknown"),
        ({"ss_base_model_version": "flux1"}, "unknown"),
    ],
)
def test_metadata_decides_only_what_names_and_widths_leave_open(
    tmp_path: Path, metadata: dict[str, str], base: str
) -> None:
    assert adapter_of(tmp_path, {f"{EVERYWHERE}.attn1.to_q": 640}, metadata).base_model == base
    assert adapter_of(tmp_path, {f"{EVERYWHERE}.attn2.to_k": 2048}, metadata).base_model == "sdxl"
    assert adapter_of(tmp_path, {"unet.up_blocks.0.attentions.0.proj_in": 8}, metadata).base_model == "sdxl"


@pytest.mark.parametrize(
    "names",
    [
        {f"{EVERYWHERE}.attn2.to_k": 1280},
        {"unet.up_blocks.2.attentions.0.transformer_blocks.1.attn1.to_q": 768},
    ],
)
def test_the_refiner_is_refused(tmp_path: Path, names: dict[str, int]) -> None:
    assert message_of(BaseModelError, lambda: adapter_of(tmp_path, names)) == (
        "x.safetensors: made for the SDXL refiner, which lorablend does not run: use an SDXL adapter"
    )


def test_modules_of_different_models_are_refused(tmp_path: Path) -> None:
    names = {"unet.up_blocks.3.attentions.0.proj_in": 8, "unet.up_blocks.0.attentions.0.proj_in": 8}
    assert message_of(BaseModelError, lambda: adapter_of(tmp_path, names)) == (
        "x.safetensors: modules of different models: unet up_blocks.0.attentions.0.proj_in belongs to SDXL, "
        "those before it to SD 1.5 or SD 2"
    )


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")


@pytest.mark.parametrize(("base", "width"), [("sd15", 768), ("sd2", 1024), ("sdxl", 2048)])
@pytest.mark.parametrize("naming", ["diffusers", "sgm"])
def test_kohyas_default_targets(tmp_path: Path, base: str, width: int, naming) -> None:
    shapes: dict[Module, tuple[int, ...]] = {
        ("unet", path): (8, width if path.endswith(("attn2.to_k", "attn2.to_v")) else 8)
        for path, _ in unet_modules(TOPOLOGIES[base])
        if path.endswith(ATTENTION)
    }
    adapter = load_adapter(write_kohya(tmp_path / "x", random_factors(shapes, rank=1), naming=naming, base=base))
    assert adapter.base_model == base
    assert len(adapter.deltas) == (722 if base == "sdxl" else 192)


def test_sd15_shapes(tmp_path: Path) -> None:
    assert load_adapter(write_kohya(tmp_path / "x", random_factors(SD15_SHAPES), base="sd15")).base_model == "sd15"
