"""What a grid sweeps, as it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorablend.adapters.errors import InputError
from lorablend.app.grid.axes import AXES, Axis, parse_axis


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("weight:ink=0,0.5,1", (0.0, 0.5, 1.0)),
        ("weight=-1..1:5", (-1.0, -0.5, 0.0, 0.5, 1.0)),
        ("weight=0..0.3:4,2", (0.0, 0.1, 0.2, 0.3, 2.0)),
        ("steps= 4, 8 ,20,", (4, 8, 20)),
        ("steps=4..20:5", (4, 8, 12, 16, 20)),
        ("seed=3..1", (3, 2, 1)),
        ("guidance=1e1,.5", (10.0, 0.5)),
        ("strength=0.25..0.75:3", (0.25, 0.5, 0.75)),
        ("scheduler=euler, ddim", ("euler", "ddim")),
        ("prompt=fox|wolf, grey|", ("fox", "wolf, grey", "")),
    ],
)
def test_values(text: str, values: tuple[Any, ...]) -> None:
    axis = parse_axis(text)
    assert axis.values == values
    assert list(map(type, axis.values)) == list(map(type, values))


def test_whose_weight() -> None:
    named = parse_axis("weight:sub/my=ink.v2.safetensors=0.5")
    assert (named.adapter, named.title, named.phrases) == (
        "sub/my=ink.v2.safetensors",
        "weight of my=ink.v2",
        ("weight of my=ink.v2 0.5",),
    )
    assert (parse_axis("weight=2").adapter, parse_axis("weight=2").phrases) == (None, ("all weights, times 2",))


def test_labels() -> None:
    assert parse_axis("weight=0..1:4").labels == ("0", "0.333333", "0.666667", "1")
    words = parse_axis("prompt=fox|wolf|")
    assert words.title == "in place of “fox”"
    assert words.labels == words.phrases == ("fox", "wolf", "nothing")
    assert parse_axis("steps=4").phrases == ("steps 4",)


def test_arguments_are_those_of_generate() -> None:
    arguments = {name: Axis(name=name, values=(1,)).argument for name in AXES}
    assert {name: argument for name, argument in arguments.items() if argument} == {
        "guidance": "guidance_scale",
        "steps": "steps",
        "strength": "strength",
        "scheduler": "scheduler",
        "seed": "seed",
        "prompt-rule": "prompt_rule",
    }


def test_the_examples_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that messages recommend."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.safetensors").touch()
    assert {parse_axis(example).name for example in AXES.values()} == set(AXES)


def test_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of their numbers, the last one, which has none, at the end; alike names with their folders."""
    monkeypatch.chdir(tmp_path)
    names = ["ink-000002.safetensors", "ink-000010.safetensors", "ink-9.safetensors", "ink.safetensors"]
    for name in (*names, "ink.toml", "b/ink.safetensors", "[1].safetensors"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    axis = parse_axis("checkpoint=ink*")
    assert [str(path) for path in axis.values] == [names[0], names[2], names[1], names[3]]
    assert axis.labels == ("ink-000002", "ink-9", "ink-000010", "ink")
    assert parse_axis("checkpoint=[1].safetensors").values == (Path("[1].safetensors"),)
    alike = parse_axis("checkpoint=./ink.safetensors,b/*", tmp_path)
    assert alike.labels == ("ink", "b/ink")
    assert parse_axis("checkpoint=ink-9", tmp_path).values == (tmp_path / names[2],)


ERRORS = {
    "steps": '"steps" is not an axis; write steps=4,8,20',
    "steps:a=4": '"steps:a=4" is not an axis; write steps=4,8,20',
    "weight:=1": '"weight:=1" is not an axis; write weight:ink=0,0.5,1',
    "step=4": 'a grid has no axis "step"; did you mean "steps"?',
    "cfg scale=4": (
        'a grid has no axis "cfg scale"; choose from weight, steps, scheduler, guidance, seed, strength, '
        "prompt-rule, checkpoint, prompt"
    ),
    "steps=": "steps has no values; write steps=4,8,20",
    "prompt=|wolf": "prompt has no values; write prompt=fox|wolf|bear",
    "steps=4,x": 'steps "x" is not a finite number; write steps=4,8,20',
    "weight:ink=nan": 'weight "nan" is not a finite number; write weight:ink=0,0.5,1',
    "steps=4.5": "steps has 4.5, which is not a whole number; write steps=4,8,20",
    "steps=4..20:6": "steps has 7.2, which is not a whole number; write steps=4,8,20",
    "weight=0..1": 'weight "0..1" does not say how many; write 0..1:5 for five values',
    "weight=0..1:1": 'weight "0..1:1" has 1 values; give 2 to 100',
    "seed=0..1000000000000": 'seed "0..1000000000000" has 1000000000001 values; give 2 to 100',
    "steps=8,4,8": "steps has 8 twice; give each value once",
    "weight:ink=1,1.0": "weight:ink has 1.0 twice; give each value once",
    "checkpoint=nosuch*": "nosuch* matches no .safetensors file; give another pattern, or names with commas",
    "checkpoint=nosuch": "nosuch: no such file, and no adapter folder to search for the name",
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_axis(text)
    assert str(caught.value) == ERRORS[text]
