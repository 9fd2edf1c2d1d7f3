"""From pictures of this and other programs back to the form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import RequestError
from lorablend.app.library.shelf import Shelf
from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.png import encode
from lorablend.app.reuse import read_picture, reuse
from lorablend.app.service import Service
from tests.app.pictures.metadata.written import comfy_graph


@pytest.fixture
def shelf(service: Service) -> Shelf:
    return Shelf(service.models.lora_dir)


def saved(path: Path, **chunks: str) -> Path:
    path.write_bytes(encode(Image.new("RGB", (8, 8)), "png", chunks))
    return path


def test_our_own_pictures_come_again_to_the_byte(service: Service, shelf: Shelf) -> None:
    image = service.uploads.keep(encode(Image.new("RGB", (64, 64), "orange"), "png", {}))
    mask = service.uploads.keep(encode(Image.new("L", (64, 64), 255), "png", {}))
    asked = Draw.model_validate(
        {
            "prompt": "a fox <lora:ink:0.3>",
            "negative_prompt": "",
            "blend": {
                "mode": "switch",
                "items": [{"adapter": "neon glow", "blocks": "OUTALL", "mask": mask, "schedule": {"stop": 0.5}}],
            },
            "width": 64,
            "height": 64,
            "steps": 3,
            "seed": 5,
            "count": 2,
            "scheduler": "dpmpp_2m",
            "spacing": "karras",
            "image": image,
            "mask": mask,
            "strength": 0.9,
        }
    )
    job = service.wait(service.draw(asked))
    assert job.state == "done", job.reason
    file = job.result["pictures"][1]["file"]
    found = reuse(service, shelf, file)
    assert found.missing == ()
    assert (found.draw.seed, found.draw.count, found.draw.negative_prompt) == (6, 1, "")
    again = service.wait(service.draw(found.draw))
    assert again.state == "done", again.reason
    (second,) = again.result["pictures"]
    assert service.gallery.path(second["file"]).read_bytes() == service.gallery.path(file).read_bytes()


def test_a1111(service: Service, shelf: Shelf, lora_dir: Path, tmp_path: Path) -> None:
    digest = load_adapter(lora_dir / "ink.safetensors").autov3
    text = (
        "a fox <lora:other_name:0.8:0.5:lbw=OUTALL> <lora:lost:1>\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 9007199254740993, Size: 832x1216, "
        f'Model: juggernaut, Lora hashes: "other_name: {digest}, lost: 0123456789ab", Version: v1.8.0'
    )
    found = read_picture(service, shelf, saved(tmp_path / "a.png", parameters=text), "a.png")
    assert found.draw.model_dump(exclude_defaults=True) == {
        "prompt": "a fox",
        "negative_prompt": "blurry",
        "blend": {"items": [{"adapter": "ink", "weight": 0.8, "unet": 0.5, "blocks": "OUTALL"}]},
        "width": 832,
        "height": 1216,
        "steps": 20,
        "guidance_scale": 6.5,
        "seed": 9007199254740993,
        "scheduler": "dpmpp_2m",
        "spacing": "karras",
    }
    assert found.missing == (
        "the adapter lost (0123456789) is not here",
        "the model juggernaut is not here; small is used",
    )


def test_a1111_samplers_that_are_not_here(service: Service, shelf: Shelf, tmp_path: Path) -> None:
    text = "a fox\nSteps: 20, Sampler: DPM fast, Schedule type: Beta, CFG scale: 7, Seed: 1, Size: 64x64, Model: small"
    found = read_picture(service, shelf, saved(tmp_path / "a.png", parameters=text), "a.png")
    assert (found.draw.scheduler, found.draw.spacing, found.draw.model) == (None, None, "small")
    assert found.missing == (
        "the sampler DPM fast is not here; the model's own is used",
        "the schedule type Beta is not here; the model's own is used",
    )


def comfy(**changes: object) -> str:
    small = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "small.safetensors"}}
    return json.dumps(comfy_graph(n1=small) | changes)


def test_comfyui(service: Service, shelf: Shelf, tmp_path: Path) -> None:
    found = read_picture(service, shelf, saved(tmp_path / "a.png", prompt=comfy()), "a.png")
    assert found.missing == ()
    assert found.draw.model_dump(exclude_defaults=True) == {
        "prompt": "a red boat",
        "negative_prompt": "blurry",
        "blend": {"items": [{"adapter": "ink", "weight": 0.8}]},
        "width": 512,
        "height": 768,
        "steps": 20,
        "guidance_scale": 6.0,
        "seed": 12,
        "scheduler": "euler_a",
        "spacing": "karras",
        "model": "small",
    }


def test_comfyui_links_in_place_of_values(service: Service, shelf: Shelf, tmp_path: Path) -> None:
    """One that leads to a constant is followed; what is computed is left out, and said."""
    graph = json.loads(comfy())
    graph["6"]["inputs"] |= {"seed": ["17", 0], "steps": ["18", 0], "cfg": ["19", 0], "positive": ["20", 0]}
    graph["2"]["inputs"] |= {"strength_model": ["18", 0], "strength_clip": ["19", 0]}
    graph["5"]["inputs"] |= {"width": ["22", 0]}
    graph |= {
        "17": {"class_type": "Reroute", "inputs": {"value": ["21", 0]}},
        "18": {"class_type": "Math", "inputs": {"a": 1, "b": 2}},
        "19": {"class_type": "PrimitiveInt", "inputs": {"value": 3}},
        "20": {"class_type": "CLIPTextEncode", "inputs": {"text": ["18", 0]}},
        "21": {"class_type": "Seed", "inputs": {"seed": 9}},
        "22": {"class_type": "PrimitiveInt", "inputs": {"value": 640}},
    }
    found = read_picture(service, shelf, saved(tmp_path / "a.png", prompt=json.dumps(graph)), "a.png")
    assert found.missing == (
        "the prompt is computed in the graph",
        "the number of steps is computed in the graph",
        "the weight of ink is computed in the graph",
    )
    assert (found.draw.prompt, found.draw.seed, found.draw.steps, found.draw.guidance_scale) == ("", 9, None, 3)
    assert found.draw.blend == []
    assert found.draw.width == 640


def test_comfyui_without_a_negative_prompt(service: Service, shelf: Shelf, tmp_path: Path) -> None:
    """Zeroed, it is none, whatever was encoded before; an empty one is encoded, and stays one."""
    zeroed = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["3", 0]}}
    both = {"positive": ["3", 0], "negative": ["4", 0], "control_net": ["17", 0], "image": ["18", 0], "strength": 0.5}
    graph = json.loads(comfy(**{"19": {"class_type": "ControlNetApplyAdvanced", "inputs": both}}))
    graph["6"]["inputs"] |= {"positive": ["19", 0], "negative": ["19", 1]}
    empty = {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["2", 1]}}
    lost = ("the node ControlNetApplyAdvanced between prompt and sampler has no counterpart here",)
    for text, negative, missing in (
        (comfy(**{"4": zeroed}), None, ()),
        (json.dumps(graph | {"4": zeroed}), None, lost),
        (json.dumps(graph), "blurry", lost),
        (comfy(**{"4": empty}), "", ()),
    ):
        found = read_picture(service, shelf, saved(tmp_path / "a.png", prompt=text), "a.png")
        assert (found.draw.prompt, found.draw.negative_prompt) == ("a red boat", negative)
        assert found.missing == missing


def test_timesteps_that_are_no_numbers(service: Service, shelf: Shelf, tmp_path: Path) -> None:
    text = "a fox\nSteps: 20, Sampler: LCM, Timesteps: x, CFG scale: 7, Seed: 1, Size: 64x64"
    found = read_picture(service, shelf, saved(tmp_path / "a.png", parameters=text), "a.png")
    assert (found.draw.timesteps, found.draw.steps) == (None, 20)
    assert found.missing == ('timesteps "x" cannot be read; it is left out',)


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ({}, "says nothing about how it was made"),
        ({"prompt": "no JSON", "workflow": "{}"}, "graph cannot be read"),
        ({"prompt": "[]", "workflow": "{}"}, "graph cannot be read"),
        ({"prompt": comfy(**{"6": {"class_type": "SaveImage", "inputs": {}}})}, "no sampler with a prompt"),
    ],
)
def test_pictures_that_say_nothing(
    service: Service, shelf: Shelf, tmp_path: Path, chunks: dict[str, str], text: str
) -> None:
    with pytest.raises(RequestError, match=text):
        read_picture(service, shelf, saved(tmp_path / "a.png", **chunks), "a.png")


def test_a_graph_that_goes_in_a_circle(service: Service, shelf: Shelf, tmp_path: Path) -> None:
    """In several, by more ways than could ever be gone."""
    circle = {"inputs": {key: ["3", 0] for key in ("text", "text_g", "conditioning", "negative", "positive")}}
    found = read_picture(service, shelf, saved(tmp_path / "a.png", prompt=comfy(**{"3": circle, "4": circle})), "a.png")
    assert (found.draw.prompt, found.draw.negative_prompt) == ("", None)
    assert len(found.missing) == 2


def test_what_is_no_picture(service: Service, shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>")
    with pytest.raises(RequestError, match=r"^a\.png is not a picture"):
        read_picture(service, shelf, tmp_path / "a.png", "a.png")
