"""The text form and the JSON form of a blend, each read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters import (
    Adapter,
    Blend,
    BlendItem,
    BlockWeights,
    Mask,
    Schedule,
    load_adapter,
    parse_lora_option,
    parse_prompt,
    read_blend_json,
    resolve_blend,
    write_tags,
)
from lorablend.adapters.blends.block_weights import PRESETS
from lorablend.adapters.blends.prompt import split_prompt
from lorablend.adapters.errors import BlendError
from tests.adapter_files import SDXL_SHAPES, message_of, random_factors, result_or_message, write_kohya


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("ink", "neon"):
        write_kohya(folder / f"{name}.safetensors", random_factors(SDXL_SHAPES))
    (folder / "left.png").touch()
    return folder


@pytest.fixture(scope="module")
def ink(folder: Path) -> Adapter:
    return load_adapter(folder / "ink.safetensors")


def open_mask(path: Path) -> np.ndarray:
    assert path.is_file()
    return np.eye(4)


LEFT = Mask(picture=np.eye(4), name="left.png")
TWELVE = (1.0, 0.0, 0.5, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

# Tag, its meaning, and whether it is the tag that we write. A1111's rule: te is the first value or te=; unet is the
# second value or unet=, or else the same as te.
TAGS: list[tuple[str, dict[str, Any], bool]] = [
    ("<lora:ink>", {"weight": 1}, False),
    ("<lora:ink:1>", {"weight": 1}, True),
    ("<lora:ink:-0.5>", {"weight": -0.5}, True),
    ("<lora:ink:0>", {"weight": 0}, True),
    ("<lora:ink:0.5:0.8>", {"weight": 0.5, "unet": 0.8}, True),
    ("<lora:ink:0.5:0.5>", {"weight": 0.5}, False),
    ("<lora:ink:0.5:unet=0.8>", {"weight": 0.5, "unet": 0.8}, False),
    ("<lora:ink:0.5:te=0.8>", {"weight": 0.8}, False),
    ("<lora:ink:te=0.8>", {"weight": 0.8}, False),
    ("<lora:ink:1:te=0.5:unet=0.8>", {"weight": 1, "unet": 0.8, "text_encoder": 0.5}, True),
    ("<lora:ink:0.8:te=0.5:unet=0.8>", {"weight": 0.8, "text_encoder": 0.5}, True),
    ("<lora:ink:1:0.8:te=0.5>", {"weight": 1, "unet": 0.8, "text_encoder": 0.5}, False),
    ("<lora:ink:1:lbw=OUTALL>", {"blocks": BlockWeights("OUTALL")}, True),
    ("<lora:ink:1:LBW = outall >", {"blocks": BlockWeights("OUTALL")}, False),
    ("<lora:ink:1:lbw=1,0,0.5,-1,1,1,1,1,1,1,1,1>", {"blocks": BlockWeights(TWELVE)}, True),
    ("<lora:ink:1:w=OUTALL>", {"blocks": BlockWeights("OUTALL")}, False),
    ("<lora:ink:1:outall>", {"blocks": BlockWeights("OUTALL")}, False),
    ("<lora:ink:0.8:1,0,0.5,-1,1,1,1,1,1,1,1,1>", {"weight": 0.8, "blocks": BlockWeights(TWELVE)}, False),
    ("<lora:ink:0.5:0.8:OUTALL>", {"weight": 0.5, "unet": 0.8, "blocks": BlockWeights("OUTALL")}, False),
    (
        "<lora:ink:1:OUTALL:unet=0.8:step=3-10>",
        {"unet": 0.8, "blocks": BlockWeights("OUTALL"), "schedule": Schedule(3, 10)},
        False,
    ),
    ("<lora:ink:1:in=0.5:mid=0:out=1>", {"blocks": BlockWeights(down=0.5, mid=0, up=1)}, True),
    (
        "<lora:ink:1:blocks=down_blocks.2@0.5,mid_block@0>",
        {"blocks": BlockWeights(paths=(("down_blocks.2", 0.5), ("mid_block", 0)))},
        True,
    ),
    ("<lora:ink:1:step=3-10>", {"schedule": Schedule(3, 10)}, True),
    ("<lora:ink:1:start=3:stop=10>", {"schedule": Schedule(3, 10)}, False),
    ("<lora:ink:1:start=3>", {"schedule": Schedule(3)}, True),
    ("<lora:ink:1:stop=10>", {"schedule": Schedule(None, 10)}, True),
    ("<lora:ink:1:end=10>", {"schedule": Schedule(None, 10)}, False),
    ("<lora:ink:1:step=0.25-0.5>", {"schedule": Schedule(0.25, 0.5)}, True),
    ("<lora:ink:1:step=2-0.5>", {"schedule": Schedule(2, 0.5)}, True),
    ("<lora:ink:1:ramp=0-1>", {"schedule": Schedule(ramp=(0, 1))}, True),
    ("<lora:ink:1:stop=0.5:ramp=-1--0.5>", {"schedule": Schedule(None, 0.5, (-1, -0.5))}, True),
    ("<lora:ink:1:step=1-5>", {"schedule": Schedule(None, 5)}, False),
    ("<lora:ink:1:mask=0,0,0.5,1>", {"mask": Mask((0, 0, 0.5, 1))}, True),
    ("<lora:ink:1:mask=left.png>", {"mask": LEFT}, True),
    (
        "<lora:ink:0.8:lbw=INS:mid=0.5:step=3-10:ramp=0-1:mask=0,0,1,0.5>",
        {
            "weight": 0.8,
            "blocks": BlockWeights("INS", mid=0.5),
            "schedule": Schedule(3, 10, (0, 1)),
            "mask": Mask((0, 0, 1, 0.5)),
        },
        True,
    ),
]


@pytest.mark.parametrize(("tag", "fields", "written"), TAGS, ids=[tag for tag, *_ in TAGS])
def test_tags(tag: str, fields: dict[str, Any], written: bool, folder: Path, ink: Adapter) -> None:
    expected = BlendItem(ink, **fields)
    text, entries = parse_prompt(f"a {tag} fox")
    assert text == "a fox"
    for source in (entries, [tag], [parse_lora_option(tag)]):
        (item,) = resolve_blend(source, folder, load=lambda _: ink, open_mask=open_mask)
        assert item == expected
    if written:
        assert write_tags(Blend((expected,))) == [tag]


MODES = {
    "<blend:switch>": ("switch", 1),
    "<blend:switch:2>": ("switch", 2),
    "< Blend : Composite>": ("composite", 1),
    "<blend:sum>": ("sum", 1),
}


@pytest.mark.parametrize("tag", MODES)
def test_the_mode(tag: str, folder: Path) -> None:
    text, entries = parse_prompt(f"<lora:ink:1> a {tag} fox <lora:neon:0.5>")
    blend = resolve_blend(entries, folder)
    assert (text, len(blend), blend.mode, blend.switch_steps) == ("a fox", 2, *MODES[tag])


ERRORS = {
    "<lora:ink:1:lwb=OUTALL>": 'unknown key "lwb"; did you mean "lbw"?',
    "<lora:ink:1:zzz=1>": (
        'unknown key "zzz"; choose from te, unet, dyn, lbw, in, mid, out, blocks, step, start, stop, end, ramp, mask'
    ),
    "<lora:ink:1:lbw=INS:lbw=INS>": "lbw= is given twice",
    "<lora:ink:1:1:8>": "a rank for one adapter (dyn) is not supported; max_rank applies to the whole blend",
    "<lora:ink:1:dyn=8>": "a rank for one adapter (dyn) is not supported; max_rank applies to the whole blend",
    "<lora:ink:1:1:8:3>": '"3" is one value too many; write <lora:name:te:unet>, then key=value',
    "<lora:ink:1:x>": 'unet weight "x" is not a finite number',
    "<lora:ink:te=x>": 'te "x" is not a finite number',
    "<lora:ink:1:lbw=OUTAL>": 'lbw "OUTAL" is neither a preset nor a list; did you mean "OUTALL"?',
    "<lora:ink:1:lbw=1,2>": "lbw has 2 numbers; give 12 or 20 for SDXL, 17 or 26 for SD 1.5 and SD 2",
    "<lora:ink:1:lbw=1,R>": 'lbw has "R", a weight drawn by chance or taken over; give a number',
    "<lora:ink:1:1,X+0.1>": 'lbw has "X+0.1", a weight drawn by chance or taken over; give a number',
    "<lora:ink:1:lbw=1,z>": 'lbw "z" is not a finite number',
    "<lora:ink:1:OUTALL:w=INS>": "lbw= is given twice",
    "<lora:ink:1:OUTALL:ATTNDEEPON>": "weights per element (lbwe=) are not supported; use lbw= or blocks=",
    "<lora:ink:1:lbwe=ATTNDEEPON>": "weights per element (lbwe=) are not supported; use lbw= or blocks=",
    "<lora:ink:1@0,0@1>": (
        "weights per step (as in 0@0,1@0.5) are not supported; use step=, start=, stop= or ramp="
    ),
    "<lora:ink:unet=1@0,0@1>": (
        "weights per step (as in 0@0,1@0.5) are not supported; use step=, start=, stop= or ramp="
    ),
    "<lora:ink:1:x=0.5>": "a weight that block weights refer to (x=) is not supported; write each number",
    "<lora:ink:1:hr=0.5>": "a weight for the second pass (hr=) is not supported; there is one pass",
    "<lora:ink:1:in=x>": 'in "x" is not a finite number',
    "<lora:ink:1:blocks=mid_block>": (
        'blocks "mid_block" has no factor; write blocks=down_blocks.2@0.5,mid_block@0'
    ),
    "<lora:ink:1:blocks=mid_block@x>": 'mid_block "x" is not a finite number',
    "<lora:ink:1:blocks=midblock@1>": 'there is no module under "midblock"; did you mean "mid_block"?',
    "<lora:ink:1:step=3>": 'step "3" is not a range; write step=3-10',
    "<lora:ink:1:step=10-3>": "there is no step in the window from step 10 to step 3",
    "<lora:ink:1:step=1-3:stop=4>": "step= and stop= mean the same thing; give one of them",
    "<lora:ink:1:stop=3:end=4>": "stop= and end= mean the same thing; give one of them",
    "<lora:ink:1:start=x>": 'start "x" is not a finite number',
    "<lora:ink:1:ramp=0>": 'ramp "0" is not a range; write ramp=0-1',
    "<lora:ink:1:mask=>": "mask= is empty; give a box as left,top,right,bottom, or a picture",
    "<blend:zzz>": 'blend mode "zzz" is unknown; choose from sum, switch, composite',
    "<blend:swich>": 'blend mode "swich" is unknown; did you mean "switch"?',
    "<blend:switch:x>": "write <blend:switch>, <blend:switch:2> for turns of two steps, or <blend:composite>",
    "<blend:switch:1234567890>": "write <blend:switch>, <blend:switch:2> for turns of two steps, or <blend:composite>",
    "<lora:ink:1:stop=1234567890>": (
        "stop 1234567890.0 is neither a whole step nor a fraction of the run from 0.0 to 1.0"
    ),
    "<blend:switch:0>": "switch_steps is 0; give a whole number of steps, 1 or more",
}  # fmt: skip


@pytest.mark.parametrize("tag", ERRORS)
def test_refused_tags(tag: str) -> None:
    assert message_of(BlendError, lambda: parse_prompt(f"a {tag}")) == f"{tag}: {ERRORS[tag]}"
    assert message_of(BlendError, lambda: parse_lora_option(tag)) == f"{tag}: {ERRORS[tag]}"


def test_a_bad_tag_costs_no_other_tag_and_no_word() -> None:
    text, entries, errors = split_prompt("a <lora:ink:1@0,0@1> red <lora:neon:0.4> boat, <lora:lost, at sea <lora:ink>")
    assert (text, entries) == ("a red boat, , at sea", [("neon", 0.4), ("ink", 1)])
    assert [str(error) for error in errors] == [
        "<lora:ink:1@0,0@1>: weights per step (as in 0@0,1@0.5) are not supported; use step=, start=, stop= or ramp=",
        "<lora:lost, at sea : the tag has no closing >",
    ]


PIECES = ["<lora:", "<blend:", ">", ":", "=", ",", "-", "@", " ", "ink", "1", "0.5", "nan", "mid_block", "OUTALL", "²"]
PIECES += ["switch", "te", "unet", "lbw", "in", "mid", "out", "blocks", "step", "start", "stop", "end", "ramp", "mask"]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_prompt, parse_lora_option):
        result_or_message(BlendError, lambda: read(text))  # noqa: B023


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<lora:a:1> <lora:b:1>", '"<lora:a:1> <lora:b:1>": 2 tags; write one for each option'),
        ("<lora:a:1>:0.5", '"<lora:a:1>:0.5" is more than tags; write <lora:ink:0.8>, one after the other'),
        ("<a>", '"<a>" is more than tags; write <lora:ink:0.8>, one after the other'),
    ],
)
def test_refused_options(text: str, message: str) -> None:
    assert message_of(BlendError, lambda: parse_lora_option(text)) == message


def test_a_list_for_another_base_model_names_the_adapter(folder: Path, ink: Adapter) -> None:
    sd15 = replace(ink, base_model="sd15")
    call = lambda: resolve_blend(["<lora:ink:1:lbw=1,1,1,1,1,1,1,1,1,1,1,1>"], folder, load=lambda _: sd15)  # noqa: E731
    assert message_of(BlendError, call) == (
        "ink: lbw has 12 numbers, which is for SDXL, but the adapter is for SD 1.5; give 17 or 26 numbers"
    )


# lossless in both forms

weights = st.floats(-4, 4)
optional = st.none() | weights
bounds = st.none() | st.integers(2, 40) | st.floats(0.01, 0.99)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    low, high = draw(bounds), draw(bounds)
    if low is not None and high is not None and type(low) is type(high):
        low, high = sorted((low, high))
        high = None if low == high else high
    return Schedule(low, high, draw(st.none() | st.tuples(weights, weights)))


block_weights = st.builds(
    BlockWeights,
    st.none() | st.sampled_from(sorted(PRESETS)) | st.tuples(*[weights] * 12) | st.tuples(*[weights] * 20),
    st.dictionaries(
        st.sampled_from(["down_blocks.2", "mid_block", "text_encoder", "up_blocks.0.attentions.1"]), weights
    )
    .map(dict.items)
    .map(tuple),
    optional,
    optional,
    optional,
)
masks = st.just(LEFT) | st.builds(
    lambda x, y, w, h: Mask((x / 2, y / 2, (x + w) / 2 + 0.25, (y + h) / 2 + 0.25)), *[st.floats(0, 0.5)] * 4
)
items = st.tuples(weights, optional, optional, st.none() | block_weights, st.none() | schedules(), st.none() | masks)
modes = st.sampled_from([("sum", 1), ("composite", 1), ("switch", 1), ("switch", 3)])


@given(st.lists(items, max_size=4), modes)
def test_both_forms_are_lossless(ink: Adapter, folder: Path, items: list[Any], mode: tuple[str, int]) -> None:
    blend = Blend(tuple(BlendItem(ink, *fields) for fields in items), *mode)

    def read(entries: Any) -> Blend:
        return resolve_blend(entries, folder, load=lambda _: ink, open_mask=open_mask)

    assert read(parse_prompt(" ".join(["a fox", *write_tags(blend)]))[1]) == blend
    assert read([" ".join(write_tags(blend))] if len(blend) else [blend]) == blend
    assert read([read_blend_json(blend.to_json())]) == blend
    assert read([blend]) == blend
    assert read([*blend, {"mode": mode[0], "switch_steps": mode[1]}]) == blend


def test_the_json_form(ink: Adapter) -> None:
    blend = Blend(
        (
            BlendItem(ink, 0.8, text_encoder=0.5, blocks=BlockWeights("INS"), schedule=Schedule(3, 0.5, (0, 1))),
            BlendItem(ink, 1, unet=0.5, blocks=BlockWeights(paths=(("mid_block", 0),)), mask=LEFT),
            BlendItem(ink, mask=Mask((0, 0, 0.5, 1))),
        ),
        "switch",
        2,
    )
    assert json.loads(blend.to_json()) == {
        "mode": "switch",
        "switch_steps": 2,
        "items": [
            {
                "adapter": "ink",
                "weight": 0.8,
                "text_encoder": 0.5,
                "blocks": "INS",
                "schedule": {"start": 3, "stop": 0.5, "ramp": [0, 1]},
            },
            {"adapter": "ink", "weight": 1, "unet": 0.5, "blocks": {"mid_block": 0}, "mask": "left.png"},
            {"adapter": "ink", "weight": 1, "mask": [0, 0, 0.5, 1]},
        ],
    }
    assert json.loads(Blend().to_json()) == {"mode": "sum", "items": []}


def test_names_that_cannot_be_in_a_tag(ink: Adapter) -> None:
    mask = Mask(picture=np.eye(2), name="a:<b>.png")
    assert write_tags(Blend((BlendItem(ink, mask=mask),)), ["x:y>"]) == ["<lora:x_y_:1:mask=a__b_.png>"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[" * 100_000, "not a blend in JSON: nested too deeply"),
        ("[]", 'no list of "items"; write {"items": [{"adapter": "ink", "weight": 0.8}]}'),
        ('{"items": {}}', 'no list of "items"; write {"items": [{"adapter": "ink", "weight": 0.8}]}'),
        ('{"items": [], "mood": "sum"}', 'unknown key "mood"; did you mean "mode"?'),
    ],
)
def test_refused_json(text: str, message: str) -> None:
    assert message_of(BlendError, lambda: read_blend_json(text)) == message
