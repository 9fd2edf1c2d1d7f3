"""The text that other programs read: exact, and read back by their own rules."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from lorablend.adapters import Blend, parse_prompt, resolve_blend
from lorablend.app.pictures.infotext import parse_infotext, write_infotext
from lorablend.engine import Request
from lorablend.engine.schedulers import SCHEDULERS, SPACINGS

VERSION = f"lorablend {version('lorablend')}"
REQUEST = Request(
    prompt="a fox",
    negative_prompt="blurry",
    blend={"mode": "sum", "items": []},
    width=1024,
    height=768,
    steps=20,
    guidance_scale=5.0,
    seed=7,
    scheduler="dpmpp_2m",
    spacing="karras",
    batch=1,
    strength=None,
)


@pytest.fixture(scope="module")
def blend(lora_dir: Path) -> Blend:
    return resolve_blend([("ink", 0.8), ("neon glow", -0.4)], lora_dir)


def test_plain() -> None:
    assert write_infotext(REQUEST, Blend(), 8, "sdxl") == (
        "a fox\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 8, Size: 1024x768, Model: sdxl, "
        f"Version: {VERSION}"
    )


def test_adapters_and_strength(blend: Blend) -> None:
    request = dataclasses.replace(REQUEST, negative_prompt=None, strength=0.65)
    ink, neon = (item.adapter for item in blend)
    assert write_infotext(request, blend, 7, "sdxl") == (
        "a fox <lora:ink:0.8> <lora:neon_glow:-0.4>\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 7, Size: 1024x768, Model: sdxl, "
        f'Denoising strength: 0.65, Lora hashes: "ink: {ink.autov3}, neon_glow: {neon.autov3}", '
        f'Version: {VERSION}, Hashes: {{"lora:ink": "{ink.autov2}", "lora:neon_glow": "{neon.autov2}"}}'
    )


def test_read_back(blend: Blend) -> None:
    request = dataclasses.replace(REQUEST, prompt="a fox,\nin: snow", negative_prompt="two\nlines")
    read = parse_infotext(write_infotext(request, blend, 7, 'odd, "name": x'))
    ink, neon = (item.adapter for item in blend)
    assert read.prompt == "a fox,\nin: snow <lora:ink:0.8> <lora:neon_glow:-0.4>"
    assert read.negative_prompt == "two\nlines"
    assert read.settings == {
        "Steps": "20",
        "Sampler": "DPM++ 2M",
        "Schedule type": "Karras",
        "CFG scale": "5",
        "Seed": "7",
        "Size": "1024x768",
        "Model": 'odd, "name": x',
        "Lora hashes": f"ink: {ink.autov3}, neon_glow: {neon.autov3}",
        "Version": VERSION,
        "Hashes": json.dumps({"lora:ink": ink.autov2, "lora:neon_glow": neon.autov2}),
    }


def test_civitai_finds_its_parts(blend: Blend) -> None:
    """With the patterns of civitai/civitai's reader of this form."""
    text = write_infotext(REQUEST, blend, 7, "sdxl")
    assert text.splitlines()[-1].startswith("Steps: ")
    assert re.findall(r"<(lora|hypernet):([a-zA-Z0-9_.\-]+):([0-9.]+)>", text) == [("lora", "ink", "0.8")]
    found = re.search(r", Hashes:\s*({[^}]+})", text)
    assert found
    assert set(json.loads(found[1])) == {"lora:ink", "lora:neon_glow"}


def test_two_files_of_one_safe_name_are_told_apart(blend: Blend, lora_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "neon_glow.safetensors"
    other.write_bytes((lora_dir / "ink.safetensors").read_bytes())
    both = resolve_blend([("neon glow", 1), (other, 0.5), (other, 0.25)], lora_dir)
    second = both.items[1].adapter.autov2
    assert write_infotext(REQUEST, both, 7, "m").splitlines()[0] == (
        f"a fox <lora:neon_glow:1> <lora:neon_glow_{second}:0.5> <lora:neon_glow_{second}:0.25>"
    )


def test_all_that_a_blend_says_is_written_and_read_back(lora_dir: Path) -> None:
    tags = ["<lora:ink:0.8:lbw=OUTALL:step=3-10:mask=0,0,0.5,1>", "<lora:ink:1:te=0.5:unet=-0.25>", "<blend:switch:2>"]
    blend = resolve_blend(tags, lora_dir)
    read = parse_infotext(write_infotext(REQUEST, blend, 7, "sdxl"))
    assert read.prompt == " ".join(["a fox", *tags])
    text, entries = parse_prompt(read.prompt)
    ink = blend.items[0].adapter
    assert (text, resolve_blend(entries, lora_dir, load=lambda _: ink)) == (
        "a fox",
        Blend(tuple(dataclasses.replace(item, adapter=ink) for item in blend), "switch", 2),
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_scheduler_and_spacing_has_a_name(scheduler: str, spacing: str) -> None:
    request = dataclasses.replace(REQUEST, scheduler=scheduler, spacing=spacing)
    settings = parse_infotext(write_infotext(request, Blend(), 7, "m")).settings
    assert settings["Sampler"] == SCHEDULERS[scheduler].label
    assert settings["Schedule type"]


def test_timesteps_take_the_place_of_the_spacing() -> None:
    request = dataclasses.replace(REQUEST, scheduler="lcm", spacing=None, steps=4, timesteps=(999, 749, 499, 249.5))
    settings = parse_infotext(write_infotext(request, Blend(), 7, "m")).settings
    assert settings["Timesteps"] == "999, 749, 499, 249.5"
    assert "Schedule type" not in settings


def test_text_of_another_program() -> None:
    read = parse_infotext(
        "cat\nNegative prompt: dog\n"
        'Steps: 4, Sampler: Euler a, Size: 512x512, Lora hashes: "a: 01, b: 02", Clip skip: 2'
    )
    assert (read.prompt, read.negative_prompt) == ("cat", "dog")
    assert read.settings == {
        "Steps": "4",
        "Sampler": "Euler a",
        "Size": "512x512",
        "Lora hashes": "a: 01, b: 02",
        "Clip skip": "2",
    }


def test_a_prompt_alone() -> None:
    read = parse_infotext("a fox, note: red\nin the snow")
    assert (read.prompt, read.negative_prompt, read.settings) == ("a fox, note: red\nin the snow", "", {})


@pytest.mark.parametrize("part", ["a ", " \t", ", Hashes: {"])
def test_a_hostile_text_takes_no_time(part: str) -> None:
    """Whoever made the picture chose its text; A1111's own reader would take minutes, and no thread ran meanwhile."""
    before = time.process_time()
    parse_infotext("a fox\nSteps: 1, " + part * (99_000 // len(part)))
    assert time.process_time() - before < 5


def test_megabytes_are_no_settings() -> None:
    before = time.process_time()
    text = "a fox\nSteps: 1, Seed: 7, Size: 8x8, " + "a " * 2_000_000 + "b"
    read = parse_infotext(text)
    assert time.process_time() - before < 0.5  # as settings, they would take two seconds
    assert (read.prompt, read.settings) == (text, {})
