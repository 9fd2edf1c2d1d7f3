"""A1111's API with the bodies that its clients really send, and read as they read."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lorablend.app.pictures.png import encode, texts_of
from lorablend.app.pictures.record import Record
from tests.app.rest.rest_server import FAST, Running, running

# What `webuiapi.WebUIApi.txt2img` sends, every field of it.
SDWEBUIAPI: dict[str, Any] = {
    "enable_hr": False,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 0,
    "hr_checkpoint_name": None,
    "hr_sampler_name": None,
    "hr_scheduler": None,
    "hr_prompt": "",
    "hr_negative_prompt": "",
    "denoising_strength": 0.7,
    "firstphase_width": 0,
    "firstphase_height": 0,
    "prompt": "a fox",
    "styles": [],
    "seed": 7,
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": 0,
    "seed_resize_from_w": 0,
    "batch_size": 1,
    "n_iter": 1,
    "steps": 2,
    "cfg_scale": 7.0,
    "width": 64,
    "height": 64,
    "restore_faces": False,
    "tiling": False,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "negative_prompt": "",
    "eta": 1.0,
    "s_churn": 0,
    "s_tmax": 0,
    "s_tmin": 0,
    "s_noise": 1,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "sampler_name": None,
    "scheduler": None,
    "sampler_index": None,
    "refiner_checkpoint": None,
    "refiner_switch_at": None,
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
}
SILLYTAVERN: dict[str, Any] = {
    "prompt": "best quality, a fox",
    "negative_prompt": "lowres",
    "sampler_name": "DPM++ 2M",
    "scheduler": "Karras",
    "steps": 2,
    "cfg_scale": 7,
    "width": 64,
    "height": 64,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 1,
    "hr_additional_steps": 0,
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "seed": 3,
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
}
INFO = {
    "prompt",
    "all_prompts",
    "negative_prompt",
    "all_negative_prompts",
    "seed",
    "all_seeds",
    "subseed",
    "all_subseeds",
    "subseed_strength",
    "width",
    "height",
    "sampler_name",
    "cfg_scale",
    "steps",
    "batch_size",
    "restore_faces",
    "face_restoration_model",
    "sd_model_name",
    "sd_model_hash",
    "sd_vae_name",
    "sd_vae_hash",
    "seed_resize_from_w",
    "seed_resize_from_h",
    "denoising_strength",
    "extra_generation_params",
    "index_of_first_image",
    "infotexts",
    "styles",
    "job_timestamp",
    "clip_skip",
    "is_using_inpainting_conditioning",
    "version",
}


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data"), sdxl_model, lora_dir) as server:
        yield server


def post(server: Running, path: str, body: dict[str, Any]) -> Any:
    answer = server.http.post(f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def get(server: Running, path: str) -> Any:
    answer = server.http.get(f"/sdapi/v1/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def record(text: str) -> Record:
    found = texts_of(opened(text), "the picture").record
    assert found is not None
    return found


def picture(pixels: np.ndarray) -> str:
    return base64.b64encode(encode(Image.fromarray(pixels), "png", {})).decode()


GREY = picture(np.full((64, 64, 3), 200, np.uint8))


def test_as_sdwebuiapi_draws(server: Running) -> None:
    """Its reader: images as base64 of PNGs, info as JSON in a string, parameters as they were sent."""
    answer = post(server, "txt2img", {**SDWEBUIAPI, "prompt": "a fox <lora:ink:0.8>", "batch_size": 2, "n_iter": 2})
    info = json.loads(answer["info"])
    assert set(info) >= INFO
    assert info["all_seeds"] == [7, 8, 9, 10]
    assert len(answer["images"]) == len(info["infotexts"]) == len(info["all_prompts"]) == 4
    for image, text, seed in zip(answer["images"], info["infotexts"], info["all_seeds"], strict=True):
        assert opened(image).info["parameters"] == text
        assert f"Seed: {seed}," in text
        assert record(image).adapters[0].name == "ink"
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (64, 64, 2, 7.0)
    assert answer["parameters"]["prompt"] == "a fox <lora:ink:0.8>"


def test_as_sdwebuiapi_redraws(server: Running) -> None:
    grey, mask = np.full((64, 64, 3), 200, np.uint8), np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    body = {
        **SDWEBUIAPI,
        "init_images": [f"data:image/png;base64,{picture(grey)}"],
        "resize_mode": 0,
        "denoising_strength": 1.0,
        "image_cfg_scale": 1.5,
        "mask_blur": 0,
        "inpainting_fill": 0,
        "inpaint_full_res": True,
        "inpaint_full_res_padding": 0,
        "inpainting_mask_invert": 0,
        "initial_noise_multiplier": 1,
        "include_init_images": False,
        "mask": picture(mask),
    }
    pixels = [np.asarray(opened(post(server, "img2img", {**body, **more})["images"][0])) for more in ({}, INVERTED)]
    assert (pixels[0][:, :32] == 200).all()
    assert not (pixels[0][:, 40:] == 200).all()
    assert (pixels[1][:, 32:] == 200).all()
    assert not (pixels[1][:, :24] == 200).all()


INVERTED = {"inpainting_mask_invert": 1}


def test_resize_modes(server: Running) -> None:
    """Left half black, right half white: stretched, cropped to the middle, or filled up."""
    pixels = np.zeros((64, 256, 3), np.uint8)
    pixels[:, 128:] = 255
    body = {**SDWEBUIAPI, "init_images": [picture(pixels)], "mask": picture(np.zeros((64, 256), np.uint8))}
    body |= {"width": 64, "height": 64, "mask_blur": 0}
    drawn = [
        np.asarray(opened(post(server, "img2img", {**body, "resize_mode": mode})["images"][0])) for mode in (0, 1, 2)
    ]
    assert [int(image[32, 2, 0]) for image in drawn] == [0, 0, 0]
    assert [int(image[32, 61, 0]) for image in drawn] == [255, 255, 255]
    assert [int(image[2, 61, 0]) for image in drawn] == [255, 255, 0]


def test_as_sillytavern_draws(server: Running) -> None:
    assert "forge_preset" not in get(server, "options")
    assert get(server, "upscalers") + get(server, "latent-upscale-modes")
    assert get(server, "sd-vae") == []
    samplers = [one["name"] for one in get(server, "samplers")]
    schedulers = [one["name"] for one in get(server, "schedulers")]
    assert {"Euler", "Euler a", "DPM++ 2M"} <= set(samplers)
    assert "karras" in schedulers
    (model,) = (one["title"] for one in get(server, "sd-models"))
    post(server, "options", {"sd_model_checkpoint": model})
    idle = get(server, "progress")
    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
    request = record(post(server, "txt2img", SILLYTAVERN)["images"][0]).request
    assert (request.scheduler, request.spacing, request.guidance_scale) == ("dpmpp_2m", "karras", 7.0)
    assert (request.prompt, request.negative_prompt) == ("best quality, a fox", "lowres")


def test_as_open_webui_draws(server: Running) -> None:
    options = server.http.get("/sdapi/v1/options", headers={"authorization": ""})
    assert options.status_code == 200
    assert options.json()["sd_model_checkpoint"] == "small"
    post(server, "options", options.json())
    assert {"title", "model_name"} <= set(get(server, "sd-models")[0])
    body = {"prompt": "a fox", "batch_size": 1, "width": 64, "height": 64, "steps": 2}
    answer = server.http.post("/sdapi/v1/txt2img", json=body, headers={"authorization": ""}).json()
    assert opened(answer["images"][0]).size == (64, 64)
    assert "info" in answer


def test_null_is_the_default(server: Running) -> None:
    answer = post(server, "txt2img", {**dict.fromkeys(SDWEBUIAPI), "prompt": "a fox", "steps": 2, "unheard_of": 1})
    request = record(answer["images"][0]).request
    assert (request.width, request.height, request.guidance_scale, request.negative_prompt) == (64, 64, 7.0, None)


@pytest.mark.parametrize(
    ("fields", "scheduler", "spacing"),
    [
        ({"sampler_name": "DPM++ 2M Karras"}, "dpmpp_2m", "karras"),
        ({"sampler_name": "DPM++ 2M SDE Karras"}, "dpmpp_2m_sde", "karras"),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "Exponential"}, "dpmpp_2m", "karras"),
        ({"sampler_name": "Euler a"}, "euler_a", None),
        ({"sampler_index": "k_euler"}, "euler", None),
        ({"sampler_name": "Euler", "scheduler": "SGM Uniform"}, "euler", "trailing"),
        ({"sampler_name": "euler", "scheduler": "normal"}, "euler", "linspace"),
        ({"sampler_name": "DDIM", "scheduler": "Automatic"}, "ddim", None),
    ],
)
def test_samplers(server: Running, fields: dict[str, Any], scheduler: str, spacing: str | None) -> None:
    request = record(post(server, "txt2img", {**SDWEBUIAPI, **fields})["images"][0]).request
    assert request.scheduler == scheduler
    assert spacing in (None, request.spacing)


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"sampler_name": "Restart"}, 400, "Sampler not found"),
        ({"scheduler": "Align Your Steps"}, 400, "Scheduler not found"),
        ({"enable_hr": True}, 400, "enable_hr is not supported here; leave it out"),
        ({"tiling": True}, 400, "tiling is not supported here; leave it out"),
        ({"script_name": "x/y/z plot"}, 422, "script 'x/y/z plot' not found; leave it out"),
        (
            {"alwayson_scripts": {"controlnet": {"args": [{"enabled": True, "module": "canny"}]}}},
            422,
            "always on script 'controlnet' not found; leave it out of alwayson_scripts",
        ),
        (
            {"alwayson_scripts": {"Soft Inpainting": {"args": [{"Soft inpainting": True}]}}},
            422,
            "always on script 'Soft Inpainting' not found; leave it out of alwayson_scripts",
        ),
        ({"batch_size": 9, "n_iter": 9}, 400, "batch_size × n_iter is 81; give 1 to 64"),
        ({"steps": 0}, 400, "steps is 0; give 1 to 1000"),
        ({"width": "wide"}, 422, "width: Input should be a valid integer"),
        ({"prompt": "a <lora:inc:1>"}, 400, "did you mean ink?"),
        ({"override_settings": {"sd_model_checkpoint": "other"}}, 400, "there is no model 'other'; there are small"),
    ],
)
def test_what_is_wrong(server: Running, fields: dict[str, Any], status: int, text: str) -> None:
    answer = server.http.post("/sdapi/v1/txt2img", json={**SDWEBUIAPI, **fields})
    assert answer.status_code == status
    assert text in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize("sampler", ["DDIM", "LCM", "TCD"])
def test_a_schedule_that_the_sampler_does_not_have(server: Running, sampler: str) -> None:
    """A1111's DDIM takes no notice of it either; clients always send one."""
    body = {**SDWEBUIAPI, "sampler_name": sampler, "steps": 1}
    plain, karras = (post(server, "txt2img", {**body, "scheduler": kind}) for kind in ("Automatic", "Karras"))
    assert plain["images"] == karras["images"]
    text = f"scheduler Karras is ignored: {sampler} has timesteps of its own"
    assert [json.loads(answer["info"])["warnings"] for answer in (plain, karras)] == [[], [text]]


