"""Adapters in ComfyUI graphs: loaders of many authors, those that are off, and those that nothing uses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.pictures.metadata.comfy_nodes import INK, items, node, read, sampler
from tests.app.pictures.metadata.written import comfy_graph

LOADERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "LoraLoader": ({}, [INK]),
    "LoraLoaderModelOnly": (
        {
            "n2": node("LoraLoaderModelOnly", lora_name="ink.safetensors", strength_model=0.8, model=["1", 0]),
            "n3": node("CLIPTextEncode", text="a red boat", clip=["1", 1]),
        },
        [{**INK, "text_encoder": 0.0}],
    ),
    "LoraLoader whose CLIP is not used": (
        {"n3": node("CLIPTextEncode", text="a red boat", clip=["1", 1])},
        [{**INK, "text_encoder": 0.0}],
    ),
    "two in a row": (
        {
            "n2": node("LoraLoader", lora_name="b.safetensors", strength_model=0.5, strength_clip=0.4,
                       model=["7", 0], clip=["7", 1]),
            "n7": comfy_graph()["2"],
        },
        [INK, {"adapter": "b", "weight": 0.5, "text_encoder": 0.4}],
    ),
    "Power Lora Loader (rgthree)": (
        {
            "n2": node(
                "Power Lora Loader (rgthree)",
                PowerLoraLoaderHeaderWidget={"type": "x"},
                lora_1={"on": True, "lora": "ink.safetensors", "strength": 0.8},
                lora_2={"on": False, "lora": "off.safetensors", "strength": 1},
                lora_3={"on": True, "lora": "sub\\b.safetensors", "strength": 0.5, "strengthTwo": 0.3},
                lora_4={"on": True, "lora": "None", "strength": 1},
                model=["1", 0],
                clip=["1", 1],
            )
        },
        [INK, {"adapter": "b", "weight": 0.5, "text_encoder": 0.3}],
    ),
    "Lora Loader Stack (rgthree)": (
        {"n2": node("Lora Loader Stack (rgthree)", lora_01="ink.safetensors", strength_01=0.8, lora_02="None",
                    strength_02=1.0, model=["1", 0], clip=["1", 1])},
        [INK],
    ),
    "CR LoRA Stack": (
        {
            "n2": node("CR Apply LoRA Stack", model=["1", 0], clip=["1", 1], lora_stack=["7", 0]),
            "n7": node(
                "CR LoRA Stack",
                switch_1="On", lora_name_1="ink.safetensors", model_weight_1=0.8, clip_weight_1=0.7,
                switch_2="Off", lora_name_2="off.safetensors", model_weight_2=1, clip_weight_2=1,
                switch_3="On", lora_name_3="None", model_weight_3=1.0, clip_weight_3=1.0,
                lora_stack=["10", 0],
            ),
            "n10": node("CR LoRA Stack", switch_1="On", lora_name_1="b.pt", model_weight_1=0.5, clip_weight_1=0.5),
        },
        [{"adapter": "b", "weight": 0.5}, {**INK, "text_encoder": 0.7}],
    ),
    "Efficiency's LoRA Stacker, simple": (
        {
            "n2": node("Apply LoRA Stack", model=["1", 0], clip=["1", 1], lora_stack=["7", 0]),
            "n7": node("LoRA Stacker", input_mode="simple", lora_count=1, lora_name_1="ink.safetensors", lora_wt_1=0.8,
                       model_str_1=1.0, clip_str_1=1.0, lora_name_2="off.safetensors", lora_wt_2=1.0),
        },
        [INK],
    ),
    "Efficiency's LoRA Stacker, advanced": (
        {
            "n2": node("Apply LoRA Stack", model=["1", 0], clip=["1", 1], lora_stack=["7", 0]),
            "n7": node("LoRA Stacker", input_mode="advanced", lora_count=1, lora_name_1="ink.safetensors",
                       lora_wt_1=1.0, model_str_1=0.8, clip_str_1=0.7),
        },
        [{**INK, "text_encoder": 0.7}],
    ),
    "easy loraStack": (
        {
            "n2": node("CR Apply LoRA Stack", model=["1", 0], clip=["1", 1], lora_stack=["7", 0]),
            "n7": node("easy loraStack", toggle=True, mode="simple", num_loras=1, lora_1_name="ink.safetensors",
                       lora_1_strength=0.8, lora_1_model_strength=1.0, lora_1_clip_strength=1.0,
                       lora_2_name="off.safetensors", lora_2_strength=1.0),
        },
        [INK],
    ),
    "easy loraStack, off": (
        {
            "n2": node("CR Apply LoRA Stack", model=["1", 0], clip=["1", 1], lora_stack=["7", 0]),
            "n7": node("easy loraStack", toggle=False, mode="simple", num_loras=1, lora_1_name="ink.safetensors",
                       lora_1_strength=0.8),
        },
        [],
    ),
    "Lora Loader (LoraManager)": (
        {
            "n2": node(
                "Lora Loader (LoraManager)",
                text="<lora:ink:0.7>, <lora:off:1.00>",
                loras={"__value__": [
                    {"name": "ink", "strength": 0.8, "active": True, "clipStrength": 0.8},
                    {"name": "off", "strength": 1, "active": False},
                ]},
                model=["1", 0],
                clip=["1", 1],
            )
        },
        [INK],
    ),
    "LoraTagLoader": (
        {"n2": node("LoraTagLoader", text="x <lora:ink:0.8> y", model=["1", 0], clip=["1", 1])},
        [INK],
    ),
    "ImpactWildcardEncode": (
        {
            "n2": node(
                "ImpactWildcardEncode",
                wildcard_text="a {red|blue} boat <lora:ink:0.8>",
                populated_text="a red boat <lora:ink:0.8>",
                model=["1", 0],
                clip=["1", 1],
            ),
            "n3": None,
            "n6": sampler(positive=["2", 2]),
        },
        [INK],
    ),
    "a text that two nodes share": (
        {
            "n2": node("LoraTagLoader", text=["7", 0], model=["1", 0], clip=["1", 1]),
            "n3": node("CLIPTextEncode", text=["7", 0], clip=["2", 1]),
            "n7": node("String", value="a red boat <lora:ink:0.8>"),
        },
        [INK],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_loaders(name: str) -> None:
    nodes, expected = LOADERS[name]
    found = read(**nodes)
    assert items(found) == expected
    assert found.missing == []
    assert (found.settings["prompt"], found.settings["model"]) == ("a red boat", "foo")


@pytest.mark.parametrize(
    ("nodes", "line"),
    [
        (
            {"n3": node("CLIPTextEncode", text="a red boat <lora:b:1>", clip=["2", 1])},
            "the adapter b is in the graph, but not on the model's way; it is left out",
        ),
        (
            {
                "n3": node("CLIPTextEncode", text="a red boat", clip=["7", 1]),
                "n7": node("LoraLoader", lora_name="b.pt", strength_model=1, model=["1", 0], clip=["2", 1]),
            },
            "the adapter b is in the graph, but not on the model's way; it is left out",
        ),
        (
            {
                "n2": node("LoraTagLoader", text="<lora:ink:0.8> <lora:b:1@0,0@1>", model=["1", 0], clip=["1", 1]),
            },
            "<lora:b:1@0,0@1>: weights per step (as in 0@0,1@0.5) are not supported; "
            "use step=, start=, stop= or ramp=",
        ),
        (
            {
                "n6": sampler(model=["7", 0]),
                "n7": node("ModelMergeSimple", model1=["2", 0], model2=["10", 0], ratio=0.5),
                "n10": node("LoraLoader", lora_name="b.pt", strength_model=1, model=["1", 0], clip=["1", 1]),
            },
            "the adapter b is in the graph, but not on the model's way; it is left out",
        ),
    ],
)  # fmt: skip
def test_adapters_that_are_not_applied_are_named(nodes: dict[str, Any], line: str) -> None:
    found = read(**nodes)
    assert line in found.missing
    assert [item["adapter"] for item in items(found)] == ["ink"]
    assert found.settings["prompt"] == "a red boat"


def test_a_loader_that_nothing_uses_is_not_named() -> None:
    found = read(n7=node("LoraLoader", lora_name="b.pt", strength_model=1, strength_clip=1, model=["1", 0]))
    assert (items(found), found.missing) == ([INK], [])
