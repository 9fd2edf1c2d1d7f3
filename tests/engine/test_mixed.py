"""Blends of which one part is plugged in and the other is baked, and when they are compiled again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lorablend.adapters import Blend, BlendItem, BlockWeights, Mask, load_adapter
from lorablend.adapters.errors import BlendError, ModelError
from lorablend.engine import Pipeline, blend_cache
from lorablend.engine.parts import content_of, parts_to_bake
from tests.adapter_files import random_factors, write_kohya
from tests.adapters.references import lycoris_file, peft_file
from tests.engine import reference
from tests.engine.reference import STEPS

SETTINGS: dict[str, Any] = {"guidance_scale": 4.0}
TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def files(sdxl_source: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """kohya is a LoRA, full a LoKr with a full w2, to be baked, dora has gates. All change the UNet's attention."""
    import peft

    folder = tmp_path_factory.mktemp("mixed")
    unet = reference.load(sdxl_source).unet
    full, _, _ = lycoris_file(
        folder / "full.safetensors", unet, deviation=0.05, algo="lokr", linear_dim=10000, factor=4
    )
    config = peft.LoraConfig(target_modules=reference.UNET_TARGETS, r=4, lora_alpha=8, use_dora=True)
    dora, _, _ = peft_file(folder, reference.load(sdxl_source).unet, config, deviation=0.1, only="lora_")
    dora = dora.rename(folder / "dora.safetensors")  # its configuration gives it only the alpha
    return {"kohya": lora_dir / "kohya.safetensors", "full": full, "dora": dora}


