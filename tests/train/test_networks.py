"""The networks in memory against PEFT's and LyCORIS' forward passes, and their files in diffusers."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import TrainError
from lorablend.train.base import BaseNetworks, load_base
from lorablend.train.networks import attach
from tests.adapter_files import message_of
from tests.engine import reference
from tests.train.trained import ALGORITHMS, config, pipeline_of, relative, trained, write

pytest.importorskip("lycoris")

LATENTS = np.random.default_rng(42).standard_normal((1, 4, 8, 8), dtype=np.float32)
LYCORIS = ("locon", "loha", "lokr")


def draw(pipeline: Any, *adapters: tuple[Path, float]) -> np.ndarray:
    return reference.draw(pipeline, adapters, LATENTS, steps=4, prompt=reference.PROMPT, guidance_scale=5.0)


@pytest.fixture(scope="module")
def bare(sdxl_source: Path) -> np.ndarray:
    return draw(reference.load(sdxl_source))


def layers_in(model: Any, *classes: str) -> set[str]:
    """Every linear layer and convolution inside modules of these classes: kohya's own rule for its targets."""
    import torch

    inside = [path for path, module in model.named_modules() if type(module).__name__ in classes]
    return {
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        and any(path.startswith(f"{parent}.") for parent in inside)
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_targets_are_kohyas(sdxl_source: Path, algorithm: str) -> None:
    models = load_base(str(sdxl_source))
    unet = layers_in(models.unet, "Transformer2DModel")
    if algorithm == "locon":
        unet |= layers_in(models.unet, "ResnetBlock2D", "Downsample2D", "Upsample2D")
    texts = [layers_in(encoder, "CLIPAttention", "CLIPMLP") for encoder in models.text_encoders]
    network = attach(models, config(algorithm=algorithm, text_encoder=True))
    names = ("text_encoder", "text_encoder_2")
    assert set(network.modules) == {("unet", path) for path in unet} | {
        (name, f"text_model.{path.removeprefix('text_model.')}")
        for name, paths in zip(names, texts, strict=True)
        for path in paths
    }
    assert len(network.modules) == len(set(network.modules))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_the_network_is_trained_and_starts_as_nothing(sdxl_source: Path, algorithm: str, bare: np.ndarray) -> None:
    import torch

    models = load_base(str(sdxl_source), dtype=torch.bfloat16)
    network = attach(models, config(algorithm=algorithm))
    (group,) = network.parameters()
    assert group["name"] == "unet"
    assert group["lr"] == 1e-4
    wanted = {id(parameter) for parameter in group["params"]}
    assert wanted == {id(parameter) for parameter in models.unet.parameters() if parameter.requires_grad}
    assert all(parameter.dtype == torch.float32 for parameter in group["params"])
    assert network.parameter_count == sum(parameter.numel() for parameter in group["params"])
    for model in (models.vae, *models.text_encoders):
        assert not any(parameter.requires_grad for parameter in model.parameters())

    if algorithm == "dora":  # bf16 would round each magnitude by up to 0.2 %
        assert all(np.abs(change).max() <= 1e-6 * np.abs(weight).max() for _, (weight, change) in network.changes())

    models = load_base(str(sdxl_source))
    attach(models, config(algorithm=algorithm))
    # DoRA divides each row by its length and multiplies by it again, in f32
    assert reference.levels_apart(draw(pipeline_of(models)), bare) <= (1 if algorithm == "dora" else 0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_changes_are_what_the_layers_do(sdxl_source: Path, algorithm: str) -> None:
    """To 1e-5 of the layer's output: two f32 sums in different order."""
    import torch

    models, network = trained(sdxl_source, algorithm=algorithm, text_encoder=True)
    layers = {("unet", path): layer for path, layer in models.unet.named_modules()}
    for name, encoder in zip(("text_encoder", "text_encoder_2"), models.text_encoders, strict=True):
        layers |= {
            (name, f"text_model.{path.removeprefix('text_model.')}"): layer for path, layer in encoder.named_modules()
        }
    seen = 0
    for module, (weight, change) in network.changes():
        layer = layers[module]
        assert change.shape == weight.shape
        assert np.linalg.norm(change) > 1e-3 * np.linalg.norm(weight), "else the comparison says nothing"
        values = torch.from_numpy(weight + change)
        with torch.no_grad():
            if weight.ndim == 2:
                inputs = torch.randn(5, weight.shape[1])
                expected = torch.nn.functional.linear(inputs, values, layer.bias)
            else:
                inputs = torch.randn(2, weight.shape[1], 8, 8)
                expected = torch.nn.functional.conv2d(inputs, values, layer.bias, layer.stride, layer.padding)
            assert relative(layer(inputs).numpy(), expected.numpy()) <= 1e-5, module
        seen += 1
    assert seen == len(network.modules)


@pytest.mark.parametrize("algorithm", LYCORIS)
def test_a_small_change_is_not_lost_in_a_bf16_model(sdxl_source: Path, algorithm: str) -> None:
    """LyCORIS would add it to the bf16 weight and subtract that again, which leaves nothing of 0.001 next to a 1.

    0.02: sums of bf16, which has 3 digits.
    """
    import torch

    path = "mid_block.attentions.0.proj_in"
    models, network = trained(load_base(str(sdxl_source), dtype=torch.bfloat16), algorithm=algorithm, size=2e-4)
    layer = models.unet.get_submodule(path)
    layer.weight.data.fill_(1)
    layer.bias.data.zero_()
    _, change = dict(network.changes())["unet", path]
    assert 0 < np.abs(change).max() < 0.003  # half the distance from 1 to bf16's next number
    half = torch.randint(2, (64, change.shape[1] // 2)) * 2.0 - 1
    inputs = torch.cat([half, -half], 1)  # their sum is 0, so the base layer's output is
    with torch.no_grad():
        ours = layer(inputs.bfloat16()).float().numpy()
    assert relative(ours, inputs.numpy() @ change.T) < 0.02


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_learns(sdxl_source: Path, algorithm: str, autocast: bool) -> None:
    """On a bf16 model with a bf16 forward pass, and on an f32 one: every number gets a gradient, the loss falls."""
    import torch

    models = load_base(str(sdxl_source), dtype=torch.bfloat16 if autocast else None)
    network = attach(models, config(algorithm=algorithm, learning_rate=5e-3))
    models.unet.enable_gradient_checkpointing()
    models.unet.train()
    optimizer = torch.optim.AdamW(network.parameters())
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if autocast else torch.float32

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    sample, text, pooled, target = normal(2, 4, 8, 8), normal(2, 7, 96), normal(2, 64), normal(2, 4, 8, 8)
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            guess = models.unet(
                sample, torch.tensor([10, 500]), text, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}
            ).sample
        loss = torch.nn.functional.mse_loss(guess.float(), target.float())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for group in network.parameters() for parameter in group["params"])
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]
    assert all(np.abs(change).max() > 0 for _, (_, change) in network.changes())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_state_comes_back_bit_for_bit(sdxl_source: Path, algorithm: str) -> None:
    import torch

    _, network = trained(sdxl_source, algorithm=algorithm, text_encoder=True)
    state = network.state()
    assert sum(values.numel() for values in state.values()) == network.parameter_count
    other = attach(load_base(str(sdxl_source)), config(algorithm=algorithm, text_encoder=True, seed=5))
    other.load_state(state)
    assert other.state().keys() == state.keys()
    assert all(torch.equal(values, state[name]) for name, values in other.state().items())
    ours, theirs = network.tensors()[0], other.tensors()[0]
    assert all(np.array_equal(values, theirs[name]) for name, values in ours.items())
    next(iter(state.values())).add_(1)  # the state must be copies
    assert not torch.equal(next(iter(network.state().values())), next(iter(state.values())))


def test_state_of_another_network(sdxl_source: Path) -> None:
    _, network = trained(sdxl_source)
    wider = attach(load_base(str(sdxl_source)), config(rank=8))
    before = wider.state()
    assert message_of(TrainError, lambda: wider.load_state(network.state())) == (
        "the saved state is another network's: unet.down_blocks.1.attentions.0.proj_in.lora_A.default.weight and 383 "
        "more parameters differ; resume with the settings of that training"
    )
    assert all((values == before[name]).all() for name, values in wider.state().items())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_first_numbers_depend_on_the_seed_alone(sdxl_source: Path, algorithm: str) -> None:
    import torch

    def first(seed: int, before: int) -> dict[str, torch.Tensor]:
        models = load_base(str(sdxl_source))
        torch.manual_seed(before)
        expected = torch.get_rng_state()
        state = attach(models, config(algorithm=algorithm, seed=seed)).state()
        assert torch.equal(torch.get_rng_state(), expected)
        return state

    one, same, other = first(3, 0), first(3, 1), first(4, 0)
    assert all(torch.equal(values, same[name]) for name, values in one.items())
    assert not all(torch.equal(values, other[name]) for name, values in one.items())


@pytest.mark.parametrize("text", [False, True], ids=["unet", "unet and text encoders"])
@pytest.mark.parametrize(
    ("algorithm", "keys"), [("lora", "kohya"), ("lora", "diffusers"), ("dora", "diffusers"), ("locon", "diffusers")]
)
def test_diffusers_draws_the_same(
    sdxl_source: Path, tmp_path: Path, algorithm: str, keys: str, text: bool, bare: np.ndarray
) -> None:
    """One level: the edge between two, as in tests/engine/test_parity.py."""
    models, network = trained(sdxl_source, algorithm=algorithm, keys=keys, text_encoder=text)
    file = write(tmp_path / "x.safetensors", network, keys)
    expected = draw(pipeline_of(models))
    assert reference.levels_apart(expected, bare) > 5
    assert reference.levels_apart(draw(reference.load(sdxl_source), (file, 1.0)), expected) <= 1


def test_diffusers_draws_the_same_with_sd15(sd15_source: Path, tmp_path: Path) -> None:
    models, network = trained(sd15_source, text_encoder=True, alpha=None)
    assert network.alpha == 2  # half the rank
    file = write(tmp_path / "x.safetensors", network)
    tensors = load_adapter(file).file.tensors
    assert tensors["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"].shape == (4, 32, 1, 1)
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight" in tensors
    pipeline = reference.load(sd15_source)
    pipeline.scheduler = pipeline_of(models).scheduler
    before = draw(pipeline)
    expected = draw(pipeline_of(models))
    assert reference.levels_apart(expected, before) > 5
    assert reference.levels_apart(draw(pipeline, (file, 1.0)), expected) <= 1


def test_a_smaller_model_has_diffusers_names(sdxl_source: Path, tmp_path: Path) -> None:
    """kohya's names for SDXL assume two layers per level; with one they would name another module."""
    import torch

    from lorablend.demo.networks import sdxl_unet

    torch.manual_seed(0)
    unet = sdxl_unet(
        64,
        text_widths=(32, 64),
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=16,
    ).eval()
    loaded = load_base(str(sdxl_source))
    untouched = BaseNetworks(loaded.base, copy.deepcopy(unet), loaded.vae, loaded.text_encoders, loaded.tokenizers)
    models, network = trained(BaseNetworks(loaded.base, unet, loaded.vae, loaded.text_encoders, loaded.tokenizers))
    file = write(tmp_path / "x.safetensors", network)
    adapter = load_adapter(file)
    assert set(adapter.deltas) == set(network.modules)
    assert all(name.startswith(("lora_unet_down_", "lora_unet_mid_", "lora_unet_up_")) for name in adapter.file.tensors)
    pipeline = pipeline_of(untouched)
    before, expected = draw(pipeline), draw(pipeline_of(models))
    assert reference.levels_apart(expected, before) > 5
    assert reference.levels_apart(draw(pipeline, (file, 1.0)), expected) <= 1


def test_kohyas_dora_has_the_shape_of_lycoris(sdxl_source: Path) -> None:
    """diffusers 0.39 ignores every dora_scale; LyCORIS, ComfyUI and A1111 broadcast it over the weight."""
    import torch
    from lycoris.modules.locon import LoConModule

    _, network = trained(sdxl_source, algorithm="dora")
    tensors, _ = network.tensors()
    (_, path), _ = next(iter(network.changes()))
    assert path == "down_blocks.1.attentions.0.proj_in"
    theirs = LoConModule("x", torch.nn.Linear(64, 64), weight_decompose=True).dora_scale
    assert tensors["lora_unet_input_blocks_4_1_proj_in.dora_scale"].shape == tuple(theirs.shape) == (64, 1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_kohya_file_is_what_was_trained(sdxl_source: Path, tmp_path: Path, algorithm: str) -> None:
    """To 1e-5: two f32 sums in different order, and DoRA's change is a difference of weights."""
    _, network = trained(sdxl_source, algorithm=algorithm, text_encoder=True)
    adapter = load_adapter(write(tmp_path / "x.safetensors", network))
    assert adapter.covered == adapter.tensor_count
    assert adapter.base_model == "sdxl"
    for module, (weight, change) in network.changes():
        delta = adapter.deltas[module]
        assert delta.algorithm == ("lora" if algorithm == "locon" else algorithm)
        assert relative(delta.dense(weight), change) <= 1e-5


def test_metadata(sdxl_source: Path) -> None:
    def entries(algorithm: str) -> dict[str, str]:
        return attach(load_base(str(sdxl_source)), config(algorithm=algorithm)).tensors()[1]

    size = {"ss_network_dim": "4", "ss_network_alpha": "6"}
    assert entries("lora") == {"ss_network_module": "networks.lora", **size}
    assert entries("dora") == {
        "ss_network_module": "lycoris.kohya",
        "ss_network_args": '{"algo": "lora", "dora_wd": "True"}',
        **size,
    }
    assert entries("locon")["ss_network_args"] == '{"algo": "locon", "conv_alpha": "6", "conv_dim": "4"}'
    assert entries("lokr")["ss_network_args"] == '{"algo": "lokr", "factor": "8"}'


@pytest.mark.parametrize("algorithm", ["loha", "lokr"])
def test_keys_that_there_are_none_of(algorithm: str) -> None:
    assert message_of(TrainError, lambda: attach(SimpleNamespace(), config(algorithm=algorithm, keys="diffusers"))) == (
        f"keys is diffusers, which has no names for {algorithm}; choose kohya"
    )