@pytest.mark.parametrize(
    ("strength", "steps", "drawn"), [(0.1, 4, 0.25), (0.0, 20, 0.05), (0.0, 1, 1.0), (0.3, 3, 0.334)]
)
def test_so_little_denoising_that_no_step_is_left(server: Running, strength: float, steps: int, drawn: float) -> None:
    """A1111 draws one step, whatever the strength."""
    body = {**SDWEBUIAPI, "init_images": [GREY], "denoising_strength": strength, "steps": steps}
    answer = post(server, "img2img", body)
    assert record(answer["images"][0]).request.strength == drawn
    warning = f"denoising_strength {strength:g} leaves none of {steps} steps: one is drawn"
    assert json.loads(answer["info"])["warnings"] == [warning]


def test_transparent_start_pictures_are_on_white(server: Running) -> None:
    body = {**SDWEBUIAPI, "denoising_strength": 1.0, "mask": picture(np.zeros((64, 64), np.uint8))}
    clear = np.zeros((64, 64, 4), np.uint8)
    (drawn,) = post(server, "img2img", {**body, "init_images": [picture(clear)]})["images"]
    assert (np.asarray(opened(drawn)) == 255).all()  # the mask is black: nothing is repainted


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"init_images": None}, 404, "Init image not found"),
        ({"init_images": []}, 404, "Init image not found"),
        ({"init_images": ["?"]}, 400, "init_images is not base64"),
        ({"init_images": ["aGVsbG8="]}, 400, "not a picture that can be read"),
    ],
)
def test_start_pictures_that_are_none(server: Running, fields: dict[str, Any], status: int, text: str) -> None:
    answer = server.http.post("/sdapi/v1/img2img", json={**SDWEBUIAPI, **fields})
    assert answer.status_code == status
    assert text in answer.json()["detail"]


