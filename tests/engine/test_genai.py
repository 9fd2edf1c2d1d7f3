"""The genai runtime compared with the live one: the same seed gives the same picture, despite GenAI's differences."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters import Blend, resolve_blend
from lorablend.adapters.errors import (
    AdapterError,
    BaseModelError,
    Cancelled,
    DeviceError,
    LorablendError,
    ModelError,
    RequestError,
)
from lorablend.engine import Pipeline, blend_cache, disk_cache
from lorablend.engine.blend_cache import BlendCache
from lorablend.engine.genai import GenaiRuntime
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.parts import parts_to_bake
from lorablend.engine.request import Inputs, Request, Step
from tests.adapter_files import random_factors, write_kohya
from tests.engine.reference import levels_apart

Make = Callable[..., Pipeline]
BLEND = [("kohya", 0.7), ("peft", -0.4), ("kohya_text", 0.3)]
# Both draw the same latent; one rounds to 8 bits, the other truncates.
APART = 1


@pytest.fixture(scope="module")
def live(pipeline: Pipeline) -> Pipeline:
    return pipeline


@pytest.fixture(scope="module")
def genai(make_pipeline: Make) -> Pipeline:
    return make_pipeline(runtime="genai")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    cells = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((64, 64), Image.Resampling.BICUBIC)


def _draw(pipeline: Pipeline, **settings: Any) -> np.ndarray:
    defaults: dict[str, Any] = {"seed": 3, "steps": 6, "scheduler": "euler"}
    return np.array(pipeline.generate("a fox", **(defaults | settings)).images[0])


def _refusal(error: type[LorablendError], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


# --- the same pictures as the live runtime ---


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "ddim"])
def test_schedulers(live: Pipeline, genai: Pipeline, scheduler: str, spacing: str) -> None:
    settings = {"scheduler": scheduler, "spacing": spacing}
    assert levels_apart(_draw(genai, **settings), _draw(live, **settings)) <= APART


def test_lcm(live: Pipeline, genai: Pipeline) -> None:
    settings = {"scheduler": "lcm", "steps": 4, "guidance_scale": 1.5}
    assert levels_apart(_draw(genai, **settings), _draw(live, **settings)) <= APART


def test_negative_prompts(live: Pipeline, genai: Pipeline) -> None:
    """None means zeros in this model; "" does not."""
    pictures = [_draw(genai, negative_prompt=text) for text in (None, "", "cat")]
    for actual, text in zip(pictures, (None, "", "cat"), strict=True):
        assert levels_apart(actual, _draw(live, negative_prompt=text)) <= APART
    assert levels_apart(pictures[0], pictures[1]) > 5


def test_without_zeros_for_an_empty_prompt(make_pipeline: Make, sdxl_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(sdxl_model, model)
    index = json.loads((model / "model_index.json").read_text()) | {"force_zeros_for_empty_prompt": False}
    (model / "model_index.json").write_text(json.dumps(index))
    pipeline = make_pipeline(model, runtime="genai")
    assert levels_apart(_draw(pipeline), _draw(pipeline, negative_prompt="")) == 0


def test_blend(live: Pipeline, genai: Pipeline) -> None:
    actual, bare = _draw(genai, blend=BLEND), _draw(genai)
    assert levels_apart(actual, _draw(live, blend=BLEND)) <= APART
    assert levels_apart(actual, bare) > 5
    assert levels_apart(bare, _draw(genai, blend=[("kohya", 0.0)])) == 0


@pytest.mark.parametrize(("width", "height", "blend"), [(96, 64, []), (64, 128, BLEND)])
def test_width_and_height_are_not_exchanged(
    genai: Pipeline, live: Pipeline, width: int, height: int, blend: list[tuple[str, float]]
) -> None:
    """GenAI gives SDXL the width in place of the height, which must not show."""
    settings = {"width": width, "height": height, "blend": blend}
    assert levels_apart(_draw(genai, **settings), _draw(live, **settings)) <= APART


def test_no_guidance(genai: Pipeline, live: Pipeline) -> None:
    settings = {"guidance_scale": 1.0, "negative_prompt": "cat"}
    assert levels_apart(_draw(genai, **settings), _draw(live, **settings)) <= APART


def test_sd15(make_pipeline: Make, sd15_model: Path) -> None:
    live, genai = (make_pipeline(sd15_model, runtime=runtime) for runtime in ("live", "genai"))
    for settings in ({}, {"negative_prompt": "cat"}, {"width": 96}):
        assert levels_apart(_draw(genai, **settings), _draw(live, **settings)) <= APART


@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "ddim"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_image_to_image(genai: Pipeline, live: Pipeline, picture: Image.Image, scheduler: str, strength: float) -> None:
    settings = {"image": picture, "strength": strength, "scheduler": scheduler}
    assert levels_apart(_draw(genai, **settings), _draw(live, **settings)) <= APART


def test_mask(genai: Pipeline, live: Pipeline, picture: Image.Image) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 21:] = 255
    settings = {"image": picture, "mask": Image.fromarray(pixels), "strength": 0.6, "steps": 8}
    actual = _draw(genai, **settings)
    np.testing.assert_array_equal(actual[:, :21], np.array(picture)[:, :21])
    assert levels_apart(actual[:, 21:], np.array(picture)[:, 21:]) > 20
    assert levels_apart(actual, _draw(live, **settings)) <= 10  # euler: the border, see engine/genai.py
    assert levels_apart(_draw(genai, **settings, scheduler="ddim"), _draw(live, **settings, scheduler="ddim")) <= 2


def test_a_picture_is_the_same_in_every_batch(genai: Pipeline, latents: np.ndarray) -> None:
    result = genai.generate("a fox", seed=3, steps=4, scheduler="euler_a", batch=2)
    assert result.seeds == [3, 4]
    for image, seed in zip(result.images, result.seeds, strict=True):
        np.testing.assert_array_equal(np.array(image), _draw(genai, seed=seed, steps=4, scheduler="euler_a"))
    pair = np.concatenate([latents, -latents])
    images = genai.generate("a fox", seed=3, steps=4, scheduler="euler", batch=2, latents=pair).images
    np.testing.assert_array_equal(np.array(images[1]), _draw(genai, steps=4, latents=-latents))


def test_long_prompts(live: Pipeline, genai: Pipeline) -> None:
    """GenAI takes one chunk: the rest is left out, and said."""
    texts = ("the fox " * 50).strip(), ("the cat " * 40).strip()
    settings: dict[str, Any] = {"seed": 3, "steps": 4, "scheduler": "euler"}
    actual = genai.generate(*texts, **settings)
    kept = []
    for text, warning, name in zip(texts, actual.warnings, ("prompt", "negative prompt"), strict=True):
        start, cut = warning.split("left out: ")
        assert start == f"the {name} is too long for the model; "
        assert text.endswith(cut)
        kept.append(text.removesuffix(cut))
    expected = live.generate(*kept, **settings)
    assert levels_apart(np.array(actual.images[0]), np.array(expected.images[0])) <= APART


# --- callbacks ---


@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "lcm"])
def test_steps(live: Pipeline, genai: Pipeline, scheduler: str) -> None:
    def steps(pipeline: Pipeline) -> list[Step]:
        seen: list[Step] = []
        pipeline.generate("a fox", seed=3, steps=4, scheduler=scheduler, batch=2, callback=seen.append)
        return seen

    actual, expected = steps(genai), steps(live)
    assert [(s.index, s.steps, s.picture, s.pictures) for s in actual] == [
        (index, 4, picture, 2) for picture in range(2) for index in range(4)
    ]
    for one, other in zip(actual, expected, strict=True):
        assert one.sigma == pytest.approx(other.sigma)
        assert one.latent.shape == (1, 4, 8, 8)
        np.testing.assert_allclose(one.latent, other.latent, atol=1e-3)
        assert one.preview().size == other.preview().size


def test_cancel(genai: Pipeline) -> None:
    message = _refusal(
        Cancelled, lambda: genai.generate("a fox", steps=6, batch=2, callback=lambda step: step.index < 2)
    )
    assert message == "stopped after step 3 of 6, picture 1 of 2"
    assert _draw(genai).any()


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_a_callback_that_raises(genai: Pipeline, error: BaseException) -> None:
    def fail(_: Step) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        _draw(genai, callback=fail)
    assert caught.value is error


# --- refusals ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"scheduler": "tcd"},
            "runtime=genai has no scheduler tcd: choose one of euler, euler_a, ddim, lcm, or runtime=live",
        ),
        (
            {"spacing": "karras"},
            "runtime=genai has no spacing karras: choose one of leading, trailing, linspace, or runtime=live",
        ),
        (
            {"scheduler": "lcm", "image": Image.new("RGB", (64, 64)), "strength": 0.5},
            "runtime=genai cannot run lcm with strength 0.5: choose strength 1, euler, or runtime=live",
        ),
    ],
)
def test_refuses_requests(genai: Pipeline, settings: dict[str, Any], message: str) -> None:
    assert _refusal(RequestError, lambda: _draw(genai, **settings)) == message


@pytest.mark.parametrize(
    ("config", "scheduler", "message"),
    [
        (
            {"prediction_type": "v_prediction"},
            "lcm",
            "runtime=genai cannot run lcm with v_prediction: choose euler, or runtime=live",
        ),
        (
            {"clip_sample": True},
            "ddim",
            "openvino_genai: Parameter 'clip_sample' is not supported. Please, add support; choose runtime=live",
        ),
    ],
)
def test_refuses_scheduler_configs(
    make_pipeline: Make, sdxl_model: Path, tmp_path: Path, config: dict[str, Any], scheduler: str, message: str
) -> None:
    shutil.copytree(sdxl_model, tmp_path / "model")
    file = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    pipeline = make_pipeline(tmp_path / "model", runtime="genai")
    assert _refusal(RequestError, lambda: _draw(pipeline, scheduler=scheduler)) == message


def test_a_model_that_genai_cannot_read(make_pipeline: Make, sdxl_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(sdxl_model, model)
    (model / "vae_decoder" / "openvino_model.xml").write_text("<net/>")
    message = _refusal(ModelError, lambda: _draw(make_pipeline(model, runtime="genai")))
    assert message.startswith(f"openvino_genai cannot read {model}: ")
    assert message.endswith("; choose runtime=live")
    assert "\n" not in message


def test_refuses_adapters(genai: Pipeline, tmp_path: Path) -> None:
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    wide = write_kohya(tmp_path / "wide.safetensors", random_factors({("unet", path): (1280, 1280)}))
    for weight in (1, 0):  # an adapter that does not fit is refused at weight 0 too
        message = _refusal(AdapterError, lambda weight=weight: _draw(genai, blend=[(wide, weight)]))
        assert message.startswith(f"wide changes unet {path} of shape 1280×1280, the model's is 128×128")
    sd15 = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    old = write_kohya(tmp_path / "old.safetensors", random_factors({sd15: (320, 768)}), base="sd15")
    assert _refusal(BaseModelError, lambda: _draw(genai, blend=[(old, 1)])).startswith("old is for sd15")


def test_no_vae_encoder(make_pipeline: Make, sdxl_model: Path, tmp_path: Path, picture: Image.Image) -> None:
    shutil.copytree(sdxl_model, tmp_path / "model", ignore=shutil.ignore_patterns("vae_encoder"))
    pipeline = make_pipeline(tmp_path / "model", runtime="genai")
    assert "has no vae_encoder" in _refusal(ModelError, lambda: _draw(pipeline, image=picture))


def test_a_device_that_fails(sdxl_model: Path, tmp_path: Path) -> None:
    runtime = GenaiRuntime(ModelFolder(sdxl_model), "NPU", None, tmp_path)
    request = Request(
        prompt="a fox", negative_prompt=None, blend={}, width=64, height=64, steps=2, guidance_scale=5.0, seed=1,
        scheduler="euler", spacing="leading", batch=1, strength=None,
    )  # fmt: skip
    message = _refusal(DeviceError, lambda: runtime.generate(request, Blend(), Inputs(), None))
    assert message.startswith(f"device NPU cannot run {sdxl_model}: ")
    assert message.endswith("; this machine has CPU")
    assert "\n" not in message


# --- the cache ---


@pytest.fixture
def cache(tmp_path: Path) -> BlendCache:
    return BlendCache(tmp_path / "cache")


def _folder(cache: BlendCache, model: ModelFolder, blend: Blend, **kwargs: bool) -> tuple[Path, Path]:
    return cache.folder(model, blend, parts_to_bake(blend, model.parameters, None), **kwargs)


def test_a_blend_is_baked_once(
    cache: BlendCache, sdxl_model: Path, lora_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, blend = ModelFolder(sdxl_model), resolve_blend(BLEND, lora_dir)
    folder, compiled = _folder(cache, model, blend)
    assert ModelFolder(folder).family == "sdxl"
    assert compiled.parent == folder.parent
    with monkeypatch.context() as patch:
        patch.setattr(blend_cache, "write_model", None)
        assert _folder(cache, model, blend)[0] == folder
        assert _folder(cache, model, Blend(blend.items[::-1]))[0] == folder
        assert (
            _folder(cache, model, Blend())[0]
            == _folder(cache, model, resolve_blend([("peft", 0)], lora_dir))[0]
            == sdxl_model
        )
    other = resolve_blend([("kohya", 0.71), *BLEND[1:]], lora_dir)
    others = {_folder(cache, model, other)[0], _folder(cache, model, blend, turned=True)[0], folder}
    assert len(others) == 3


def test_a_changed_model_is_another_one(cache: BlendCache, sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(sdxl_model, tmp_path / "model")
    blend = resolve_blend(BLEND, lora_dir)
    before = _folder(cache, ModelFolder(tmp_path / "model"), blend)
    os.utime(tmp_path / "model" / "unet" / "openvino_model.bin", (1, 1))
    assert _folder(cache, ModelFolder(tmp_path / "model"), blend) != before


def test_the_oldest_makes_room(
    cache: BlendCache, sdxl_model: Path, lora_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two blends, the third removes the one used longest ago."""
    model = ModelFolder(sdxl_model)
    blends = [resolve_blend([("kohya", weight)], lora_dir) for weight in (1, 2, 3)]
    entries = []
    for age, blend in enumerate(blends[:2]):
        entries.append(_folder(cache, model, blend)[0].parent)
        os.utime(entries[-1], (1000 + age, 1000 + age))
    size = (entries[0] / "model" / "unet" / "openvino_model.bin").stat().st_size
    _folder(cache, model, blends[0])  # now the second is the oldest
    usage = namedtuple("usage", "total used free")(10**12, 10**12, 3 * size)
    monkeypatch.setattr(disk_cache.shutil, "disk_usage", lambda _: usage)
    _folder(cache, model, Blend())
    assert all(entry.exists() for entry in entries), "two used, five in all, half of that allowed"
    monkeypatch.setattr(disk_cache.shutil, "disk_usage", lambda _: usage._replace(free=size))
    _folder(cache, model, Blend())
    assert [entry.exists() for entry in entries] == [True, False]
