"""Whole pictures compared with diffusers + PEFT, in f32, from the same latents: at most one 8-bit level apart.

One level, because both programs round a float in 0..255 at the end, and their sums differ in the last bits: a value on
the edge between two levels may fall either way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorablend.engine import Pipeline
from tests.engine import reference
from tests.engine.reference import NEGATIVE, PROMPT, levels_apart

BLENDS = {
    "bare": [],
    "kohya, alpha not rank": [("kohya", 1.0)],
    "peft, with text encoders": [("peft", 1.0)],
    "three of both kinds": [("kohya", 0.7), ("peft", -0.4), ("kohya_text", 0.3)],
}


@pytest.fixture(scope="module")
def diffusers_sdxl(sdxl_source: Path) -> Any:
    return reference.load(sdxl_source)


@pytest.fixture(scope="module")
def bare(pipeline: Pipeline, latents: np.ndarray) -> np.ndarray:
    return _draw(pipeline, [], latents, 4)


@pytest.mark.parametrize(("name", "steps"), [*((name, 4) for name in BLENDS), ("bare", 5), ("three of both kinds", 5)])
def test_sdxl(
    name: str,
    steps: int,
    diffusers_sdxl: Any,
    pipeline: Pipeline,
    lora_dir: Path,
    latents: np.ndarray,
    bare: np.ndarray,
) -> None:
    blend = BLENDS[name]
    files = [(lora_dir / f"{adapter}.safetensors", weight) for adapter, weight in blend]
    expected = reference.draw(
        diffusers_sdxl, files, latents, steps=steps, prompt=PROMPT, negative_prompt=NEGATIVE, guidance_scale=5.0
    )
    actual = _draw(pipeline, blend, latents, steps)
    assert levels_apart(actual, expected) <= 1
    if blend and steps == 4:
        assert levels_apart(actual, bare) > 5, "the blend must show, or the comparison proves nothing"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"negative_prompt": None, "guidance_scale": 5.0},
        {"negative_prompt": "", "guidance_scale": 5.0},
        {"negative_prompt": None, "guidance_scale": 1.0},
    ],
    ids=["absent negative", "empty negative", "no guidance"],
)
def test_guidance(kwargs: dict[str, Any], diffusers_sdxl: Any, pipeline: Pipeline, latents: np.ndarray) -> None:
    expected = reference.draw(diffusers_sdxl, [], latents, steps=4, prompt=PROMPT, **kwargs)
    actual = pipeline.generate(PROMPT, latents=latents, steps=4, **kwargs)
    assert levels_apart(np.array(actual.images[0]), expected) <= 1


def test_not_square(diffusers_sdxl: Any, pipeline: Pipeline) -> None:
    """SDXL's time ids are (height, width), as in its training."""
    noise = np.random.default_rng(1).standard_normal((1, 4, 8, 12), dtype=np.float32)
    expected = reference.draw(
        diffusers_sdxl, [], noise, steps=4, prompt=PROMPT, width=96, height=64, guidance_scale=5.0
    )
    actual = pipeline.generate(PROMPT, latents=noise, steps=4, width=96, height=64)
    assert levels_apart(np.array(actual.images[0]), expected) <= 1


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m", "ddim", "unipc"])
def test_schedulers_in_place(scheduler: str, diffusers_sdxl: Any, pipeline: Pipeline, latents: np.ndarray) -> None:
    """Whole pictures with other schedulers; schedulers/test_parity.py compares all of them on their own."""
    import diffusers

    classes = {
        "euler": diffusers.EulerDiscreteScheduler,
        "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
        "ddim": diffusers.DDIMScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
    }
    own = diffusers_sdxl.scheduler
    options = {} if scheduler == "ddim" else {"use_karras_sigmas": True}
    config = {key: value for key, value in own.config.items() if key != "use_karras_sigmas"}
    diffusers_sdxl.scheduler = classes[scheduler].from_config(config | {"clip_sample": False}, **options)
    try:
        expected = reference.draw(diffusers_sdxl, [], latents, steps=5, prompt=PROMPT, guidance_scale=5.0)
    finally:
        diffusers_sdxl.scheduler = own
    spacing = "karras" if options else None
    actual = pipeline.generate(PROMPT, latents=latents, steps=5, scheduler=scheduler, spacing=spacing)
    assert levels_apart(np.array(actual.images[0]), expected) <= 1


