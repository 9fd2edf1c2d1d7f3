import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters import parse_lora_option, parse_prompt
from lorablend.adapters.errors import BlendError
from tests.adapter_files import message_of, result_or_message


@pytest.mark.parametrize(
    ("text", "rest", "blend"),
    [
        ("a fox", "a fox", []),
        ("", "", []),
        (" two  spaces stay ", " two  spaces stay ", []),
        ("a fox <lora:ink:0.8>", "a fox", [("ink", 0.8)]),
        ("<lora:ink>a fox", "a fox", [("ink", 1.0)]),
        ("a <lora:ink:1> fox", "a fox", [("ink", 1.0)]),
        ("a<lora:ink:1>fox", "afox", [("ink", 1.0)]),
        ("a\n<lora:ink:1>\nfox", "a\n\nfox", [("ink", 1.0)]),
        ("<lora:a:1><lora:b:-.5> fox <lora:a:2>", "fox", [("a", 1.0), ("b", -0.5), ("a", 2.0)]),
        ("<lora: my ink v1.2 : 1e-1 >", "", [("my ink v1.2", 0.1)]),
        ("<LoRA:Ink:+2.>", "", [("Ink", 2.0)]),
        ("<lyco:ink:0.8>", "", [("ink", 0.8)]),
        ("<lora:styles/ink:0>", "", [("styles/ink", 0.0)]),
        ("1 < 2 > 0 <3 <loram> <b> lora:ink:1", "1 < 2 > 0 <3 <loram> <b> lora:ink:1", []),
    ],
)
def test_tags_are_taken_out(text: str, rest: str, blend: list[tuple[str, float]]) -> None:
    assert parse_prompt(text) == (rest, blend)


NO_NAME = "no name in the tag; write <lora:name:0.8>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <lora:ink:0.8", "<lora:ink:0.8: the tag has no closing >"),
        ("<lora:ink <lora:neon:1>", "<lora:ink : the tag has no closing >"),
        ("<lora", "<lora: the tag has no closing >"),
        ("<lora>", f"<lora>: {NO_NAME}"),
        ("<lora ink>", f"<lora ink>: {NO_NAME}"),
        ("<lora:>", f"<lora:>: {NO_NAME}"),
        ("<lora: :0.8>", f"<lora: :0.8>: {NO_NAME}"),
        ("<lora:ink:>", '<lora:ink:>: weight "" is not a finite number'),
        ("<lora:ink:o.8>", '<lora:ink:o.8>: weight "o.8" is not a finite number'),
        ("<lora:ink:0,8>", '<lora:ink:0,8>: weight "0,8" is not a finite number'),
        ("<lora:ink:nan>", '<lora:ink:nan>: weight "nan" is not a finite number'),
        ("<lora:ink:-inf>", '<lora:ink:-inf>: weight "-inf" is not a finite number'),
        ("<lora:ink:1e999>", '<lora:ink:1e999>: weight "1e999" is not a finite number'),
        ("<lora:ink:1_0>", '<lora:ink:1_0>: weight "1_0" is not a finite number'),
        ("<lora:/etc/ink:1>", '<lora:/etc/ink:1>: "/etc/ink" is a path; in a prompt, give a name'),
        ("<lora:../ink:1>", '<lora:../ink:1>: "../ink" is a path; in a prompt, give a name'),
        ("<lora:a/../../ink>", '<lora:a/../../ink>: "a/../../ink" is a path; in a prompt, give a name'),
        ("<lora:..\\ink>", '<lora:..\\ink>: "..\\ink" is a path; in a prompt, give a name'),
        ("<lora:\\\\host\\ink>", '<lora:\\\\host\\ink>: "\\\\host\\ink" is a path; in a prompt, give a name'),
        ("<lora:a:1:mask=/a.png>", '<lora:a:1:mask=/a.png>: "/a.png" is a path; in a prompt, give a name'),
        (
            "<lora:a:1:mask=../a.png>",
            '<lora:a:1:mask=../a.png>: "../a.png" is a path; in a prompt, give a name',
        ),
        ("<hypernet:ink:1>", "<hypernet:ink:1>: hypernetworks are not supported; use adapters, as in <lora:name:0.8>"),
        ("<lora:\n:1>", f"<lora:\\n:1>: {NO_NAME}"),
    ],
)
def test_refused_tags(text: str, message: str) -> None:
    assert message_of(BlendError, lambda: parse_prompt(text)) == message


# Between slashes: a name cannot begin with one, or go upwards.
PARTS = st.text(st.characters(exclude_characters="<>:\0/\\", exclude_categories=["Cs"])).filter(
    lambda part: part.strip() not in ("", "..")
)


@given(st.lists(PARTS, min_size=1, max_size=3), st.sampled_from("/\\"), st.floats(-1e6, 1e6))
def test_any_name_and_weight_are_read_back(parts: list[str], slash: str, weight: float) -> None:
    name = slash.join(parts)
    assert parse_prompt(f"a <lora:{name}:{weight}> b") == ("a b", [(name.strip(), weight)])
    assert parse_lora_option(f"{name}:{weight}") == (name.strip(), weight)


@given(st.text(st.sampled_from("<>lora:ink 0.8,\n=")))
def test_no_tag_is_dropped_silently(text: str) -> None:
    result = result_or_message(BlendError, lambda: parse_prompt(text))
    if not isinstance(result, str):
        rest, blend = result
        assert text.count("<lora") == len(blend) + rest.count("<lora")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ink.safetensors", ("ink.safetensors", 1.0)),
        ("ink.safetensors:0.8", ("ink.safetensors", 0.8)),
        ("ink:-1", ("ink", -1.0)),
        ("ink:0", ("ink", 0.0)),
        ("C:\\styles\\ink.safetensors", ("C:\\styles\\ink.safetensors", 1.0)),
        ("C:\\styles\\ink.safetensors:.5", ("C:\\styles\\ink.safetensors", 0.5)),
        ("my:ink", ("my:ink", 1.0)),
        ("my:ink:2", ("my:ink", 2.0)),
        (" ink : 1e-1 ", ("ink", 0.1)),
    ],
)
def test_the_option_of_the_command_line(text: str, expected: tuple[str, float]) -> None:
    assert parse_lora_option(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '"": no file; write FILE or FILE:WEIGHT'),
        (":0.8", '":0.8": no file; write FILE or FILE:WEIGHT'),
        ("ink:", '"ink:": weight "" is not a finite number'),
        ("ink:nan", '"ink:nan": weight "nan" is not a finite number'),
        ("ink:-Infinity", '"ink:-Infinity": weight "-Infinity" is not a finite number'),
        ("ink:1e999", '"ink:1e999": weight "1e999" is not a finite number'),
    ],
)
def test_refused_options(text: str, message: str) -> None:
    assert message_of(BlendError, lambda: parse_lora_option(text)) == message