def test_progress_and_interrupt(server: Running) -> None:
    answers: list[httpx.Response] = []

    def draw() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as own:
            answers.append(own.post("/sdapi/v1/txt2img", json={**SDWEBUIAPI, "steps": 400, "n_iter": 10}))

    other = server.service.jobs.find(limit=1)
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        job = next(job for job in _new_jobs(server, other[0].number if other else 0))
        server.until_drawing(job)
        seen = get(server, "progress?skip_current_image=false")
        assert 0 < seen["progress"] < 1
        assert (seen["state"]["job_count"], seen["state"]["sampling_steps"]) == (1, 4000)
        assert opened(seen["current_image"]).format == "PNG"
        assert get(server, "progress?skip_current_image=true")["current_image"] is None
    finally:
        post(server, "interrupt", {})
        thread.join(30)
    assert answers[0].status_code == 200
    assert answers[0].json()["images"] == []
    assert get(server, "progress")["state"]["job_count"] == 0


def _new_jobs(server: Running, after: int) -> Iterator[str]:
    """The jobs that are queued after that number, as soon as they are."""
    changed = server.service.jobs._changed
    with changed:
        assert changed.wait_for(lambda: any(job.number > after for job in server.service.jobs.find(limit=1)), 30)
    yield server.service.jobs.find(limit=1)[0].id


