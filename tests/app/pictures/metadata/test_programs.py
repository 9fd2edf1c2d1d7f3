"""Pictures of many programs, made by their public formats: right settings, each adapter once, or a clear message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lorablend.adapters.errors import RequestError
from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.metadata.found import Found
from lorablend.app.pictures.metadata.programs import PROGRAMS, read_metadata
from tests.app.pictures.metadata.program_pictures import (
    CASES,
    CIVITAI,
    COMFY,
    DRAW_THINGS,
    EASY,
    FOOOCUS,
    INK,
    INVOKE,
    NOVELAI,
    NOVELAI_CHUNKS,
    RUINED,
    SWARM,
    TENSORART,
    WANTED,
)
from tests.app.pictures.metadata.written import A1111, comfy_graph, exif_file, png_file


def read(data: bytes) -> Found:
    found = read_metadata(data, "a.png")
    Draw.model_validate({"prompt": ""} | found.settings)  # every setting that is read can be ordered
    return found


@pytest.mark.parametrize(("data", "program", "more", "items"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_right_fields(data: bytes, program: str, more: dict[str, Any], items: list[dict[str, Any]]) -> None:
    found = read(data)
    assert (found.program, found.missing) == (program, [])
    settings = dict(found.settings)
    model = settings.pop("model", "foo")
    assert model == ("NovelAI Diffusion V3" if program == "NovelAI" and model != "foo" else "foo")
    assert settings.pop("blend", {}).get("items", []) == items
    assert settings == WANTED | more


def test_every_program_of_the_table_is_tried() -> None:
    read_ones = {case[2].partition(" (")[0] for case in CASES}
    assert {program.name.removesuffix(" 2") for program in PROGRAMS} - {"lorablend"} <= read_ones
    assert len(read_ones) >= 8


# one value at a time


@pytest.mark.parametrize(
    ("chunks", "lost", "line"),
    [
        ({"parameters": A1111.replace("Steps: 20", "Steps: 5000")}, "steps", 'steps "5000" is not 1 to 1000'),
        ({"parameters": A1111.replace("512x768", "500x768")}, "width", 'width "500" is not a multiple of 8'),
        ({"parameters": A1111.replace("Seed: 12", "Seed: -1")}, "seed", 'seed "-1" is not 0 to'),
        ({"parameters": json.dumps(SWARM).replace('"6.0"', '"six"')}, "guidance_scale", 'cfgscale "six" cannot be'),
        ({"prompt": json.dumps(comfy_graph()).replace('"seed": 12', f'"seed": {2**64 - 1}')}, "seed", 'seed "18446744'),
        (EASY | {"seed": "12.5"}, "seed", 'seed "12.5" is not'),
        ({"invokeai_metadata": json.dumps(INVOKE | {"steps": [1]})}, "steps", 'steps "[1]" cannot be read'),
        ({"invokeai_metadata": json.dumps(INVOKE | {"seed": True})}, "seed", 'seed "True" cannot be read'),
        ({"Comment": json.dumps(NOVELAI | {"scale": "nan"}), **NOVELAI_CHUNKS}, "guidance_scale", 'scale "nan" cannot'),
        ({"parameters": json.dumps(FOOOCUS | {"resolution": "wide"})}, "width", 'resolution "wide" cannot be read'),
    ],
)
def test_a_value_that_does_not_fit_is_left_out_alone(chunks: dict[str, str], lost: str, line: str) -> None:
    found = read(png_file(chunks))
    assert lost not in found.settings
    (said,) = found.missing
    assert said.startswith(line)
    assert said.endswith("; it is left out")
    assert found.settings["prompt"] == "a red boat"
    expected = {"prompt", "negative_prompt", "steps", "seed", "guidance_scale", "width", "height"} - {lost}
    assert expected - ({"height"} if lost == "width" else set()) <= found.settings.keys()


def test_a_prompt_that_is_too_long_is_left_out() -> None:
    found = read(png_file({"parameters": A1111.replace("a red boat", "a " * 15_000)}))
    assert "prompt" not in found.settings
    assert found.settings["steps"] == 20
    assert found.missing[0].startswith('prompt "a a a ')


# what other programs do and we do not


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        (
            {"parameters": json.dumps({"sui_image_params": SWARM["sui_image_params"] | {"refinermodel": "ref"}})},
            ["refinermodel (ref) is not done here"],
        ),
        (
            {"parameters": json.dumps(SWARM).replace("a red boat", "a red boat <segment:face> a smile")},
            ['a part of the prompt is left out: "<segment:face> a smile"'],
        ),
        (
            {"parameters": json.dumps({"sui_image_params": SWARM["sui_image_params"] | {"initimagecreativity": 0.5}})},
            ["the picture that it started from is not in the file"],
        ),
        (
            {"parameters": json.dumps(FOOOCUS | {"full_prompt": ["a red boat", "cinematic"], "sharpness": 2})},
            [
                'the words that styles added are left out: "a red boat, cinematic"',
                "sharpness (2) is not done here",
            ],
        ),
        (
            {"invokeai_metadata": json.dumps(INVOKE | {"generation_mode": "sdxl_img2img", "vae": {"name": "v"}})},
            ["the picture that it started from is not in the file", "vae ({'name': 'v'}) is not done here"],
        ),
        (
            {**NOVELAI_CHUNKS, "Comment": json.dumps(NOVELAI | {"prompt": "{a} boat", "sm": True})},
            ["NovelAI's brackets for emphasis are not its weights here", "sm is not done here"],
        ),
        (
            {"invokeai_metadata": json.dumps(INVOKE | {"positive_style_prompt": "oil", "cfg_rescale_multiplier": 0})},
            ['the positive style prompt is left out: "oil"'],
        ),
        (
            {"parameters": json.dumps(DRAW_THINGS | {"v2": {"hiresFix": True, "clipSkip": 1, "steps": 20}})},
            ["hiresFix is not done here"],
        ),
        ({"parameters": json.dumps(FOOOCUS | {"vae": "Default (model)", "refiner_switch": 0.5})}, []),
        (
            {"parameters": json.dumps(FOOOCUS | {"performance": "Lightning"})},
            ["performance (Lightning) is not done here"],
        ),
        ({"parameters": json.dumps(FOOOCUS | {"loras": [{"x": 1}]})}, ["an entry in loras ({'x': 1}) is not read"]),
        (
            {"parameters": json.dumps(SWARM).replace("a red boat", "a red boat <break> <embed:x>")},
            ["SwarmUI's <break> is drawn as plain text", "SwarmUI's <embed:x> is drawn as plain text"],
        ),
        (
            {"generation_data": json.dumps(TENSORART | {"models": [{"type": "EMBEDDING", "label": "Bad"}]})},
            ["the embedding Bad is not used"],
        ),
        (
            {"extraMetadata": CIVITAI["extraMetadata"]},
            [
                "Civitai version 2 (strength 1), of an unknown kind, is left out",
                "Civitai version 4 (strength 0.8), of an unknown kind, is left out",
            ],
        ),
        (
            {"parameters": A1111, "extras": "Postprocess upscale by: 4"},
            ["the enlargement afterwards is not done here (Postprocess upscale by: 4)"],
        ),
        (EASY | {"tiling": "xy", "use_upscale": "None"}, ["tiling (xy) is not done here"]),
        (
            {"parameters": json.dumps(RUINED | {"sampler_name": "heun"})},
            ["the sampler heun is not here; the model's own is used"],
        ),
    ],
)  # fmt: skip
def test_what_is_not_done_is_said(chunks: dict[str, str], lines: list[str]) -> None:
    found = read(png_file(chunks))
    assert found.missing == lines
    assert found.settings["prompt"] in ("a red boat", "{a} boat", "a red boat <break> <embed:x>")


@pytest.mark.parametrize(
    ("changes", "used", "line"),
    [
        ({"loraweights": ["x"]}, [], "the adapter ink is named without a weight; it is left out"),
        ({"loras": ["ink", "b"], "loraweights": "0.8,0.4", "lorasectionconfinement": "0,1"}, ["ink"],
         "the adapter b is for section 1 only; it is left out"),
        ({"loras": "ink,b", "loraweights": "0.8,0.4"}, ["ink", "b"], None),
        ({"loras": ["ink"], "loraweights": []}, ["ink"], None),
    ],
)  # fmt: skip
def test_swarm_lists(changes: dict[str, Any], used: list[str], line: str | None) -> None:
    found = read(png_file({"parameters": json.dumps({"sui_image_params": SWARM["sui_image_params"] | changes})}))
    assert [item["adapter"] for item in found.settings.get("blend", {}).get("items", [])] == used
    assert found.missing == ([] if line is None else [line])


def test_a_record_that_cannot_be_read() -> None:
    """A newer lorablend's: the text beside it is read, and that is said."""
    chunks = {"lorablend": '{"request": {"more": 1}}', "parameters": f"{A1111}, Version: lorablend 9.0"}
    found = read(png_file(chunks))
    assert (found.program, found.settings["blend"]["items"]) == ("lorablend", INK)
    (line,) = found.missing
    assert line.startswith("the record in the picture is not read: request has unknown fields more")
    with pytest.raises(RequestError, match=r"^a\.png: request has unknown fields more"):
        read(png_file({"lorablend": chunks["lorablend"]}))


