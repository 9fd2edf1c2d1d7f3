"""The one door: its defaults, its refusals (each a single line), its callback."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import Cancelled, DeviceError, LorablendError, ModelError, RequestError
from lorablend.engine import Pipeline, Request, Step
from lorablend.engine import pipeline as pipeline_module

GREY = Image.new("RGB", (64, 64), "grey")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 100}, "width is 100; give a multiple of 8 from 64 to 4096, such as 96"),
        ({"height": 8}, "height is 8; give a multiple of 8 from 64 to 4096, such as 64"),
        ({"width": 5000}, "width is 5000; give a multiple of 8 from 64 to 4096, such as 4096"),
        (
            {"width": 10**400},
            f"width is 1{'0' * 79}…{'0' * 80}; give a multiple of 8 from 64 to 4096, such as 4096",
        ),
        ({"negative_prompt": "a\udcff"}, "negative_prompt has a broken character at place 2; give text in UTF-8"),
        ({"width": 64.5}, "width is 64.5; give a whole number"),
        ({"steps": 0}, "steps is 0; give 1 to 1000"),
        ({"steps": 1001}, "steps is 1001; give 1 to 1000"),
        ({"batch": 0}, "batch is 0; give 1 to 64"),
        ({"seed": -1}, "seed is -1; give 0 to 9223372036854775743"),
        (
            {"guidance_scale": float("nan")},
            "guidance_scale is nan; give a number of 0 or more",
        ),
        ({"image": GREY, "strength": 0}, "strength is 0; give a number above 0, at most 1"),
        ({"image": GREY, "strength": 1.5}, "strength is 1.5; give a number above 0, at most 1"),
        ({"strength": 0.5}, "strength is given without image; give the picture to start from"),
        ({"mask": GREY}, "mask is given without image; give the picture that it belongs to"),
        (
            {"latents": np.zeros((1, 4, 4, 4), np.float32)},
            "latents have the shape [1, 4, 4, 4]; these settings need [1, 4, 8, 8]",
        ),
        (
            {"latents": np.full((1, 4, 8, 8), np.nan, np.float32)},
            "latents hold NaN or infinity; give finite numbers",
        ),
    ],
)
def test_refused(pipeline: Pipeline, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        pipeline.generate("a fox", **kwargs)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "kwargs",
    [
        {"scheduler": "eular"},
        {"spacing": "karas"},
        {"blend": [("kohja", 1.0)]},
        {"blend": [("kohya", float("inf"))]},
        {"blend": [("kohya", "much")]},
        {"blend": [("nowhere/kohya.safetensors", 1.0)]},
    ],
    ids=str,
)
def test_other_refusals_are_one_line_of_one_class(pipeline: Pipeline, kwargs: dict[str, Any]) -> None:
    with pytest.raises(LorablendError) as caught:
        pipeline.generate("a fox", **kwargs)
    assert "\n" not in str(caught.value)


def test_no_such_device(sdxl_model: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        Pipeline(sdxl_model, device="NPU")
    assert re.fullmatch(r"device NPU not found; this machine has CPU.*", str(caught.value))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"runtime": "fast"}, "runtime is 'fast'; choose one of auto, live, genai"),
        ({"precision": "int4"}, "precision is 'int4'; choose one of f32, f16, bf16"),
    ],
)
def test_refused_by_the_constructor(sdxl_model: Path, kwargs: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        Pipeline(sdxl_model, **kwargs)  # pyright: ignore[reportArgumentType]
    assert str(caught.value) == message


def test_adapters_are_read_again_when_they_change(
    lora_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or when PEFT's settings beside them do; a link goes by its own name."""
    file, link = tmp_path / "adapter_model.safetensors", tmp_path / "link.safetensors"
    shutil.copy(lora_dir / "kohya.safetensors", file)
    link.symlink_to(file)
    store = pipeline_module._AdapterStore(lenient=False)  # pyright: ignore[reportPrivateUsage]
    first = store.load(file)
    assert store.load(file) is first
    assert store.load(link).name == "link"
    file.with_name("adapter_config.json").write_text("{}")
    second = store.load(file)
    assert second is not first
    os.utime(file, (1, 1))
    assert store.load(file) is not second
    monkeypatch.setattr(pipeline_module, "_KEPT_ADAPTERS", 1)
    store.load(link)
    assert list(store._known) == [link]  # pyright: ignore[reportPrivateUsage]


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Pipeline(tmp_path)


def test_defaults_and_what_comes_back(pipeline: Pipeline) -> None:
    result = pipeline.generate("a fox", steps=2, blend=[("peft", 0.5)])
    assert result.images[0].size == (64, 64)
    assert result.seeds == [result.request.seed]
    assert result.request.scheduler == "euler"
    assert result.request.spacing == "leading"
    assert [(item.adapter.name, item.weight) for item in result.blend.items] == [("peft", 0.5)]
    assert {"blend", "text", "denoise", "decode", "total"} <= set(result.timings)
    assert result.timings["total"] >= result.timings["denoise"] > 0
    again = pipeline.generate("a fox", steps=2, blend=[("peft", 0.5)], seed=result.seeds[0])
    assert again.images[0].tobytes() == result.images[0].tobytes()


def test_request_survives_json(pipeline: Pipeline) -> None:
    request = pipeline.generate("ein Fuchs „im Schnee“ <lora:kohya:0.1>", steps=1).request
    assert Request.from_json(request.to_json()) == request


def test_callback_sees_every_step(pipeline: Pipeline) -> None:
    seen: list[Step] = []
    pipeline.generate("a fox", steps=3, batch=2, callback=seen.append)
    assert [(step.picture, step.index) for step in seen] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert {(step.pictures, step.steps) for step in seen} == {(2, 3)}
    assert seen[0].latent.shape == (1, 4, 8, 8)
    assert seen[0].preview().size == (8, 8)
    assert seen[0].sigma > seen[1].sigma > seen[2].sigma > 0


def test_cancel_leaves_nothing_behind(make_pipeline: Callable[..., Pipeline], pipeline: Pipeline) -> None:
    one = make_pipeline()
    with pytest.raises(Cancelled) as caught:
        one.generate("a fox", steps=3, blend=[("kohya", 1.0)], callback=lambda step: step.index < 1)
    assert str(caught.value) == "stopped after step 2 of 3, picture 1 of 1"
    after = one.generate("a fox", steps=2, seed=1).images[0]
    assert after.tobytes() == pipeline.generate("a fox", steps=2, seed=1).images[0].tobytes()


def test_picture_to_picture_keeps_the_picture_where_the_mask_is_black(pipeline: Pipeline) -> None:
    black = Image.new("L", (64, 64), 0)
    result = pipeline.generate("a fox", image=GREY, mask=black, steps=2)
    assert result.images[0].tobytes() == GREY.tobytes()
    assert result.request.strength == 0.65


def test_input_picture_sets_the_size(pipeline: Pipeline) -> None:
    result = pipeline.generate("a fox", image=GREY.resize((101, 70)), steps=2)
    assert result.images[0].size == (96, 64)