def test_interrupt_leaves_the_jobs_of_others_alone(server: Running) -> None:
    job = server.long_job()
    post(server, "interrupt", {})
    post(server, "skip", {})
    assert get(server, "progress")["state"]["job_count"] == 0
    assert server.service.jobs.get(job.id).state == "running"
    server.service.jobs.cancel(job.id)
    assert server.service.wait(job).state == "cancelled"


def test_a_client_that_goes_away_cancels_its_job(server: Running) -> None:
    last = server.service.jobs.find(limit=1)[0].number
    with httpx.Client(base_url=server.url, timeout=1.5) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post("/sdapi/v1/txt2img", json={**SDWEBUIAPI, "steps": 400, "n_iter": 60})
    (job,) = (job for job in server.service.jobs.find(limit=5) if job.number > last)
    assert server.service.wait(job).state == "cancelled"


def test_png_info(server: Running) -> None:
    image = post(server, "txt2img", {**SDWEBUIAPI, "negative_prompt": "blurry"})["images"][0]
    found = post(server, "png-info", {"image": f"data:image/png;base64,{image}"})
    assert found["info"] == found["items"]["parameters"] == opened(image).info["parameters"]
    parameters = found["parameters"]
    assert (parameters["Prompt"], parameters["Negative prompt"], parameters["Seed"]) == ("a fox", "blurry", "7")
    assert (parameters["Size-1"], parameters["Size-2"]) == ("64", "64")
    newer = {"parameters": found["info"], "lorablend": '{"request": {"newer": 1}}'}
    for kind in ("png", "jpeg"):
        sent = base64.b64encode(encode(opened(image), kind, newer)).decode()
        assert post(server, "png-info", {"image": sent}) == found
    plain = picture(np.zeros((8, 8, 3), np.uint8))
    assert post(server, "png-info", {"image": plain}) == {"info": "", "items": {}, "parameters": {}}
    assert server.http.post("/sdapi/v1/png-info", json={"image": "aGVsbG8="}).status_code == 400


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a fox AND a hill", "AND"),
        (r"a (red:1.3) [fox:cat:0.5] BREAK [a|b], breakfast <lora:ink:0>", None),
    ],
)
def test_syntax_that_is_not_acted_on_is_named(server: Running, prompt: str, shown: str | None) -> None:
    info = json.loads(post(server, "txt2img", {**SDWEBUIAPI, "prompt": prompt, "steps": 1})["info"])
    text = "is drawn as plain text; it does not divide a prompt here"
    assert info["warnings"] == ([f"{shown!r} {text}"] if shown else [])


