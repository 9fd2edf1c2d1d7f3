"""Names of modules: examples, the inventories of the real models, and that no name means two modules."""

from collections import Counter

import pytest

from lorablend.adapters.names.modules import TOPOLOGIES, bases_of, find_module, text_encoder_modules, unet_modules

ATTN1 = "mid_block.attentions.0.transformer_blocks.0.attn1"
GOLDEN = (
    ("input_blocks_4_1_transformer_blocks_0_attn1_to_q", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
    ("input_blocks_5_1_proj_in", "down_blocks.1.attentions.1.proj_in"),
    (
        "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj",
    ),
    (
        "middle_block_1_transformer_blocks_3_attn2_to_out_0",
        "mid_block.attentions.0.transformer_blocks.3.attn2.to_out.0",
    ),
    ("middle_block_2_in_layers_2", "mid_block.resnets.1.conv1"),
    ("output_blocks_0_1_transformer_blocks_9_ff_net_2", "up_blocks.0.attentions.0.transformer_blocks.9.ff.net.2"),
    ("output_blocks_2_1_proj_out", "up_blocks.0.attentions.2.proj_out"),
    ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
    ("output_blocks_3_0_skip_connection", "up_blocks.1.resnets.0.conv_shortcut"),
    ("output_blocks_8_0_emb_layers_1", "up_blocks.2.resnets.2.time_emb_proj"),
    ("input_blocks_6_0_op", "down_blocks.1.downsamplers.0.conv"),
    ("input_blocks_0_0", "conv_in"),
    ("out_2", "conv_out"),
    ("time_embed_0", "time_embedding.linear_1"),
    ("label_emb_0_2", "add_embedding.linear_2"),
    (
        "down_blocks_1_attentions_1_transformer_blocks_1_attn2_to_k",
        "down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_k",
    ),
    ("input_blocks_1_1_proj_in", "down_blocks.0.attentions.0.proj_in"),
    ("input_blocks_9_0_op", "down_blocks.2.downsamplers.0.conv"),
    ("input_blocks_11_0_in_layers_2", "down_blocks.3.resnets.1.conv1"),
    ("output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv"),
    ("output_blocks_3_1_transformer_blocks_0_attn2_to_v", "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"),
    ("output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv"),
    ("output_blocks_8_2_conv", "up_blocks.2.upsamplers.0.conv"),
    ("output_blocks_11_1_proj_out", "up_blocks.3.attentions.2.proj_out"),
    # dotted SGM, and diffusers' older names
    ("input_blocks.4.1.proj_out", "down_blocks.1.attentions.0.proj_out"),
    (f"{ATTN1}.processor.to_v", f"{ATTN1}.to_v"),
    (f"{ATTN1}.processor.to_out", f"{ATTN1}.to_out.0"),
    (f"{ATTN1}.to_out", f"{ATTN1}.to_out.0"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "path"), GOLDEN)
def test_golden_unet_names(name: str, path: str) -> None:
    assert find_module("unet", name) == path


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2"])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("text_model_encoder_layers_0_self_attn_q_proj", "text_model.encoder.layers.0.self_attn.q_proj"),
        ("encoder_layers_31_mlp_fc1", "text_model.encoder.layers.31.mlp.fc1"),
        ("text_model.encoder.layers.3.self_attn.to_q", "text_model.encoder.layers.3.self_attn.q_proj"),
        ("encoder.layers.3.self_attn.to_out", "text_model.encoder.layers.3.self_attn.out_proj"),
        ("text_projection", "text_projection"),
        ("text_model_embeddings_token_embedding", "text_model.embeddings.token_embedding"),
    ],
)
def test_golden_text_encoder_names(component: str, name: str, path: str) -> None:
    assert find_module(component, name) == path


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("unet", "input_blocks_12_0_in_layers_2"),
        ("unet", "down_blocks.1.attentions.0.transformer_blocks.10.attn1.to_q"),
        ("unet", "text_projection"),
        ("text_encoder", "conv_in"),
        ("text_encoder", "text_model.encoder.layers.32.mlp.fc1"),
        ("unet", ""),
    ],
)
def test_other_names_mean_nothing(component: str, name: str) -> None:
    assert find_module(component, name) is None


