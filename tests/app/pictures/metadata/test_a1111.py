"""A1111's text as its many writers fill it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.app.pictures.metadata.a1111 import read_a1111
from lorablend.app.pictures.metadata.found import Found
from tests.app.pictures.metadata.written import A1111

SETTINGS = A1111.splitlines()[-1]
PROMPT, NEGATIVE = "a red boat", "blurry"


def read(text: str) -> Found:
    found = read_a1111(text)
    assert found is not None
    return found


# layouts


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        (A1111, PROMPT, NEGATIVE),
        (A1111.replace("\n", "\r\n"), PROMPT, NEGATIVE),
        (A1111.replace("\n", " "), PROMPT, NEGATIVE),
        (A1111.replace("\nNegative prompt:", ",.Negative prompt:").replace("\nSteps:", ".Steps:"), PROMPT, NEGATIVE),
        (A1111.replace("\nSteps:", " Steps:"), PROMPT, NEGATIVE),
        (f"{PROMPT} {SETTINGS}", PROMPT, None),
        (A1111 + "\nTemplate: a {red|blue} boat\nNegative Template: blurry", PROMPT, NEGATIVE),
        (A1111 + "\n\n", PROMPT, NEGATIVE),
        (f"{PROMPT}\n{SETTINGS}\nNegative prompt: {NEGATIVE}", PROMPT, NEGATIVE),
        (A1111.replace("Steps: 20, ", "").replace("Seed: 12", "Steps: 20, Seed: 12"), PROMPT, NEGATIVE),
        (A1111.replace("Steps:", "Beta key: 1, Steps:"), PROMPT, NEGATIVE),
        (A1111.replace(PROMPT, "a sign: Negative prompt: x"), "a sign: Negative prompt: x", NEGATIVE),
        (f"a sign: Negative prompt: x\n{SETTINGS}", "a sign: Negative prompt: x", None),
        (A1111.replace(PROMPT, "a\nboat, Steps: two"), "a\nboat, Steps: two", NEGATIVE),
        (A1111.replace(NEGATIVE, "two\nlines: x"), PROMPT, "two\nlines: x"),
        (A1111.replace("Negative prompt:", "Negative Prompt:"), PROMPT, NEGATIVE),
        (A1111.replace(", Model: foo", ', Model: "a, Steps: 3, b"'), PROMPT, NEGATIVE),
        (A1111.replace(", ", "\n"), PROMPT, NEGATIVE),
        (A1111.replace(", Model:", ", Beta key: 1, Model:").replace(", ", "\n"), PROMPT, NEGATIVE),
        (A1111.replace(", Seed:", ",\nSeed:"), PROMPT, NEGATIVE),
        (f"{SETTINGS}\n{PROMPT} <lora:ink:0.8>\nNegative prompt: {NEGATIVE}", PROMPT, NEGATIVE),
        (f"{PROMPT}\n{SETTINGS.lower()}", PROMPT, None),
        (A1111.replace("Negative prompt", "NEGATIVE_PROMPT"), PROMPT, NEGATIVE),
        (A1111.replace(", ", "; "), PROMPT, NEGATIVE),
        (A1111.replace("\n", " | "), PROMPT, NEGATIVE),
        (A1111.replace("\n", "<br>"), PROMPT, NEGATIVE),
        (A1111.replace("\n", "\\n"), PROMPT, NEGATIVE),
        (A1111.replace("\n", "\r"), PROMPT, NEGATIVE),
        (A1111.replace(": ", "\uff1a"), PROMPT, NEGATIVE),
        (f"parameters\n{A1111}", PROMPT, NEGATIVE),
        (f"Positive prompt: {A1111}", PROMPT, NEGATIVE),
        (
            A1111.replace(", ", "\n").replace("Steps: 20\n", "").replace("Seed: 12", "Seed: 12\nSteps: 20"),
            PROMPT,
            NEGATIVE,
        ),
        (f"Version: two\n{SETTINGS}", "Version: two", None),
        (f"Clip skip: rope\nColour: red\n{SETTINGS}", "Clip skip: rope\nColour: red", None),
        (A1111.replace(PROMPT, "a sign\nnegative prompt: x"), "a sign\nnegative prompt: x", NEGATIVE),
        (A1111.replace(PROMPT, "Size: big\nModel: a boat"), "Size: big\nModel: a boat", NEGATIVE),
    ],
)
def test_the_settings_are_found_by_their_keys(text: str, prompt: str, negative: str | None) -> None:
    found = read(text)
    assert found.settings["prompt"] == prompt
    assert found.settings.get("negative_prompt") == negative
    expected = {"steps": 20, "seed": 12, "width": 512, "height": 768, "guidance_scale": 6.0, "scheduler": "euler_a"}
    assert {key: found.settings.get(key) for key in expected} == expected


def test_lines_that_begin_like_settings_take_no_time() -> None:
    parts = ["Model: a\nBeta: b\n", "Steps:\n", "model: a\n\n", "VAE: a; Model: b\n"]
    before = time.process_time()
    for part in parts:
        read_a1111("a fox <lora:ink:1>\n" + part * (200_000 // len(part)) + "end")
    assert time.process_time() - before < 10


def test_two_settings_are_no_prompt() -> None:
    found = read("a red boat\nSteps: 20, Seed: 12")
    assert found.settings == {"prompt": PROMPT, "steps": 20, "seed": 12}


def test_text_behind_the_settings_is_named() -> None:
    assert read(A1111 + "\nsome words").missing == ["Text behind the settings (some words) is not done here"]


# tags


def test_one_bad_tag_is_cut_out_and_named() -> None:
    found = read(A1111.replace("<lora:ink:0.8>", "<lora:b:1@0,0@1> <lora:ink:0.8> <lora:c:1:R,0> <hypernet:h:1>"))
    assert found.settings["prompt"] == PROMPT
    assert found.settings["blend"] == {"items": [{"adapter": "ink", "weight": 0.8}]}
    for name, line in zip(("b", "c", "h"), found.missing, strict=True):
        assert line.startswith(f"<{'hypernet' if name == 'h' else 'lora'}:{name}:1")


def test_a_tag_in_the_negative_prompt() -> None:
    """A1111 takes it for words there."""
    found = read(A1111.replace(NEGATIVE, f"{NEGATIVE} <lora:b:0.5>"))
    assert found.settings["negative_prompt"] == f"{NEGATIVE} <lora:b:0.5>"
    assert found.settings["blend"] == {"items": [{"adapter": "ink", "weight": 0.8}]}
    assert found.missing == ["the adapter b is named in the negative prompt, where it changes nothing"]


def test_a_tag_twice_is_two_items() -> None:
    found = read(A1111.replace("<lora:ink:0.8>", "<lora:ink:0.5><lora:ink:0.25>"))
    assert [item["weight"] for item in found.settings["blend"]["items"]] == [0.5, 0.25]


# what is not done here


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("Variation seed: 5, Variation seed strength: 0.3",
         "the variation seed is not done here (Variation seed 5, Variation seed strength 0.3)"),
        ("Denoising strength: 0.4, Hires upscale: 2, Hires upscaler: Latent",
         "the second pass of the hires fix is not done here (Hires upscale 2, Hires upscaler Latent)"),
        ("Refiner: xl [abc], Refiner switch at: 0.8",
         "the refiner is not done here (Refiner xl [abc], Refiner switch at 0.8)"),
        ("Tiling: True", "Tiling (True) is not done here"),
        ("ADetailer model: face_yolov8n.pt, ADetailer version: 24",
         "ADetailer is not done here (ADetailer model face_yolov8n.pt, ADetailer version 24)"),
        ("Clip skip: 2", "Clip skip (2) is not done here"),
        ("VAE: sdxl.safetensors, VAE hash: 1234", "the VAE sdxl.safetensors is not used; the model's own is"),
        ("ENSD: 31337", "ENSD (31337) is not done here"),
        ("RNG: CPU", "RNG (CPU) is not done here"),
        ('ControlNet 0: "Module: canny, Model: x"',
         "ControlNet is not done here (ControlNet 0 Module: canny, Model: x)"),
        ("Face restoration: GFPGAN", "Face restoration (GFPGAN) is not done here"),
        ("Token merging ratio: 0.5", "Token merging ratio (0.5) is not done here"),
        ("Denoising strength: 0.4", "the picture that it started from is not in the file"),
        ("Schedule type: Beta", "the schedule type Beta is not here; the model's own is used"),
        ("Parser: compel", "Parser (compel) is not done here"),
        ("Performance: Lightning", "Performance (Lightning) is not done here"),
        ('TI hashes: "bad: 0123456789"', "the embedding bad is not used; its word is drawn as plain text"),
        ("Used embeddings: bad [ab12]", "the embedding bad is not used; its word is drawn as plain text"),
        ('Hashes: {"embed:bad": "0123456789"}', "the embedding bad is not used; its word is drawn as plain text"),
        ('Hashes: {"hypernet:h": "0123456789"}', "the hypernetwork h is not used"),
        ('Hashes: {"vae": "0123456789"}', "a VAE that is named by its hash alone is not used; the model's own is"),
        ('Civitai resources: [{"type":"embed","weight":1,"modelName":"Bad","modelVersionName":"v2"}]',
         "the embed Bad v2 is not used"),
        ("Lora thing: 5", 'Lora thing ("5") is not read'),
    ],
)  # fmt: skip
def test_each_is_named_in_one_line(more: str, line: str) -> None:
    assert read(f"{A1111}, {more}").missing == [line]


@pytest.mark.parametrize(
    "more",
    [
        "Clip skip: 1, Model hash: 0123456789, Version: v1.10.1",
        "Variation seed: 5, Variation seed strength: 0",
        "VAE: Automatic, VAE hash: 01",
        'Lora hashes: "ink: 0123456789ab", Time taken: 3.2 sec.',
        "Parser: native, Performance: Speed",
        "Created Date: 2024-11-21T12:00:00Z, Tiling: False, Refiner: None",
    ],
)
def test_what_changes_nothing_is_not_named(more: str) -> None:
    assert read(f"{A1111}, {more}").missing == []


# adapters elsewhere than in tags

B = [{"adapter": "b", "weight": 0.5}]


@pytest.mark.parametrize(
    ("more", "items", "hashes"),
    [
        (
            "Lora_0 Model name: b c.safetensors, Lora_0 Model hash: abcdef0123, Lora_0 Strength model: -1.1, "
            "Lora_0 Strength clip: 0.5",
            [{"adapter": "b c", "weight": -1.1, "text_encoder": 0.5}],
            {"b c": "abcdef0123"},
        ),
        (
            "AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: b(0123456789ab), AddNet Weight A 1: 0.25, "
            "AddNet Weight B 1: 0.5",
            [{"adapter": "b", "weight": 0.25, "text_encoder": 0.5}],
            {"b": "0123456789ab"},
        ),
        ("AddNet Enabled: False, AddNet Model 1: b(0123456789ab), AddNet Weight A 1: 0.25", [], {}),
        ("AddNet Model 1: b(0123456789ab), AddNet Weight 1: 0.5", B, {"b": "0123456789ab"}),
        ('Lora weights: "b: 0.5", Lora hashes: "b: 0123456789ab"', B, {"b": "0123456789ab"}),
        ('Lora hashes: "b: 0123456789ab: 0.5"', B, {"b": "0123456789ab"}),
        ("LoRA 1: b.safetensors : 0.5, LoRA 2: False : c : 1", B, {}),
        (
            'Civitai resources: [{"type":"lora","weight":0.5,"modelVersionId":2,"modelName":"B, it",'
            '"modelVersionName":"v1"}]',
            [{"adapter": "B, it v1", "weight": 0.5}],
            {},
        ),
        (
            'Civitai resources: [{"air":"urn:air:sdxl:lora:civitai:1@2","weight":0.5}], Civitai metadata: {}',
            [{"adapter": "urn:air:sdxl:lora:civitai:1@2", "weight": 0.5}],
            {},
        ),
        # The tag's own, under its title
        ('Civitai resources: [{"type":"lora","weight":0.8,"modelVersionId":2,"modelName":"Ink Style"}]', [], {}),
        ('Hashes: {"lora:ink": "0123456789", "model": "ab"}', [], {"ink": "0123456789"}),
    ],
)
def test_adapters_elsewhere(more: str, items: list[dict[str, Any]], hashes: dict[str, str]) -> None:
    found = read(f"{A1111}, {more}")
    assert found.settings["blend"]["items"] == [{"adapter": "ink", "weight": 0.8}, *items]
    assert (found.hashes, found.missing) == (hashes, [])


@pytest.mark.parametrize(
    ("more", "model", "missing"),
    [
        ('Civitai resources: [{"type":"checkpoint","modelVersionId":1,"modelName":"Pony","modelVersionName":"V6"}]',
         "Pony V6", []),
        ('Civitai resources: [{"type":"checkpoint","modelVersionId":7}]', "Civitai version 7", []),
        ("Model: toy, Model hash: 0123456789", "toy", []),
        ("Model hash: 0123456789", None, ["the model is named by its hash alone (0123456789); it is left out"]),
        ('Hashes: {"model": "0123456789"}', None,
         ["the model is named by its hash alone (0123456789); it is left out"]),
    ],
)  # fmt: skip
def test_models_elsewhere(more: str, model: str | None, missing: list[str]) -> None:
    found = read(f"{A1111.replace(', Model: foo', '')}, {more}")
    assert (found.settings.get("model"), found.missing) == (model, missing)


NAMES = ["ink", "off", "default", "neon glow", "a-b", "a_b.v2", "Über", "墨", "x(1)"]
PLACES = ["tag", "te tag", "weights", "numbered", "addnet", "fooocus", "resource", "hashes", "hash list"]
WITHOUT_WEIGHT = {"hashes", "hash list"}


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.tuples(st.sets(st.sampled_from(PLACES), min_size=1), st.sampled_from([0.25, 0.5, -1.0, 1.75, 0.0])),
        min_size=1,
    )
)
def test_names_in_are_names_out(adapters: dict[str, tuple[set[str], float]]) -> None:
    """Each adapter, wherever it is named, is used once with its weight, or named as missing; and nothing else is."""
    tags: list[str] = []
    settings: list[str] = []
    lists: dict[str, list[str]] = {"weights": [], "hashes": []}
    resources: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    for index, (name, (places, weight)) in enumerate(adapters.items()):
        digest = f"{index:x}" * 12
        tags += [f"<lora:{name}:{weight}>"] if "tag" in places else []
        tags += [f"<lora:{name}:{weight}:unet={weight}>"] if places & {"te tag", "tag"} == {"te tag"} else []
        lists["weights"] += [f"{name}: {weight}"] if "weights" in places else []
        lists["hashes"] += [f"{name}: {digest}"] if "hash list" in places else []
        hashes |= {f"lora:{name}": digest[:10]} if "hashes" in places else {}
        resources += [{"type": "LORA", "name": name, "weight": weight}] if "resource" in places else []
        numbered = {"Model name": f"{name}.safetensors", "Strength model": weight, "Strength clip": weight}
        settings += [f"Lora_{index} {key}: {value}" for key, value in numbered.items() if "numbered" in places]
        if "addnet" in places:
            settings += [f"AddNet Model {index}: {name}({digest})", f"AddNet Weight A {index}: {weight}"]
        settings += [f"LoRA {index}: {name} : {weight}"] if "fooocus" in places else []
    settings += [f'Lora weights: "{", ".join(lists["weights"])}"'] if lists["weights"] else []
    settings += [f'Lora hashes: "{", ".join(lists["hashes"])}"'] if lists["hashes"] else []
    settings += [f"Civitai resources: {json.dumps(resources)}"] if resources else []
    settings += [f"Hashes: {json.dumps(hashes)}"] if hashes else []
    found = read("\n".join([" ".join([PROMPT, *tags]), ", ".join([SETTINGS, *settings])]))

    assert found.settings["prompt"] == PROMPT
    items = {item["adapter"]: item["weight"] for item in found.settings.get("blend", {}).get("items", [])}
    assert len(items) == len(found.settings.get("blend", {}).get("items", []))
    weighted = {name: weight for name, (places, weight) in adapters.items() if places - WITHOUT_WEIGHT}
    assert items == weighted
    assert sorted(found.missing) == sorted(
        f"the adapter {name} is named without a weight; it is left out" for name in adapters if name not in weighted
    )
