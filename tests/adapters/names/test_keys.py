"""Names of tensors: every row of the tables is tested."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters.names.keys import NOT_ADAPTERS, OTHER_BASES, PREFIXES, ROLES, Key, algorithm_of, parse_key

Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TE = "text_model.encoder.layers.3.self_attn.q_proj"


@pytest.mark.parametrize(("suffix", "role", "algorithm"), ROLES)
def test_every_suffix(suffix: str, role: str, algorithm: str) -> None:
    name = f"unet.{Q}{suffix.replace('*', 'my-style_0')}"
    assert parse_key(name) == Key(name, "unet", Q, role, algorithm)


@pytest.mark.parametrize(("prefix", "component"), PREFIXES)
@pytest.mark.parametrize("peft", ["", "base_model.model.", "base_model.model.base_model.model."])
def test_every_prefix(prefix: str, component: str, peft: str) -> None:
    path = TE if component and component != "unet" else Q
    module = path.replace(".", "_") if prefix.endswith("_") else path
    for name in (f"{prefix}{peft}{module}.lora_A.weight", f"{peft}{prefix}{module}.lora_A.weight"):
        assert parse_key(name) == Key(name, component or "unet", path, "down", "LoRA")


# One name of each family, as its tools write it, and one for each known quirk.
FLAT_Q, FLAT_TE = Q.replace(".", "_"), TE.replace(".", "_")
SGM_Q = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
FAMILIES = (
    (f"lora_unet_{FLAT_Q}.lora_down.weight", "unet", Q, "down"),  # kohya, SD 1.5; OneTrainer, ai-toolkit, LCM-LoRA
    (f"lora_unet_{SGM_Q.replace('.', '_')}.lora_up.weight", "unet", Q, "up"),  # kohya, SDXL
    (f"lora_te_{FLAT_TE}.alpha", "text_encoder", TE, "alpha"),
    (f"lora_te1_{FLAT_TE}.hada_w1_a", "text_encoder", TE, "hada_w1_a"),
    (f"lora_te2_{FLAT_TE}.lokr_w1", "text_encoder_2", TE, "lokr_w1"),
    (f"lora_te_wrapped_{FLAT_TE}.lora_up.weight", "text_encoder", TE, "up"),
    (f"lycoris_{FLAT_Q}.lokr_w2_a", "unet", Q, "lokr_w2_a"),  # SimpleTuner
    (f"lycoris_{FLAT_TE}.dora_scale", None, TE, "dora_scale"),
    (f"unet.{Q}.lora.down.weight", "unet", Q, "down"),
    (f"text_encoder.{TE}.lora_linear_layer.up.weight", "text_encoder", TE, "up"),
    (f"text_encoder_2.{TE}.lora_A.weight", "text_encoder_2", TE, "down"),
    (f"base_model.model.{Q}.lora_A.weight", "unet", Q, "down"),  # PEFT
    (f"unet.base_model.model.{Q}.lora_B.weight", "unet", Q, "up"),
    (f"base_model.model.{TE}.hada_t1", None, TE, "hada_t1"),
    (f"{Q}.lora.up.weight", "unet", Q, "up"),  # diffusers up to 0.16
    (f"diffusion_model.{SGM_Q}.lora_up.weight", "unet", Q, "up"),  # ComfyUI
    (f"diffusion_model.{Q}.lora_up.weight", "unet", Q, "up"),
    (f"text_encoders.clip_l.transformer.{TE}.lora_down.weight", "text_encoder", TE, "down"),
    (f"text_encoders.clip_h.transformer.{TE}.lora_down.weight", "text_encoder", TE, "down"),
    (f"text_encoders.clip_g.transformer.{TE}.lora_down.weight", "text_encoder_2", TE, "down"),
    (f"{SGM_Q}.lora_A.weight", "unet", Q, "down"),  # OneTrainer
    (f"{SGM_Q}.dora_scale", "unet", Q, "dora_scale"),
    (f"unet.{SGM_Q}.lora_A.weight", "unet", Q, "down"),  # OMI
    (f"clip_l.{TE}.lora_A.weight", "text_encoder", TE, "down"),
    (f"clip_g.{TE}.lora_A.weight", "text_encoder_2", TE, "down"),
    (f"oft_unet_{FLAT_Q}.oft_blocks", "unet", Q, "oft_blocks"),  # kohya's networks.oft
    (f"oft_te1_{FLAT_TE}.oft_blocks", "text_encoder", TE, "oft_blocks"),
    ("bundle_emb.ink.string_to_param.*", None, None, "embedding"),
    ("unet_conv_in.weight", "unet", "conv_in", "weight"),  # ai-toolkit
    ("unet_conv_out.bias", "unet", "conv_out", "bias"),
    (f"unet.{Q}.lora_A.default.weight", "unet", Q, "down"),  # PEFT's adapter name left in
    (f"unet.{Q}.lora_A.default_0.weight", "unet", Q, "down"),
    (f"unet.{Q}.base_layer.bias", "unet", Q, "bias"),  # PEFT with bias="all"
    ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight", "unet",
     "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "down"),
    ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.lora.down.weight", "unet",
     "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "down"),
    ("text_encoder_2.text_model.encoder.layers.3.self_attn.to_q_lora.up.weight", "text_encoder_2", TE, "up"),
    ("text_encoder.encoder.layers.3.self_attn.q_proj.lora_A.weight", "text_encoder", TE, "down"),  # transformers 5
    ("lora_te1_encoder_layers_3_self_attn_q_proj.alpha", "text_encoder", TE, "alpha"),
    (f"lora_unet__{FLAT_Q}.lora_down.weight", "unet", Q, "down"),  # a superfluous underscore
    (f"lora_unet_{FLAT_Q.replace('attentions', '_attentions')}_.lora_down.weight", "unet", Q, "down"),
    ("lora_unet_time_embed_0.lora_up.weight", "unet", "time_embedding.linear_1", "up"),
    ("lora_unet_label_emb_0_2.lora_up.weight", "unet", "add_embedding.linear_2", "up"),
    ("lora_unet_input_blocks_6_0_op.lora_up.weight", "unet", "down_blocks.1.downsamplers.0.conv", "up"),
    ("lora_te2_text_projection.alpha", "text_encoder_2", "text_projection", "alpha"),
    ("lora_te1_text_model_embeddings_token_embedding.diff", "text_encoder", "text_model.embeddings.token_embedding",
     "diff"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "component", "path", "role"), FAMILIES)
def test_every_family(name: str, component: str | None, path: str | None, role: str) -> None:
    key = parse_key(name)
    assert (key.component, key.path, key.role) == (component, path, role)


@pytest.mark.parametrize(("name", "component", "path", "role"), FAMILIES)
def test_any_mixture_of_dots_and_underscores_is_the_same_module(
    name: str, component: str | None, path: str | None, role: str
) -> None:
    module = parse_key(name).module
    random = np.random.default_rng(0)
    for share in (0, 1, *[0.5] * 5, *[0.1] * 3, *[0.9] * 3):
        flat = random.random(len(module)) < share
        mixed = "".join(("_" if flat[at] else ".") if mark in "._" else mark for at, mark in enumerate(module))
        key = parse_key(mixed + name.removeprefix(module))
        assert (key.component, key.path, key.role) == (component, path, role), mixed


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lora_unet_nowhere.lora_up.weight", Key("lora_unet_nowhere.lora_up.weight", "unet", None, "up", "LoRA")),
        (f"unet.{Q}.lora_C.weight", Key(f"unet.{Q}.lora_C.weight", "unet", None, "weight", "full weights")),
        (f"unet.{Q}.lora_C", Key(f"unet.{Q}.lora_C")),
        ("bundle_emb.ink.clip_l", Key("bundle_emb.ink.clip_l", role="embedding", algorithm="bundled embedding")),
        ("." * 401, Key("." * 401)),
    ],
)
def test_parts_that_are_not_understood_stay_empty(name: str, key: Key) -> None:
    assert parse_key(name) == key


def test_the_highest_algorithm_in_the_table_is_the_modules() -> None:
    assert algorithm_of(["LoRA", "LoRA", "DoRA"]) == "DoRA"
    assert algorithm_of(["LoRA", "LoHa"]) == "LoHa"
    assert algorithm_of(["full weights", "IA3"]) == "IA3"
    assert algorithm_of(["LoRA"]) == "LoRA"


@given(st.text())
def test_any_text_is_parsed_without_an_exception(name: str) -> None:
    assert parse_key(name).name == name


@pytest.mark.parametrize("pattern", [row[0] for row in (*NOT_ADAPTERS, *OTHER_BASES)])
def test_no_pattern_for_other_files_matches_our_names(pattern: str) -> None:
    for name in (
        f"unet.{Q}.lora_A.weight",
        f"lora_unet_{Q.replace('.', '_')}.alpha",
        f"text_encoder.{TE}.lora_A.weight",
    ):
        assert not re.search(pattern, name)