def test_a_saver_of_comfyui_that_forgets_the_adapters() -> None:
    """Their names and weights come from the graph beside its text."""
    text = A1111.replace(" <lora:ink:0.8>", "") + ", Version: ComfyUI"
    assert read(png_file({"parameters": text, "prompt": COMFY})).settings["blend"]["items"] == INK
    assert read(png_file({"parameters": A1111, "prompt": COMFY})).settings["blend"]["items"] == INK


# what cannot be read


MIDJOURNEY = "a boat --v 6 Job ID: 01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png_file({}), "a.png says nothing about how it was made; give a picture as the program saved it"),
        (png_file({"Description": MIDJOURNEY}), "a.png is a picture of Midjourney, which is not read"),
        (
            png_file({"parameters": '{"colour": 1, "mood": 2}'}),
            "a.png has settings in a form that is not known (parameters in JSON: 2 keys: colour, mood)",
        ),
        (
            png_file({"parameters": '{"prompt": "a red boat", "steps'}),
            'a.png has settings in a form that is not known (parameters: {"prompt": "a red boat", "steps)',
        ),
        (
            png_file({"parameters": '[{"prompt": "a red boat"}]'}),
            'a.png has settings in a form that is not known (parameters: [{"prompt": "a red boat"}])',
        ),
        (
            png_file({"parameters": "{'prompt': 'a red boat'}"}),
            "a.png has settings in a form that is not known (parameters: {'prompt': 'a red boat'})",
        ),
        (png_file({"invokeai_graph": '{"id": "1"}'}), "a.png is a picture of InvokeAI, which is not read"),
        (png_file({"Software": "NovelAI", "Title": "a boat"}), "a.png is a picture of NovelAI, which is not read"),
        (png_file({"NMKD": '{"mode": 1}'}), "a.png is a picture of NMKD Stable Diffusion GUI, which is not read"),
        (png_file({"Author": "me"}), "a.png has no settings of a program that is known (1 text: Author)"),
        (
            png_file({"prompt": "no JSON", "workflow": "{}"}),
            "a.png: the picture's ComfyUI graph cannot be read; give another picture",
        ),
        (
            png_file({"workflow": '{"nodes": [], "links": []}'}),
            "a.png: a picture of ComfyUI with the layout of its workflow only, which is not read; "
            "give one with the graph, too",
        ),
        (
            png_file({"prompt": json.dumps(comfy_graph(n6=None))}),
            "a.png: the picture's ComfyUI graph has no sampler with a prompt; give another picture",
        ),
        (
            exif_file("JPEG", b"UNICODE\0\xff\x81\x82\x83abc"),
            "a.png has a text (UserComment) in no encoding that is known (ASCII, UTF-8, UTF-16, JIS); "
            "save the picture again with its own program",
        ),
        (b"<html>", "a.png is not a picture that can be read; give a PNG, JPEG or WebP file"),
        (png_file({"parameters": A1111})[:30], "a.png is damaged and cannot be read; give the whole file"),
    ],
)  # fmt: skip
def test_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_metadata(data, "a.png")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "data",
    [png_file({"parameters": A1111}), png_file({"parameters": A1111}, late=True), exif_file("JPEG", A1111.encode())],
    ids=["PNG", "late text", "JPEG"],
)
def test_a_truncated_picture_is_damaged(data: bytes, tmp_path: Path) -> None:
    """Wherever it is cut, that is said: beside what can be read, or instead of it."""
    for length in range(60, len(data), 7):
        try:
            found = read_metadata(data[:length], "a.png")
        except RequestError as error:
            assert "a.png is damaged" in str(error)  # noqa: PT017 - at some lengths it is read
        else:
            assert found.settings["steps"] == 20
            assert "the picture is damaged" in found.missing[-1]
    (tmp_path / "a.png").write_bytes(data)
    assert read_metadata(tmp_path / "a.png", "a.png").missing == []