def test_weights_of_words_change_the_picture(server: Running) -> None:
    prompts = ("a red fox", "a (red:1.3) fox", "a [red] fox", "a red BREAK fox", r"a \(red\) fox")
    answers = [post(server, "txt2img", {**SDWEBUIAPI, "prompt": prompt, "steps": 1}) for prompt in prompts]
    assert len({answer["images"][0] for answer in answers}) == len(prompts)


def test_a_chosen_model_that_was_removed(server: Running) -> None:
    server.service.models.add("other", server.service.models.folder("small"))
    post(server, "options", {"sd_model_checkpoint": "other"})
    assert get(server, "options")["sd_model_checkpoint"] == "other"
    server.service.models.remove("other")
    assert get(server, "options")["sd_model_checkpoint"] == "small"
    answer = post(server, "txt2img", {**SDWEBUIAPI, "override_settings": {}, "steps": 1})
    assert json.loads(answer["info"])["sd_model_name"] == "small"


def test_lists(server: Running, lora_dir: Path) -> None:
    loras = {one["name"]: one for one in get(server, "loras")}
    assert set(loras) == {"ink", "neon glow"}
    assert loras["ink"]["metadata"]["modelspec.trigger_phrase"] == "ink drawing"
    assert str(lora_dir) not in json.dumps(loras)
    post(server, "refresh-loras", {})
    shapes: dict[str, type] = {
        "samplers": list,
        "schedulers": list,
        "sd-models": list,
        "sd-vae": list,
        "upscalers": list,
        "latent-upscale-modes": list,
        "prompt-styles": list,
        "options": dict,
        "cmd-flags": dict,
        "memory": dict,
        "scripts": dict,
        "embeddings": dict,
    }
    for path, shape in shapes.items():
        assert isinstance(get(server, path), shape), path
    assert {"name", "aliases", "options"} <= set(get(server, "samplers")[0])
    for sampler in get(server, "samplers"):  # every name that is listed can be asked for
        body = {**SDWEBUIAPI, "sampler_name": sampler["name"], **FAST}
        assert json.loads(post(server, "txt2img", body)["info"])["sampler_name"] == sampler["name"]


def test_what_cannot_be_repeated_is_refused_before_it_is_drawn(server: Running) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    before = server.service.jobs.find(limit=1)
    answer = server.http.post("/sdapi/v1/txt2img", json={**FAST, "prompt": "a fox", "alwayson_scripts": deep})
    assert answer.status_code == 400
    assert answer.json() == {"detail": "the body has too many objects in one another; send it flatter"}
    assert server.service.jobs.find(limit=1) == before
