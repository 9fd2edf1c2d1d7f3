"""Names of tensors: every row of the tables has a test."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters.keys import NOT_ADAPTERS, OTHER_BASES, PREFIXES, ROLES, Key, algorithm_of, parse_key

Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TE = "text_model.encoder.layers.3.self_attn.q_proj"


@pytest.mark.parametrize(("suffix", "role", "algorithm"), ROLES)
def test_every_suffix(suffix: str, role: str, algorithm: str) -> None:
    name = f"unet.{Q}{suffix.replace('*', 'my-style_0')}"
    assert parse_key(name) == Key(name, "unet", Q, role, algorithm)


@pytest.mark.parametrize(("prefix", "component"), PREFIXES)
@pytest.mark.parametrize("peft", ["", "base_model.model.", "base_model.model.base_model.model."])
def test_every_prefix(prefix: str, component: str, peft: str) -> None:
    path = Q if component == "unet" else TE
    module = path.replace(".", "_") if prefix.endswith("_") else path
    for name in (f"{prefix}{peft}{module}.lora_A.weight", f"{peft}{prefix}{module}.lora_A.weight"):
        assert parse_key(name) == Key(name, component, path, "down", "LoRA")


@pytest.mark.parametrize(
    ("name", "component", "path", "role"),
    [
        (
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
            "down",
        ),
        (
            "text_encoder_2.text_model.encoder.layers.3.self_attn.to_q_lora.up.weight",
            "text_encoder_2",
            "text_model.encoder.layers.3.self_attn.q_proj",
            "up",
        ),
        (
            "base_model.model.mid_block.attentions.0.proj_in.lora_A.default.weight",
            "unet",
            "mid_block.attentions.0.proj_in",
            "down",
        ),
        ("mid_block.attentions.0.proj_in.lora.up.weight", "unet", "mid_block.attentions.0.proj_in", "up"),
        ("input_blocks.4.1.proj_in.alpha", "unet", "down_blocks.1.attentions.0.proj_in", "alpha"),
        (f"base_model.model.{TE}.lora_B.weight", None, TE, "up"),
        ("lora_unet_time_embed_0.lora_up.weight", "unet", "time_embedding.linear_1", "up"),
        ("lora_te2_text_projection.alpha", "text_encoder_2", "text_projection", "alpha"),
        ("lycoris_mid_block_attentions_0_proj_in.alpha", "unet", "mid_block.attentions.0.proj_in", "alpha"),
    ],
)
def test_examples(name: str, component: str | None, path: str, role: str) -> None:
    assert parse_key(name) == Key(name, component, path, role, "LoRA")


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
def test_what_is_not_understood_stays_empty(name: str, key: Key) -> None:
    assert parse_key(name) == key


def test_the_algorithm_highest_in_the_table_is_the_modules() -> None:
    assert algorithm_of(["LoRA", "LoRA", "DoRA"]) == "DoRA"
    assert algorithm_of(["LoRA", "LoHa"]) == "LoHa"
    assert algorithm_of(["full weights", "IA3"]) == "IA3"
    assert algorithm_of(["LoRA"]) == "LoRA"


@given(st.text())
def test_any_text_is_taken_apart_without_an_exception(name: str) -> None:
    assert parse_key(name).name == name


@pytest.mark.parametrize("pattern", [row[0] for row in (*NOT_ADAPTERS, *OTHER_BASES)])
def test_no_pattern_for_strangers_fits_a_name_of_ours(pattern: str) -> None:
    for name in (
        f"unet.{Q}.lora_A.weight",
        f"lora_unet_{Q.replace('.', '_')}.alpha",
        f"text_encoder.{TE}.lora_A.weight",
    ):
        assert not re.search(pattern, name)