def _kinds(base: str) -> Counter[str]:
    def kind(path: str) -> str:
        last = path.rsplit(".", 1)[-1]
        if "norm" in last:
            return "norm"
        if ".transformer_blocks." in path:
            return "transformer"
        if "samplers" in path:
            return "sampler"
        return path.split(".")[0] if "resnets" not in path and "attentions" not in path else last

    return Counter(kind(path) for path, _ in unet_modules(TOPOLOGIES[base]))


def test_inventory_of_sd15() -> None:
    assert _kinds("sd15") == {
        "transformer": 160, "proj_in": 16, "proj_out": 16, "conv1": 22, "conv2": 22, "time_emb_proj": 22,
        "conv_shortcut": 14, "sampler": 6, "conv_in": 1, "conv_out": 1, "time_embedding": 2, "norm": 109,
    }  # fmt: skip


def test_inventory_of_sdxl() -> None:
    assert _kinds("sdxl") == {
        "transformer": 700, "proj_in": 11, "proj_out": 11, "conv1": 17, "conv2": 17, "time_emb_proj": 17,
        "conv_shortcut": 11, "sampler": 4, "conv_in": 1, "conv_out": 1, "time_embedding": 2, "add_embedding": 2,
        "norm": 256,
    }  # fmt: skip


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTION = ("conv1", "conv2", "conv_shortcut", "samplers.0.conv", "time_emb_proj")


@pytest.mark.parametrize(
    ("base", "endings", "count"),
    [
        ("sd15", ATTENTION, 192),
        ("sdxl", ATTENTION, 722),
        ("sd15", ATTENTION + CONVOLUTION, 278),
        ("sdxl", ATTENTION + CONVOLUTION, 788),
    ],
)
def test_counts_of_what_trainers_target(base: str, endings: tuple[str, ...], count: int) -> None:
    assert sum(path.endswith(endings) for path, _ in unet_modules(TOPOLOGIES[base])) == count


@pytest.mark.parametrize(("layers", "count"), [(12, 72), (23, 138), (32, 192)])
def test_counts_of_text_encoders(layers: int, count: int) -> None:
    linear = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    paths = [path for path in text_encoder_modules() if path.endswith(linear)]
    assert sum(int(path.split(".")[3]) < layers for path in paths) == count


def test_no_name_means_two_modules() -> None:
    meaning: dict[str, str] = {}
    for topology in TOPOLOGIES.values():
        for path, sgm in unet_modules(topology):
            for name in (path, sgm, path.replace(".", "_"), sgm.replace(".", "_")):
                assert meaning.setdefault(name, path) == path
                assert find_module("unet", name) == path


def test_lycoris_counts_an_attention_that_does_not_exist() -> None:
    assert find_module("unet", "output_blocks_2_2_conv") == find_module("unet", "output_blocks_2_1_conv")


@pytest.mark.parametrize(
    ("path", "bases"),
    [
        ("conv_in", {"sd15", "sd2", "sdxl", "sdxl-refiner"}),
        ("down_blocks.0.attentions.0.proj_in", {"sd15", "sd2"}),
        ("up_blocks.0.attentions.0.proj_in", {"sdxl"}),
        ("add_embedding.linear_1", {"sdxl", "sdxl-refiner"}),
        ("up_blocks.2.attentions.0.transformer_blocks.3.attn1.to_q", {"sdxl-refiner"}),
    ],
)
def test_which_models_have_a_module(path: str, bases: set[str]) -> None:
    assert bases_of(path) == bases


def test_the_tables_are_those_of_diffusers_own_models() -> None:
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    sd15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
    sdxl = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    for base, config in (("sd15", sd15), ("sdxl", sdxl)):
        with torch.device("meta"):
            unet = diffusers.UNet2DConditionModel(**config)
        real = {name.removesuffix(".weight") for name, _ in unet.named_parameters() if name.endswith(".weight")}
        assert {path for path, _ in unet_modules(TOPOLOGIES[base])} == real
