"""LoRA of embedding layers, against PEFT, and bundled textual inversions."""

from pathlib import Path

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError
from tests.adapter_files import Stored, encode, message_of, write_tensors
from tests.adapters.references import randomize, relative

TOKENS = "text_model.embeddings.token_embedding"
LORA: dict[str, Stored] = {
    "lora_unet_conv_in.diff": ("F32", np.ones((2, 2), np.float32)),
}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def test_peft(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    net = torch.nn.Module()
    parent = net
    for word in ("text_model", "embeddings"):
        parent.add_module(word, torch.nn.Module())
        parent = parent.get_submodule(word)
    parent.add_module("token_embedding", torch.nn.Embedding(50, 16))
    weight = net.get_submodule(TOKENS).weight.detach().numpy().copy()
    model = peft.get_peft_model(net, peft.LoraConfig(r=4, lora_alpha=2, target_modules=["token_embedding"]))
    randomize(model, 0.3, "lora_embedding")
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    adapter = load_adapter(tmp_path / "adapter_model.safetensors")
    delta = adapter.deltas["text_encoder", TOKENS]
    expected = model.base_model.model.get_submodule(TOKENS).get_delta_weight("default").detach().numpy()
    assert relative(delta.dense(weight), expected) <= 1e-6
    factors = delta.factors()
    assert factors is not None
    assert relative(factors[1] @ factors[0], expected) <= 1e-6
    assert (delta.algorithm, delta.rank, delta.alpha, delta.scale, delta.live) == ("lora", 4, 2, 0.5, "")
    assert (delta.made_for, delta.fits((50, 16)), delta.fits((16, 50))) == ("50×16", True, False)
    assert message_of(AdapterError, lambda: delta.dense(normal(51, 16))) == (
        f"text_encoder {TOKENS}: the adapter changes a weight of 50×16, but the model's is 51×16"
    )


@pytest.mark.parametrize("module", ["token_embedding", "position_embedding"])
def test_a_plain_lora_of_a_table_is_not_live(tmp_path: Path, module: str) -> None:
    """LyCORIS' presets train them. There are factors for the tools, but no socket."""
    key = f"lora_te1_text_model_embeddings_{module}"
    down, up = normal(2, 16), normal(50, 2)
    tensors: dict[str, Stored] = {f"{key}.lora_down.weight": ("F32", down), f"{key}.lora_up.weight": ("F32", up)}
    (delta,) = load_adapter(write_tensors(tmp_path / "a.safetensors", tensors)).deltas.values()
    assert (delta.live, delta.live_rank, delta.raw_factors(), delta.rank) == ("", 0, None, 2)
    factors = delta.factors()
    assert factors is not None
    assert np.array_equal(factors[1] @ factors[0], delta.dense(normal(50, 16)))


def test_a_difference_of_a_whole_embedding_table(tmp_path: Path) -> None:
    diff = normal(50, 16)
    name = "lora_te1_text_model_embeddings_token_embedding.diff"
    delta = load_adapter(write_tensors(tmp_path / "a.safetensors", {name: ("F32", diff)})).deltas[
        "text_encoder", TOKENS
    ]
    assert np.array_equal(delta.dense(normal(50, 16)), diff)


def test_bundled_textual_inversions(tmp_path: Path) -> None:
    local, big, old, single = normal(3, 768), normal(3, 1280), normal(2, 768), normal(1024)
    path = write_tensors(
        tmp_path / "a.safetensors",
        {
            **LORA,
            "bundle_emb.new.clip_l": ("F32", local),
            "bundle_emb.new.clip_g": ("F32", big),
            "bundle_emb.old.string_to_param.*": ("BF16", encode(old, "BF16")),
            "bundle_emb.sd2.emb_params": ("F32", single),
        },
    )
    adapter = load_adapter(path)
    shapes = {
        name: {component: vectors.shape for component, vectors in parts.items()}
        for name, parts in adapter.embeddings.items()
    }
    assert shapes == {
        "new": {"text_encoder": (3, 768), "text_encoder_2": (3, 1280)},
        "old": {"text_encoder": (2, 768)},
        "sd2": {"text_encoder": (1, 1024)},
    }
    assert np.array_equal(adapter.embeddings["new"]["text_encoder_2"], big)
    assert adapter.embeddings["old"]["text_encoder"].dtype == np.float32
    assert np.abs(adapter.embeddings["old"]["text_encoder"] - old).max() <= 0.03  # bfloat16


def f32(*shape: int) -> Stored:
    return "F32", normal(*shape)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"bundle_emb.a.emb_params": f32(1, 2, 768)},
            "tensor bundle_emb.a.emb_params has shape [1, 2, 768]; expected [n, width]",
        ),
        (
            {"bundle_emb.a.clip_l": f32(2, 768), "bundle_emb.a.clip_g": f32(3, 1280)},
            "the embedding a has 2 and 3 vectors for the text encoders; expected the same number",
        ),
        (
            {"bundle_emb.a.clip_l": f32(2, 768), "bundle_emb.a.emb_params": f32(2, 768)},
            "the embedding a has two tensors for text_encoder",
        ),
        (
            {"bundle_emb.a.clip_l_out": f32(2, 768)},
            "tensor bundle_emb.a.clip_l_out is an output embedding, which is not supported",
        ),
        ({"bundle_emb.a.b": f32(2, 768)}, "tensor bundle_emb.a.b is not part of a known embedding"),
        ({"bundle_emb.a": f32(2, 768)}, "tensor bundle_emb.a does not name an embedding"),
        (
            {
                f"text_encoder.{TOKENS}.lora_embedding_A": f32(4, 50),
                f"text_encoder.{TOKENS}.lora_embedding_B": f32(16, 3),
            },
            f"text_encoder {TOKENS}: down has rank 4, up has rank 3",
        ),
    ],
)
def test_refused(tmp_path: Path, tensors: dict[str, Stored], message: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", LORA | tensors)
    assert message_of(AdapterError, lambda: load_adapter(path)) == f"a.safetensors: {message}"
