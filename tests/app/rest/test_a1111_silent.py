"""A1111's clients: what asks for nothing is no mistake, what changes nothing is named, and what they ask first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.app.rest.rest_server import Running, running
from tests.app.rest.test_a1111 import GREY, SDWEBUIAPI, picture, post


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data"), sdxl_model, lora_dir) as server:
        yield server


def test_what_is_switched_off_is_no_mistake(server: Running) -> None:
    """Scripts that are off or empty, and every word by which a client says that it asks for nothing."""
    units = [
        {"enabled": False, "module": "canny"},
        {"enabled": "False", "module": "canny", "model": "canny [1]"},
        {"module": "none", "model": "None", "image": None},
        {"model": None, "module": ""},
        {},
    ]
    scripts = {
        "controlnet": {"args": units},
        "ADetailer": {"args": [True, False, {"ad_model": "None"}]},
        "adetailer": {"args": [False, False, {"ad_model": "face.pt"}]},
        "Soft Inpainting": {"args": [{"Soft inpainting": False, "Schedule bias": 1}]},
        "Refiner": {"args": [{"checkpoint": "None", "switch": 0.8}]},
        "ControlNet": {"args": [{"model": "canny [1]", "module": "none", "weight": 0}]},
        "Dynamic Prompts": {"args": [False]},
        "empty": {"args": []},
        "other": [],
    }
    words = {
        "styles": ["None", "", "none"],
        "refiner_checkpoint": "none",
        "script_name": "none",
        "sampler_name": "None",
        "scheduler": "none",
        "override_settings": {"sd_model_checkpoint": "None", "sd_vae": "None"},
    }
    answer = post(server, "txt2img", {**SDWEBUIAPI, **words, "alwayson_scripts": scripts, "steps": 1})
    assert json.loads(answer["info"])["warnings"] == []


@pytest.mark.parametrize(
    ("fields", "warnings"),
    [
        ({"alwayson_scripts": {"Tiled VAE": {"args": ["False", 960]}}},
         ["always on script 'Tiled VAE' is taken as off: its first argument is false"]),
        ({"alwayson_scripts": [], "override_settings": []}, []),
        ({"distilled_cfg_scale": 3.5, "hr_cfg": 0, "mine": None}, ["not known here: distilled_cfg_scale"]),
    ],
)  # fmt: skip
def test_what_changes_nothing_is_named(server: Running, fields: dict[str, Any], warnings: list[str]) -> None:
    answer = post(server, "txt2img", {**SDWEBUIAPI, **fields, "steps": 1})
    assert json.loads(answer["info"])["warnings"] == warnings
    assert not {"distilled_cfg_scale", "hr_cfg", "mine"} & answer["parameters"].keys()


def test_a_mask_in_the_alpha_channel(server: Running) -> None:
    """A1111 takes the alpha, whatever colour is under it; without any, the brightness."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    clear, white = np.zeros((64, 64, 4), np.uint8), np.full((64, 64, 4), 255, np.uint8)
    clear[..., 3], white[..., :3] = mask, mask[..., None]
    body = {**SDWEBUIAPI, "init_images": [GREY], "denoising_strength": 1.0, "steps": 1}
    drawn = [post(server, "img2img", {**body, "mask": picture(one)})["images"] for one in (mask, clear, white)]
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.mark.parametrize("path", ["/internal/ping", "/queue/status", "/sdapi/v1/options"])
def test_clients_that_ask_for_the_head_alone(server: Running, path: str) -> None:
    answer = server.http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/queue/status", "queue_size"),  # cyanic-sd-krita
        ("/internal/ping", None),
        ("/internal/sysinfo", "Version"),
        ("/sdapi/v1/options", "sd_model_checkpoint"),  # SillyTavern
        ("/sdapi/v1/extensions", None),
        ("/sdapi/v1/face-restorers", None),
        ("/sdapi/v1/hypernetworks", None),
        ("/sdapi/v1/progress?skip_current_image=true", "progress"),
    ],
)
def test_what_clients_ask_first(server: Running, path: str, key: str | None) -> None:
    answer = server.http.get(path)
    assert answer.status_code == 200
    assert key is None or key in answer.json()
