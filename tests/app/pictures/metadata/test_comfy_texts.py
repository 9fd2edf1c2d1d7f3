"""Prompts in graphs: joined as the graph joins them; what is left out is named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.pictures.metadata.comfy_nodes import node, read, sampler

CLIP = {"clip": ["2", 1]}


def text_of(kind: str, **inputs: Any) -> dict[str, Any]:
    """The prompt's node, whose text comes from another one."""
    return {"n3": node("CLIPTextEncode", text=["10", 0], **CLIP), "n10": node(kind, **inputs)}


@pytest.mark.parametrize(
    ("nodes", "prompt"),
    [
        (text_of("StringConcatenate", string_a="a red boat", string_b="oil", delimiter=", "), "a red boat, oil"),
        (text_of("JoinStrings", string1="a red boat", string2="oil", delimiter=" "), "a red boat oil"),
        (text_of("JoinStringMulti", inputcount=2, string_1="a", string_2="b", delimiter="\\n"), "a\nb"),
        (text_of("CR Text Concatenate", text1="a", text2="b", separator=" "), "a b"),
        (text_of("StringFunction|pysssss", action="append", tidy_tags="yes", text_a="a", text_b="b", text_c=""),
         "a, b"),
        (text_of("Text Concatenate", delimiter=", ", text_a="a", text_b=["11", 0])
         | {"n11": node("Text Multiline", text="b")}, "a, b"),
        ({"n3": node("CLIPTextEncodeSDXL", text_g="", text_l="a red boat", **CLIP)}, "a red boat"),
        (text_of("ImpactWildcardProcessor", wildcard_text="a {b|c}", populated_text="a b"), "a b"),
        (text_of("easy positive", positive="a red boat"), "a red boat"),
        (text_of("SDXLPromptStyler", text_positive="a red boat", text_negative="x", style="base"), "a red boat"),
    ],
)  # fmt: skip
def test_texts(nodes: dict[str, Any], prompt: str) -> None:
    found = read(**nodes)
    assert (found.settings["prompt"], found.missing) == (prompt, [])


FIRST = 'the text of the first text encoder ({}) is left out: "oil"'


@pytest.mark.parametrize(
    ("nodes", "line"),
    [
        ({"n3": node("CLIPTextEncodeSDXL", text_g="a red boat", text_l=["10", 0], **CLIP),
          "n10": node("Model", seed=1)},
         "the text of the first text encoder (text_l) is computed in the graph; it is left out"),
        ({"n3": node("CLIPTextEncodeSDXL", text_g=["10", 0], text_l="a red boat", **CLIP),
          "n10": node("Model", seed=1)},
         "the text of the second text encoder (text_g) is computed in the graph; it is left out"),
        ({"n3": node("CLIPTextEncodeSD3", clip_g="a red boat", clip_l="oil", **CLIP)}, FIRST.format("clip_l")),
        ({"n3": node("CLIPTextEncodeFlux", clip_l="a red boat", t5xxl="sea", **CLIP)},
         'the text of the third text encoder (t5xxl) is left out: "sea"'),
        ({"n3": node("CR SDXL Prompt Encoder", pos_g="a red boat", pos_l="oil", neg_g="x", neg_l="y", **CLIP)},
         FIRST.format("pos_l")),
        ({"n3": node("smZ CLIPTextEncode", text="x", with_SDXL=True, text_g="a red boat", text_l="oil", **CLIP)},
         FIRST.format("text_l")),
        (text_of("SDXLPromptStylerAdvanced", text_positive_g="a red boat", text_positive_l="oil", style="base"),
         FIRST.format("text_positive_l")),
        (text_of("SDXLPromptStyler", text_positive="a red boat", text_negative="x", style="sai-anime"),
         "the words of the style sai-anime are left out"),
        (text_of("Language Model", prompt="a red boat"),
         "the positive text comes out of the node Language Model; what went into it is read"),
        (text_of("Text Concatenate", text_a="a red boat", text_b=["11", 0]) | {"n11": node("Model", seed=1)},
         "a part of the positive text is computed in the graph (Text Concatenate); it is left out"),
        ({"n6": sampler(positive=["10", 0]),
          "n10": node("GLIGENTextBoxApply", conditioning_to=["3", 0], text="a cat", clip=["2", 1])},
         'a second prompt (GLIGENTextBoxApply) is left out: "a cat"'),
        ({"n6": sampler(positive=["10", 0]),
          "n10": node("ConditioningMultiCombine", conditioning_1=["3", 0], conditioning_3=["11", 0]),
          "n11": node("CLIPTextEncode", text="a sea", **CLIP)},
         'a second prompt (ConditioningMultiCombine) is left out: "a sea"'),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named(nodes: dict[str, Any], line: str) -> None:
    found = read(**nodes)
    assert (found.settings["prompt"], found.missing) == ("a red boat", [line])