def test_image_to_image(diffusers_sdxl: Any, pipeline: Pipeline, latents: np.ndarray) -> None:
    import torch
    from diffusers import StableDiffusionXLImg2ImgPipeline

    picture = _picture()
    img2img = StableDiffusionXLImg2ImgPipeline(**diffusers_sdxl.components)
    img2img.set_progress_bar_config(disable=True)
    # diffusers samples from the encoder's distribution, lorablend takes its mode; so give diffusers the mode.
    start = _encode(diffusers_sdxl, picture)
    with torch.no_grad():
        expected = _with_noise(img2img, latents)(
            prompt=PROMPT, image=start, strength=0.6, num_inference_steps=5, guidance_scale=5.0,
            original_size=(64, 64), target_size=(64, 64),
        ).images[0]  # fmt: skip
    actual = pipeline.generate(PROMPT, image=picture, strength=0.6, steps=5, latents=latents)
    assert levels_apart(np.array(actual.images[0]), np.array(expected)) <= 1


def test_inpainting(diffusers_sdxl: Any, pipeline: Pipeline, latents: np.ndarray) -> None:
    """Inside the mask the picture is diffusers', outside it has the input picture's bytes."""
    import torch
    from diffusers import StableDiffusionXLInpaintPipeline

    picture = _picture()
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 24:64] = 255
    inpaint = StableDiffusionXLInpaintPipeline(**diffusers_sdxl.components)
    inpaint.set_progress_bar_config(disable=True)
    inpaint.vae.encode = _mode_only(inpaint.vae.encode)
    try:
        with torch.no_grad():
            expected = _with_noise(inpaint, latents)(
                prompt=PROMPT, image=picture, mask_image=Image.fromarray(mask), strength=0.8, num_inference_steps=5,
                guidance_scale=5.0, width=64, height=64,
            ).images[0]  # fmt: skip
    finally:
        del inpaint.vae.encode
    actual = pipeline.generate(
        PROMPT, image=picture, mask=Image.fromarray(mask), strength=0.8, steps=5, latents=latents
    )
    inside = mask > 0
    pixels = np.array(actual.images[0])
    assert levels_apart(pixels[inside], np.array(expected)[inside]) <= 1
    assert np.array_equal(pixels[~inside], np.array(picture)[~inside])


def test_sd15(
    sd15_source: Path, sd15_model: Path, make_pipeline: Callable[..., Pipeline], tmp_path: Path, latents: np.ndarray
) -> None:
    """SD 1.5: one text encoder, its last hidden state, 1×1 convolutions in the adapter.

    An adapter on both parts of the picture is the same as the adapter everywhere.
    """
    from diffusers import EulerDiscreteScheduler

    files = [
        reference.save_adapter(
            sd15_source, tmp_path / f"{name}.safetensors", seed=5, rank=4, alpha=2, kohya=kohya, text=True
        )
        for name, kohya in (("one", True), ("two", False))
    ]
    diffusers_sd15 = reference.load(sd15_source)
    diffusers_sd15.scheduler = EulerDiscreteScheduler.from_config(diffusers_sd15.scheduler.config)
    expected = reference.draw(
        diffusers_sd15,
        [(files[0], 0.8), (files[1], -0.5)],
        latents,
        steps=4,
        prompt=PROMPT,
        negative_prompt="cat",
        guidance_scale=5.0,
    )
    pipeline = make_pipeline(sd15_model, lora_dir=tmp_path)
    parts = [{"adapter": "one", "weight": 0.8, "mask": box} for box in ([0, 0, 1, 0.3], [0, 0.3, 1, 1])]
    for blend in ([("one", 0.8), ("two", -0.5)], [*parts, ("two", -0.5)]):
        actual = pipeline.generate(PROMPT, "cat", blend=blend, latents=latents, steps=4, scheduler="euler")
        assert levels_apart(np.array(actual.images[0]), expected) <= 1


def _draw(pipeline: Pipeline, blend: list[tuple[str, float]], latents: np.ndarray, steps: int) -> np.ndarray:
    result = pipeline.generate(PROMPT, NEGATIVE, blend=blend, latents=latents, steps=steps, scheduler="euler")
    return np.array(result.images[0])


def _picture() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)


def _encode(diffusers_pipeline: Any, picture: Image.Image) -> Any:
    import torch

    pixels = torch.from_numpy(np.array(picture, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        vae = diffusers_pipeline.vae
        return vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor


def _mode_only(encode: Any) -> Any:
    def patched(*args: Any, **kwargs: Any) -> Any:
        output = encode(*args, **kwargs)
        output.latent_dist.sample = lambda generator=None: output.latent_dist.mode()
        return output

    return patched


def _with_noise(diffusers_pipeline: Any, latents: np.ndarray) -> Any:
    """The pipeline as a function, with `latents` as its noise."""
    import torch

    def call(**kwargs: Any) -> Any:
        module = __import__(type(diffusers_pipeline).__module__, fromlist=["randn_tensor"])
        original = module.randn_tensor
        module.randn_tensor = lambda *a, **k: torch.from_numpy(latents)
        try:
            return diffusers_pipeline(**kwargs)
        finally:
            module.randn_tensor = original

    return call
