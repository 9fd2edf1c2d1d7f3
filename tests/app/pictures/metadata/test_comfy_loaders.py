"""Adapters in the nodes of many authors: used as they were, or named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.app.pictures.metadata.comfy_nodes import INK, items, node, read, sampler

BOTH = {**INK, "text_encoder": 0.7}
BASE = {"model": ["1", 0], "clip": ["1", 1]}
ONE = {"lora_name": "ink.safetensors", "strength_model": 0.8, "strength_clip": 0.7, **BASE}


def stack(**inputs: Any) -> dict[str, Any]:
    """A stack, and the node that applies it."""
    return {"n2": node("CR Apply LoRA Stack", **BASE, lora_stack=["7", 0]), "n7": node("Some LoRA Stack", **inputs)}


LOADERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "a name with a preview (pysssss)": (
        {
            "n1": node("CheckpointLoader|pysssss", ckpt_name={"content": "foo.safetensors", "image": None}),
            "n2": node("LoraLoader|pysssss", **ONE | {"lora_name": {"content": "ink.safetensors", "image": None}}),
        },
        [BOTH],
    ),
    "bypassed (Inspire)": ({"n2": node("LoraLoaderBlockWeight //Inspire", **ONE, bypass=True)}, []),
    "switched off (Comfyroll)": ({"n2": node("CR Load LoRA", switch="Off", **ONE)}, []),
    "tags, with optional model and clip (rgthree)": (
        {
            "n2": node("Power Prompt (rgthree)", prompt="a red boat <lora:ink:0.8>", opt_model=["1", 0],
                       opt_clip=["1", 1]),
            "n3": None,
            "n6": sampler(model=["2", 1], positive=["2", 0]),
        },
        [INK],
    ),
    "letters for numbers": (
        {"n2": node("DoubleLora", lora_a="ink.safetensors", strength_a=0.8, lora_b="b.safetensors", strength_b=0.5,
                    **BASE)},
        [INK, {"adapter": "b", "weight": 0.5}],
    ),
    "objects by name": (
        {"n2": node("Fast LoRA", loras={"lora_1": {"on": True, "lora": "ink.safetensors", "strength": 0.8}}, **BASE)},
        [INK],
    ),
    "a weight in text": (
        {"n2": node("Lora Loader (LoraManager)", text="", loras={"__value__": []}, lora_stack=["7", 0], **BASE),
         "n7": node("Lora Stacker (LoraManager)", text="<lora:ink:0.8>",
                    loras={"__value__": [{"name": "ink", "strength": "0.8", "active": True, "clipStrength": "0.7"}]})},
        [BOTH],
    ),
    "Civitai's number": (
        {"n2": node("CivitAI_Lora_Loader", **ONE | {"lora_name": "none"}, lora_air="123@456")},
        [{**BOTH, "adapter": "123@456"}],
    ),
    "Civitai's number beside a name": ({"n2": node("CivitAI_Lora_Loader", **ONE, lora_air="123@456")}, [BOTH]),
    "a name and a weight of other nodes": (
        {
            "n2": node("LoraLoader", **ONE | {"lora_name": ["7", 0], "strength_model": ["10", 0]}),
            "n7": node("Lora Selector", lora_name="ink.safetensors"),
            "n10": node("Float", value=0.8),
        },
        [BOTH],
    ),
    "switches named enabled": (
        stack(enabled_1=True, lora_1="ink.safetensors", strength_1=0.8, enabled_2=False, lora_2="b.pt", strength_2=1),
        [INK],
    ),
    "switches named lora_on": (
        stack(lora_on_1="ON", lora_1="ink.safetensors", weight_1=0.8, lora_on_2="OFF", lora_2="b.pt", weight_2=1),
        [INK],
    ),
    "switches named switch_lora": (
        stack(switch_lora_1="On", lora_1="ink.safetensors", model_strength_1=0.8, clip_strength_1=0.7,
              switch_lora_2="Off", lora_2="b.pt", model_strength_2=1, clip_strength_2=1),
        [BOTH],
    ),
    "numbers inside the name": (stack(lora_01_name="ink.safetensors", lora_01_strength=0.8), [INK]),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_loaders(name: str) -> None:
    nodes, expected = LOADERS[name]
    found = read(**nodes)
    assert (items(found), found.missing) == (expected, [])
    assert (found.settings["prompt"], found.settings["model"]) == ("a red boat", "foo")


@pytest.mark.parametrize(
    ("loader", "used", "line"),
    [
        (node("LoraLoaderBlockWeight //Inspire", **ONE, block_vector="1,0,1", bypass=False), [BOTH],
         "the block weights of ink in the node LoraLoaderBlockWeight //Inspire are left out"),
        (node("LoraLoaderBlockWeight //Inspire", **ONE, block_vector="1,1,1", bypass=False), [BOTH], None),
        (node("PCLazyLoraLoader", text="[<lora:ink:0.8>::0.5]", **BASE), [INK],
         "the schedules around the tags in the node PCLazyLoraLoader are left out"),
        (node("D2 Load Lora", lora_text="ink:0.8\nb:0.5", **BASE), [],
         "the adapters in the node D2 Load Lora are not read (ink:0.8\\nb:0.5)"),
        (node("Lora Text", text="ink.safetensors,0.8,0.7", **BASE), [],
         "the adapters in the node Lora Text are not read (ink.safetensors,0.8,0.7)"),
        (node("Lora JSON", data=json.dumps([{"lora": "ink"}]), **BASE), [],
         'the adapters in the node Lora JSON are not read ([{"lora": "ink"}])'),
        (node("MultiLora", loras=["ink.safetensors"], **BASE), [],
         "the adapters in the node MultiLora are not read (['ink.safetensors'])"),
        (node("LoraLoader", **ONE | {"lora_name": ["5", 0]}), [],
         "an adapter in the node LoraLoader is computed in the graph"),
        (node("LoraTagLoader", text="a red boat", **BASE), [], None),
        (node("Lora Loader Stack (rgthree)", lora_01="None", strength_01=1, **BASE), [], None),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named(loader: dict[str, Any], used: list[dict[str, Any]], line: str | None) -> None:
    found = read(n2=loader)
    assert (items(found), found.missing) == (used, [line] if line else [])
