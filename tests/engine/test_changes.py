"""A picture does not depend on what its pipeline drew before."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lorablend.engine import Pipeline

ADAPTERS = ["kohya", "peft", "kohya_text"]


def test_thirty_changes_in_any_order(make_pipeline: Callable[..., Pipeline]) -> None:
    """Forwards in one pipeline, backwards in another, and some in a new one: the bytes are the same."""
    chance = random.Random(7)
    changes: list[dict[str, Any]] = [
        {
            "blend": [
                (name, round(chance.uniform(-1, 1.2), 2)) for name in chance.sample(ADAPTERS, chance.randint(0, 3))
            ],
            "steps": chance.randint(1, 3),
            "guidance_scale": chance.choice([1.0, 4.0]),
            "scheduler": chance.choice(["euler", "euler_a", "dpmpp_2m"]),
            "seed": chance.randint(0, 9),
        }
        for _ in range(30)
    ]

    def draw(pipeline: Pipeline, change: dict[str, Any]) -> bytes:
        return pipeline.generate("a fox", **change).images[0].tobytes()

    one, other = make_pipeline(), make_pipeline()
    forwards = [draw(one, change) for change in changes]
    backwards = [draw(other, change) for change in reversed(changes)][::-1]
    for number, change in enumerate(changes):
        assert forwards[number] == backwards[number], change
    for number in range(4, 30, 5):
        assert draw(make_pipeline(), changes[number]) == forwards[number], changes[number]


def test_nothing_is_compiled_for_another_blend(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blends with a new adapter, other weights and more adapters; guidance on and off; another batch."""
    import openvino as ov

    pipeline.generate("a fox", steps=1)
    compiled: list[object] = []
    compile_model = ov.Core.compile_model

    def spy(core: ov.Core, model: object, *args: object) -> ov.CompiledModel:
        # The small graphs that fold weights into factors are compiled once per number of adapters.
        if isinstance(model, ov.Model) and len(model.get_ops()) > 100:
            compiled.append(model)
        return compile_model(core, model, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(ov.Core, "compile_model", spy)
    pipeline.generate("a fox", blend=[("kohya_text", 0.31)], steps=1)
    pipeline.generate("a fox", blend=[("kohya_text", 0.32), ("peft", 1)], steps=2, guidance_scale=1)
    pipeline.generate("a fox", blend=[("kohya_text", 0.5), ("peft", 1), ("kohya", -1)], steps=1, batch=2)
    assert compiled == []


def test_weight_zero_is_the_base_model(pipeline: Pipeline) -> None:
    base = pipeline.generate("a fox", steps=2, seed=1).images[0]
    off = pipeline.generate("a fox", blend=[("kohya", 0.0), ("peft", 0)], steps=2, seed=1).images[0]
    on = pipeline.generate("a fox", blend=[("kohya", 1.0)], steps=2, seed=1).images[0]
    assert off.tobytes() == base.tobytes()
    assert on.tobytes() != base.tobytes()


def test_tag_in_the_prompt_is_the_blend(pipeline: Pipeline) -> None:
    tagged = pipeline.generate("a fox<lora:kohya:0.6>", steps=2, seed=1)
    plain = pipeline.generate("a fox", blend=[("kohya", 0.6)], steps=2, seed=1)
    assert tagged.images[0].tobytes() == plain.images[0].tobytes()
    assert tagged.request.blend == {"mode": "sum", "items": [{"adapter": "kohya", "weight": 0.6}]}
    assert tagged.request.prompt == "a fox"


@pytest.mark.parametrize("scheduler", ["euler", "euler_a"])
def test_same_seed_in_a_batch_of_one_or_four(pipeline: Pipeline, scheduler: str) -> None:
    four = pipeline.generate("a fox", steps=3, seed=5, batch=4, scheduler=scheduler)
    assert four.seeds == [5, 6, 7, 8]
    for seed, image in zip(four.seeds, four.images, strict=True):
        alone = pipeline.generate("a fox", steps=3, seed=seed, scheduler=scheduler).images[0]
        assert image.tobytes() == alone.tobytes()
    assert len({image.tobytes() for image in four.images}) == 4


def test_same_adapter_twice_adds_up(pipeline: Pipeline) -> None:
    twice = pipeline.generate("a fox", blend=[("kohya", 0.4), ("kohya", 0.3)], steps=2, seed=1).images[0]
    once = pipeline.generate("a fox", blend=[("kohya", 0.7)], steps=2, seed=1).images[0]
    # Two sums in another order may differ in the last bit of a float, hence one level.
    assert np.abs(np.array(twice, int) - np.array(once, int)).max() <= 1
