"""Each field of A1111's request models: changed alone, it changes the reply's pictures, is refused, or is named.

The fields are those of A1111 1.10.1: the arguments of StableDiffusionProcessingTxt2Img and -Img2Img in
modules/processing.py, without what modules/api/models.py takes out, and with what it adds.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorablend.app.pictures.png import encode
from tests.app.rest.rest_server import FAST, Running, running

# Common to both.
_PROCESSING = [
    "prompt",
    "negative_prompt",
    "styles",
    "seed",
    "subseed",
    "subseed_strength",
    "seed_resize_from_h",
    "seed_resize_from_w",
    "sampler_name",
    "scheduler",
    "batch_size",
    "n_iter",
    "steps",
    "cfg_scale",
    "width",
    "height",
    "restore_faces",
    "tiling",
    "do_not_save_samples",
    "do_not_save_grid",
    "eta",
    "denoising_strength",
    "s_min_uncond",
    "s_churn",
    "s_tmax",
    "s_tmin",
    "s_noise",
    "override_settings",
    "override_settings_restore_afterwards",
    "refiner_checkpoint",
    "refiner_switch_at",
    "disable_extra_networks",
    "comments",
    "force_task_id",
    "sampler_index",
    "script_name",
    "script_args",
    "send_images",
    "save_images",
    "alwayson_scripts",
    "infotext",
]
_TXT2IMG = [
    "enable_hr",
    "firstphase_width",
    "firstphase_height",
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
]
_IMG2IMG = [
    "init_images",
    "resize_mode",
    "image_cfg_scale",
    "mask",
    "mask_blur_x",
    "mask_blur_y",
    "mask_blur",
    "mask_round",
    "inpainting_fill",
    "inpaint_full_res",
    "inpaint_full_res_padding",
    "inpainting_mask_invert",
    "initial_noise_multiplier",
    "latent_mask",
    "include_init_images",
]


def sent(pixels: np.ndarray) -> str:
    return base64.b64encode(encode(Image.fromarray(pixels), "png", {})).decode()


def pixels(reply: dict[str, Any]) -> list[bytes]:
    """Of the pictures alone: the settings in the files may differ."""
    return [Image.open(io.BytesIO(base64.b64decode(text))).tobytes() for text in reply["images"]]


_GREY = np.full((64, 96, 3), 120, np.uint8)
_MASK = np.zeros((64, 96), np.uint8)
_MASK[16:48, 32:64] = 255
_TEXT: dict[str, Any] = {"prompt": "a fox <lora:ink:0.8>", "seed": 7, **FAST}
_IMAGE: dict[str, Any] = {
    **_TEXT,
    "steps": 4,
    "init_images": [sent(_GREY)],
    "mask": sent(_MASK),
    "inpainting_fill": 1,
    "inpaint_full_res": False,
}
# The value of each field, and the verdict: "drawn" for other pictures, a status, or "named" in a warning.
_BOTH: dict[str, tuple[Any, str | int]] = {
    "prompt": ("a hen", "drawn"),
    "negative_prompt": ("grass", "drawn"),
    "styles": (["Pirate"], "named"),
    "seed": (8, "drawn"),
    "subseed": (3, "named"),
    "subseed_strength": (0.5, 400),
    "seed_resize_from_h": (128, 400),
    "seed_resize_from_w": (128, 400),
    "sampler_name": ("Euler a", "drawn"),
    "scheduler": ("SGM Uniform", "drawn"),
    "batch_size": (2, "drawn"),
    "n_iter": (2, "drawn"),
    "steps": (3, "drawn"),
    "cfg_scale": (3.0, "drawn"),
    "width": (128, "drawn"),
    "height": (128, "drawn"),
    "restore_faces": (True, 400),
    "tiling": (True, 400),
    "do_not_save_samples": (True, "named"),
    "do_not_save_grid": (True, "named"),
    "eta": (0.5, "named"),
    "s_min_uncond": (0.5, "named"),
    "s_churn": (0.5, "named"),
    "s_tmax": (0.5, "named"),
    "s_tmin": (0.5, "named"),
    "s_noise": (0.5, "named"),
    "override_settings": ({"eta_noise_seed_delta": 31337}, "named"),
    "override_settings_restore_afterwards": (False, "named"),
    "refiner_checkpoint": ("refiner", 400),
    "refiner_switch_at": (0.8, "named"),
    "disable_extra_networks": (True, "named"),
    "comments": ({"a": 1}, "named"),
    "force_task_id": ("mine", "named"),
    "sampler_index": ("Euler a", "drawn"),
    "script_name": ("x/y/z plot", 422),
    "script_args": ([1], "named"),
    "send_images": (False, "drawn"),
    "save_images": (True, "named"),
    "alwayson_scripts": ({"refiner": {"args": [True]}}, 422),
    "infotext": ("a hen\nSteps: 3", "named"),
}
_OF_TEXT: dict[str, tuple[Any, str | int]] = {
    **_BOTH,
    "denoising_strength": (0.4, "named"),
    "enable_hr": (True, 400),
    "firstphase_width": (64, "named"),
    "firstphase_height": (64, "named"),
    "hr_scale": (1.5, "named"),
    "hr_upscaler": ("Lanczos", "named"),
    "hr_second_pass_steps": (3, "named"),
    "hr_resize_x": (128, "named"),
    "hr_resize_y": (128, "named"),
    "hr_checkpoint_name": ("other", "named"),
    "hr_sampler_name": ("Euler a", "named"),
    "hr_scheduler": ("Karras", "named"),
    "hr_prompt": ("a hen", "named"),
    "hr_negative_prompt": ("grass", "named"),
}
_OF_IMAGE: dict[str, tuple[Any, str | int]] = {
    **_BOTH,
    "denoising_strength": (1.0, "drawn"),
    "init_images": ([sent(_GREY // 2)], "drawn"),
    "resize_mode": (1, "drawn"),
    "image_cfg_scale": (2.5, "named"),
    "mask": (None, "drawn"),
    "mask_blur_x": (9, "drawn"),
    "mask_blur_y": (9, "drawn"),
    "mask_blur": (9, "drawn"),
    "mask_round": (False, "named"),
    "inpainting_fill": (2, "named"),
    "inpaint_full_res": (True, "named"),
    "inpaint_full_res_padding": (32, "named"),
    "inpainting_mask_invert": (1, "drawn"),
    "initial_noise_multiplier": (0.9, "named"),
    "latent_mask": (sent(_MASK), "named"),
    "include_init_images": (True, "drawn"),
}
_CASES = [("txt2img", name, *verdict) for name, verdict in _OF_TEXT.items()]
_CASES += [("img2img", name, *verdict) for name, verdict in _OF_IMAGE.items()]


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data"), sdxl_model, lora_dir) as server:
        yield server


@pytest.fixture(scope="module")
def plain(server: Running) -> dict[str, Any]:
    """The replies to the requests that the cases change."""
    bodies = {"txt2img": _TEXT, "img2img": _IMAGE}
    return {path: server.http.post(f"/sdapi/v1/{path}", json=body).json() for path, body in bodies.items()}


def test_every_field_has_a_verdict() -> None:
    assert _OF_TEXT.keys() == {*_PROCESSING, *_TXT2IMG}
    assert _OF_IMAGE.keys() == {*_PROCESSING, *_IMG2IMG}


def test_the_requests_without_a_change_are_drawn_without_a_warning(plain: dict[str, Any]) -> None:
    assert [json.loads(reply["info"])["warnings"] for reply in plain.values()] == [[], []]


@pytest.mark.parametrize(("path", "name", "value", "verdict"), _CASES, ids=[f"{c[0]}-{c[1]}" for c in _CASES])
def test_a_field_changed_alone(
    server: Running, plain: dict[str, Any], path: str, name: str, value: Any, verdict: str | int
) -> None:
    body = _TEXT if path == "txt2img" else _IMAGE
    answer = server.http.post(f"/sdapi/v1/{path}", json={**body, name: value})
    if isinstance(verdict, int):
        assert answer.status_code == verdict, answer.text
        assert name in answer.json()["detail"] or "script" in answer.json()["detail"]
        return
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    if verdict == "named":
        assert any(name in line for line in json.loads(reply["info"])["warnings"])
        if name != "disable_extra_networks":
            assert pixels(reply) == pixels(plain[path])
    elif name == "include_init_images":
        assert reply["parameters"]["init_images"] == body["init_images"]
        assert plain[path]["parameters"].get("init_images") is None
    else:
        assert pixels(reply) != pixels(plain[path])


def test_what_stands_for_the_default_is_not_named(server: Running) -> None:
    """Null everywhere, and the values of A1111's own page."""
    page = {"hr_upscaler": "Latent", "hr_sampler_name": "Use same sampler", "s_noise": 1, "styles": ["None"]}
    for fields in (dict.fromkeys({*_PROCESSING, *_TXT2IMG} - _TEXT.keys()), page):
        answer = server.http.post("/sdapi/v1/txt2img", json={**_TEXT, **fields})
        assert json.loads(answer.json()["info"])["warnings"] == []