@pytest.fixture(scope="module")
def live(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline()


def _draw(pipeline: Pipeline, blend: Any, latents: np.ndarray, **kwargs: Any) -> np.ndarray:
    settings = {"latents": latents, "steps": STEPS, "seed": 0, **SETTINGS, **kwargs}
    return np.array(pipeline.generate(reference.PROMPT, reference.NEGATIVE, blend=blend, **settings).images[0])


def _merged(source: Path, files: dict[str, Path], weights: dict[str, float], latents: np.ndarray) -> np.ndarray:
    """diffusers' picture with W + Σ weight · ΔW in its UNet, each ΔW computed from the original W.

    The dense deltas are compared with LyCORIS and PEFT in tests/adapters, and one at a time in test_algorithms.
    """
    import torch

    pipeline = reference.load(source)
    layers = dict(pipeline.unet.named_modules())
    changes: dict[str, np.ndarray] = {}
    for name, weight in weights.items():
        for (component, path), delta in load_adapter(files[name]).deltas.items():
            assert component == "unet"
            base = layers[path].weight.detach().numpy()
            changes[path] = changes.get(path, 0) + weight * delta.dense(base)
    for path, change in changes.items():
        layers[path].weight.data += torch.from_numpy(change)
    return reference.draw(
        pipeline, [], latents, steps=STEPS, prompt=reference.PROMPT, negative_prompt=reference.NEGATIVE, **SETTINGS
    )


@pytest.mark.parametrize(
    "weights",
    [
        {"kohya": 0.8, "full": 0.6},
        {"kohya": -0.5, "dora": 0.7},
        {"kohya": 0.4, "full": 0.6, "dora": 0.7},  # a gate meets a baked change on the same modules
    ],
    ids=lambda weights: " + ".join(weights),
)
def test_mixed(
    live: Pipeline, sdxl_source: Path, files: dict[str, Path], latents: np.ndarray, weights: dict[str, float]
) -> None:
    actual = _draw(live, [(files[name], weight) for name, weight in weights.items()], latents)
    assert reference.levels_apart(actual, _merged(sdxl_source, files, weights, latents)) <= 1


def test_only_what_is_baked_is_baked_again(
    live: Pipeline, files: dict[str, Path], latents: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    baked = []
    write = blend_cache.write_model
    monkeypatch.setattr(blend_cache, "write_model", lambda *args, **kwargs: (baked.append(1), write(*args, **kwargs)))
    first = _draw(live, [(files["kohya"], 0.8), (files["full"], 0.61)], latents)
    unet = live._runtime._unet  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    other = _draw(live, [(files["kohya"], -0.3), (files["full"], 0.61)], latents)
    assert live._runtime._unet is unet, "another weight of the live part"  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    assert len(baked) == 1
    assert not np.array_equal(first, other)
    _draw(live, [(files["full"], 0.71)], latents)
    assert len(baked) == 2
    assert np.array_equal(_draw(live, [(files["kohya"], 0.8), (files["full"], 0.61)], latents), first)
    assert len(baked) == 2, "kept on disk by its content"


def test_says_what_is_baked(live: Pipeline, files: dict[str, Path], latents: np.ndarray) -> None:
    result = live.generate(reference.PROMPT, blend=[(files["full"], 1)], latents=latents, steps=1, seed=0)
    count = len(load_adapter(files["full"]).deltas)
    assert result.warnings == (f"baked, because no socket can hold them: {count} changes of full",)


def test_a_mask_for_what_has_to_be_baked(live: Pipeline, files: dict[str, Path], latents: np.ndarray) -> None:
    blend = Blend((BlendItem(load_adapter(files["full"]), mask=Mask(box=(0, 0, 0.5, 1))),))
    with pytest.raises(BlendError) as caught:
        _draw(live, blend, latents)
    assert str(caught.value) == (
        "full has changes that can only be baked into the model's weights, so it cannot have a schedule, a mask or a "
        "turn; leave those out"
    )


def test_gates_in_text_encoders(live: Pipeline, sdxl_source: Path, tmp_path: Path, latents: np.ndarray) -> None:
    """DoRA on both text encoders and the UNet, made by PEFT and saved by diffusers.

    diffusers does not load the file again, because it would give the text encoders new weights (diffusers 0.39 with
    transformers 5).
    """
    pipeline, file = reference.load(sdxl_source), tmp_path / "dora.safetensors"
    settings = {"seed": 5, "rank": 4, "alpha": 4, "kohya": False, "text": True, "use_dora": True}
    reference.save_adapter(sdxl_source, file, pipeline=pipeline, **settings)
    assert {component for component, _ in load_adapter(file).deltas} == {"unet", "text_encoder", "text_encoder_2"}
    kwargs = {"prompt": reference.PROMPT, "negative_prompt": reference.NEGATIVE, **SETTINGS}
    expected = reference.draw(pipeline, [], latents, steps=STEPS, **kwargs)
    assert reference.levels_apart(_draw(live, [(file, 1.0)], latents), expected) <= 1


def test_gates_in_two_parts_of_the_picture(live: Pipeline, files: dict[str, Path], latents: np.ndarray) -> None:
    """An adapter on the left and on the right is the same as the adapter everywhere."""
    dora = load_adapter(files["dora"])
    sides = [Mask(box=(0, 0, 0.4, 1)), Mask(box=(0.4, 0, 1, 1))]
    parts = _draw(live, Blend(tuple(BlendItem(dora, 0.7, mask=side) for side in sides)), latents)
    assert reference.levels_apart(parts, _draw(live, [(dora, 0.7)], latents)) <= 1


def test_blocks_have_weights_of_their_own(
    live: Pipeline, sdxl_source: Path, files: dict[str, Path], latents: np.ndarray
) -> None:
    """Compared with PEFT's scale of each block, as diffusers sets it."""
    import torch

    pipeline = reference.load(sdxl_source)
    pipeline.load_lora_weights(files["kohya"].parent, weight_name=files["kohya"].name, adapter_name="a")
    pipeline.set_adapters("a", {"unet": {"down": 0.5, "mid": 0.0, "up": {"block_0": 1.2, "block_1": -0.4}}})
    with torch.no_grad():
        result = pipeline(
            reference.PROMPT,
            negative_prompt=reference.NEGATIVE,
            latents=torch.from_numpy(latents),
            num_inference_steps=STEPS,
            **SETTINGS,
        )
    blocks = BlockWeights.from_json({"down_blocks": 0.5, "mid_block": 0, "up_blocks.0": 1.2, "up_blocks.1": -0.4})
    actual = _draw(live, Blend((BlendItem(load_adapter(files["kohya"]), blocks=blocks),)), latents)
    assert reference.levels_apart(actual, np.array(result.images[0])) <= 1


def test_max_rank(
    make_pipeline: Callable[..., Pipeline], sdxl_source: Path, files: dict[str, Path], latents: np.ndarray
) -> None:
    """The error is that of the dense sum's truncated singular value decomposition; a sufficient rank is exact."""
    adapter, other = load_adapter(files["kohya"]), load_adapter(files["kohya"].with_name("kohya_text.safetensors"))
    blend = [(adapter, 0.8), (other, -0.6)]
    low = make_pipeline(max_rank=6).generate(
        reference.PROMPT, reference.NEGATIVE, blend=blend, latents=latents, steps=STEPS, seed=0, **SETTINGS
    )
    weight = np.zeros((128, 128), np.float32)
    one, two = (a.deltas["unet", TO_Q].dense(weight) for a in (adapter, other))
    values = np.linalg.svd(0.8 * one - 0.6 * two, compute_uv=False)
    expected = np.sqrt((values[6:] ** 2).sum() / (values**2).sum())
    assert low.rank_errors[TO_Q] == pytest.approx(expected, rel=1e-4)
    assert len(low.rank_errors) == sum(component == "unet" for component, _ in other.deltas)
    exact, enough = _draw(make_pipeline(), blend, latents), _draw(make_pipeline(max_rank=9), blend, latents)
    assert reference.levels_apart(exact, enough) <= 1
    assert reference.levels_apart(exact, np.array(low.images[0])) > 1


def test_max_rank_of_adapters_in_turn(
    make_pipeline: Callable[..., Pipeline], files: dict[str, Path], latents: np.ndarray
) -> None:
    """The first adapter's error is still reported when the last one fits."""
    pipeline = make_pipeline(max_rank=4)
    wide, fits = (load_adapter(files["kohya"].with_name(f"{name}.safetensors")) for name in ("kohya_text", "peft"))
    settings = {"latents": latents, "steps": 2, "guidance_scale": 1}
    alone = pipeline.generate(reference.PROMPT, blend=[(wide, 0.8)], **settings).rank_errors
    assert alone
    turns = Blend((BlendItem(wide, 0.8), BlendItem(fits, 0.5)), "switch")
    assert pipeline.generate(reference.PROMPT, blend=turns, **settings).rank_errors == alone


def test_a_layer_without_a_socket(
    make_pipeline: Callable[..., Pipeline], sdxl_model: Path, tmp_path: Path, latents: np.ndarray
) -> None:
    """A dilation, which no layer of SD has, and which has no effect on a 1×1 kernel."""
    shutil.copytree(sdxl_model, tmp_path / "model")
    xml, path = tmp_path / "model" / "unet" / "openvino_model.xml", "down_blocks.1.resnets.0.conv_shortcut"
    before, name, after = xml.read_text().partition(f'{path}/aten::_convolution/Convolution"')
    xml.write_text(before + name + after.replace('dilations="1, 1"', 'dilations="2, 2"', 1))
    adapter = write_kohya(tmp_path / "style.safetensors", random_factors({("unet", path): (64, 32, 1, 1)}))
    pipeline = make_pipeline(tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        _draw(pipeline, [(adapter, 1.0)], latents)
    assert str(caught.value) == (
        f"style changes {path}, which in {tmp_path / 'model'} is not a layer that an adapter can be plugged into; "
        "use runtime=genai"
    )
    _draw(pipeline, [(adapter, 0.0)], latents, steps=1)


def test_peft_settings_are_part_of_what_is_baked(files: dict[str, Path], tmp_path: Path) -> None:
    """The same tensors with another alpha in the settings file are another change."""
    source = files["kohya"].with_name("peft.safetensors")
    tensors, contents = load_file(source), []
    for alpha in (4, 8, None):
        folder = tmp_path / str(alpha)
        folder.mkdir()
        save_file(tensors, folder / "adapter_model.safetensors")
        if alpha is not None:
            (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        blend = Blend((BlendItem(load_adapter(folder / "adapter_model.safetensors")),))
        shapes = {(component, f"{path}.weight"): (1, 1) for component, path in blend.items[0].adapter.deltas}
        contents.append(content_of(parts_to_bake(blend, shapes, None)))
    assert len(set(contents)) == 3
