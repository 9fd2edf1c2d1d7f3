"""Values of any kind in any place: read or refused in one line, and what is read can be ordered."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lorablend.adapters.errors import RequestError
from lorablend.app.orders.reuse import order_of
from lorablend.app.pictures.metadata import programs
from lorablend.app.pictures.metadata.texts import Texts
from tests.app.pictures.metadata.program_pictures import (
    DRAW_THINGS,
    EASY,
    FOOOCUS,
    INVOKE,
    INVOKE_2,
    NOVELAI,
    NOVELAI_CHUNKS,
    RUINED,
    SWARM,
)
from tests.app.pictures.metadata.written import A1111, comfy_graph

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "None", "12", "a: b: c", "<lora:", "<lora:x:1>", "[", "\ud800", "0x0123456789", "ink.pt"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "model", "weight"]), inner),
    max_leaves=6,
)
OBJECTS = {
    "parameters": [SWARM["sui_image_params"], FOOOCUS, RUINED],
    "invokeai_metadata": [INVOKE],
    "UserComment": [NOVELAI, EASY, DRAW_THINGS],
    "sd-metadata": [INVOKE_2["image"]],
}


@st.composite
def named_texts(draw: st.DrawFn) -> dict[str, str]:
    """An object of some program in which some values are replaced."""
    key = draw(st.sampled_from(list(OBJECTS)))
    known = dict(draw(st.sampled_from(OBJECTS[key])))
    changed = known | draw(st.dictionaries(st.sampled_from([*known, "v2", "v4_prompt", "full_prompt"]), VALUES))
    if known is not changed and "swarm_version" in known:
        return {key: json.dumps({"sui_image_params": changed, "sui_models": draw(VALUES)})}
    if key == "sd-metadata":
        return {key: json.dumps({"image": changed, "model_weights": draw(VALUES)})}
    return {key: json.dumps(changed)}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, str]:
    """A graph in which some inputs are replaced, also by links to anywhere."""
    graph = comfy_graph()
    links = st.tuples(st.sampled_from([*graph, "77"]), st.just(0)).map(list)
    for node in draw(st.lists(st.sampled_from(list(graph)), max_size=4)):
        inputs = graph[node]["inputs"]
        inputs |= draw(st.dictionaries(st.sampled_from([*inputs, "lora_stack", "pipe", "text_g"]), VALUES | links))
        graph[node]["class_type"] = draw(st.sampled_from(["KSampler", "CR LoRA Stack", "SaveImage", "CFGGuider", 5]))
    return {"prompt": json.dumps(graph)}


def check(texts: dict[str, str]) -> None:
    try:
        found = programs.read_named(Texts(texts), "a.png", (64, 96))
    except RequestError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most are read
        return
    form = order_of(found, None, None).to_json()
    json.dumps(form).encode()
    assert not [line for line in form["missing"] if "\n" in line or line.encode() is None]


@given(named_texts())
@settings(max_examples=50, deadline=None)
def test_objects(texts: dict[str, str]) -> None:
    check(texts)


@given(graphs())
@settings(max_examples=50, deadline=None)
def test_graphs(texts: dict[str, str]) -> None:
    check(texts)


@given(st.lists(st.sampled_from([*A1111.split(" "), "\n", ",", '"', "{", "[", "<lora:", ">", ":"]), max_size=30))
@settings(max_examples=50, deadline=None)
def test_texts(words: list[str]) -> None:
    check({"parameters": " ".join(words)})


@given(st.dictionaries(st.sampled_from([*EASY, *NOVELAI_CHUNKS, "Comment", "Dream", "lorablend"]), st.text(max_size=9)))
@settings(max_examples=50, deadline=None)
def test_chunks(texts: dict[str, str]) -> None:
    check(texts)
