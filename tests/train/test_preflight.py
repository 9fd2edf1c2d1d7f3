"""The summary before a training, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorablend.adapters.errors import DataError
from lorablend.train.base import Base, find_base, load_base
from lorablend.train.config import TrainConfig
from lorablend.train.data.layouts import find_examples
from lorablend.train.duration import Speed, forward_operations
from lorablend.train.order import Order
from lorablend.train.plan import Machine, TrainPlan, make_plan
from lorablend.train.preflight import Preflight, check_captions, duration, preflight
from tests.train.data.data_files import save

MACHINE = Machine("cpu", "2 CPU threads", 16 * 10**9, True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for number in range(5):
        save(folder / "2_sks fox" / f"{number}.png", number, (100, 100), caption="a sks fox" if number else None)
    save(folder / "1_wide" / "w.jpg", 9, (160, 80))
    save(folder / "1_wide" / "small.jpg", 10, (32, 16))
    return folder


def plan_for(base: Base, config: TrainConfig) -> TrainPlan:
    return make_plan(config, base, 7, MACHINE)


def run(data: Path, model: Path, **settings: object) -> Preflight:
    config = TrainConfig(data=data, model=str(model), out=Path("x.safetensors"), **settings)
    base = find_base(str(model))
    return preflight(find_examples(data), config, base, plan_for(base, config), held_out=2, speed=Speed(1e9, 5e8))


def test_what_is_said(data: Path, sdxl_source: Path) -> None:
    result = run(data, sdxl_source, batch=4, steps=30, resolution=128)
    operations = forward_operations(find_base(str(sdxl_source)).unet, 16, 16)
    assert result.buckets == {(128, 128): 5, (160, 96): 2}
    assert [crop.bucket for crop in result.crops].count((160, 96)) == 2
    assert (result.steps, result.batches_per_epoch, result.epochs) == (30, 4, 7.5)
    assert result.lines[:-3] == (
        "kohya's <repeats>_<trigger> <class> folders (1_wide: 1 repeat, 2_sks fox: 2 repeats); 7 pictures; "
        "captions: 4 from .txt files, 3 from folder names",
        "folder 1_wide: 2 pictures",
        "folder 2_sks fox: 5 pictures × 2",
        "held out for the validation loss: 2 more pictures",
        'captions: 7 of 7 pictures; such as "wide"',
        "trigger: wide, sks",
        "buckets: 128×128: 5, 160×96: 2",
        "note: 7 pictures: 1_wide/small.jpg, 1_wide/w.jpg, 2_sks fox/0.png, … smaller than the bucket, enlarged",
        "an epoch: 12 pictures with repeats, 4 batches of 4, 2 of them not full; mean batch 3.0",
        "training: 30 steps, 7.5 epochs",
    )
    assert result.lines[-3].startswith("30 steps of 4 pictures: ")  # the plan's own two lines
    # 30 steps of 3 pictures forwards and backwards, 9 validations, 8 samples three times as fast on half the speed
    seconds = (30 * 3 * 2 + 9 * 4 * 10 + 8 * 120 / 3 * 2) * operations / (0.6 * (128 / 1280) ** 0.5 * 1e9)
    assert result.seconds == pytest.approx(seconds)
    assert result.lines[-1] == (
        f"time: about {duration(seconds)} after preparation, between {duration(seconds / 1.8)} and "
        f"{duration(seconds * 1.8)}"
    )


@pytest.mark.parametrize("family", ["sdxl", "sd15"])
def test_operations_are_those_that_torch_counts(family: str, request: pytest.FixtureRequest) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    unet = load_base(str(request.getfixturevalue(f"{family}_source"))).unet.to("meta")
    config = unet.config
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        added = {"text_embeds": torch.ones(1, 64), "time_ids": torch.ones(1, 6)} if family == "sdxl" else None
        text = torch.ones(1, 77, config["cross_attention_dim"])
        unet(torch.ones(1, 4, 32, 48), torch.ones(1), text, added_cond_kwargs=added)
    assert forward_operations(config, 32, 48) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_batches_are_those_of_the_order(data: Path, sdxl_source: Path) -> None:
    examples = find_examples(data).examples
    for batch in (1, 2, 3, 4):
        result = run(data, sdxl_source, batch=batch, resolution=128)
        repeats = [example.repeats for example in examples]
        order = Order(result.crops, repeats, [1] * 7, batch=batch, seed=0, flip=False, dropout=0)
        assert order.batches_per_epoch == result.batches_per_epoch


def test_squares(data: Path, sdxl_source: Path) -> None:
    assert run(data, sdxl_source, resolution=128, buckets=False).buckets == {(128, 128): 7}


def test_damaged_pictures_are_refused_in_one_line(data: Path, sdxl_source: Path) -> None:
    (data / "1_wide" / "w.jpg").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        run(data, sdxl_source)
    assert str(caught.value) == "1_wide/w.jpg is not a picture, or damaged; save it again as PNG or JPEG"
    (data / "2_sks fox" / "0.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        run(data, sdxl_source)
    assert str(caught.value) == (
        f"2 problems in {data}: 1_wide/w.jpg is not a picture, or damaged; save it again as PNG or JPEG | "
        "2_sks fox/0.png is not a picture, or damaged; save it again as PNG or JPEG"
    )


def test_no_captions_and_no_trigger(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "data" / f"IMG_{number}.png", number)
    with pytest.raises(DataError) as caught:
        check_captions(find_examples(tmp_path / "data"))
    assert str(caught.value) == (
        f"none of the 3 pictures in {tmp_path / 'data'} has a caption, and there is no trigger word; write name.txt "
        "next to name.png, or give a trigger"
    )
    check_captions(find_examples(tmp_path / "data", trigger="sks"))
