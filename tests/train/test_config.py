"""Settings from flags and TOML files: errors in one line, and files that are read back unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorablend.adapters.errors import ResourceError, TrainError
from lorablend.convert.source import Source
from lorablend.train.base import Base
from lorablend.train.config import TrainConfig, load_config
from lorablend.train.plan import Machine, make_plan, memory_needed

REQUIRED: dict[str, Any] = {"data": "pictures", "model": "owner/name", "out": "ink.safetensors"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1e-4}, "learning_rat is not a setting of a training; the nearest is learning_rate"),
        ({"rank": 0}, "rank is 0: input should be greater than or equal to 1"),
        ({"algorithm": "lorra"}, "algorithm is 'lorra': input should be 'lora', 'dora', 'locon', 'loha' or 'lokr'"),
        ({"ema": 1.0}, "ema is 1.0: input should be less than 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: input should be a finite number"),
        ({"out": "ink.pt"}, "out is 'ink.pt'; give a name that ends in .safetensors"),
        (
            {"optimizer": "prodigy", "text_encoder": True, "text_encoder_learning_rate": 0.5},
            "text_encoder_learning_rate is 0.5, learning_rate 1.0; prodigy takes one for both",
        ),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError) as caught:
        TrainConfig.model_validate({**REQUIRED, **settings})
    assert str(caught.value) == message


def test_missing() -> None:
    with pytest.raises(TrainError) as caught:
        load_config(None, {"data": "pictures", "model": "owner/name"})
    assert str(caught.value) == "out is missing; give it as a flag or in the TOML file"


def test_prodigy_has_a_learning_rate_of_its_own() -> None:
    assert TrainConfig.model_validate({**REQUIRED, "optimizer": "prodigy"}).learning_rate == 1.0
    assert TrainConfig.model_validate({**REQUIRED, "optimizer": "prodigy", "learning_rate": 0.5}).learning_rate == 0.5


def test_toml(tmp_path: Path) -> None:
    """Paths are relative to the file's folder; flags override the file."""
    (tmp_path / "model").mkdir()
    file = tmp_path / "train.toml"
    file.write_text('data = "pictures"\nmodel = "model"\nout = "ink.safetensors"\nrank = 4\nseed = 3\n')
    config = load_config(file, {"rank": 8, "out": Path("other.safetensors")})
    assert (config.data, config.model) == (tmp_path / "pictures", str(tmp_path / "model"))
    assert (config.out, config.rank, config.seed) == (Path("other.safetensors"), 8, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank = 4\nseeds = 1", "seeds is not a setting of a training; the nearest is seed"),
        ("rank =", "{file} is not readable as TOML: Invalid value (at end of document)"),
        (None, "{file}: no such file or directory; give a TOML file of settings"),
    ],
)
def test_bad_toml(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "train.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TrainError) as caught:
        load_config(file, REQUIRED)
    assert str(caught.value) == message.format(file=file)


def test_toml_round_trip(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    config = TrainConfig.model_validate(
        {
            "data": tmp_path / "a b",
            "model": "owner/name",
            "out": tmp_path / 'i"nk.safetensors',
            "min_snr_gamma": None,
            "validation_prompts": ("a fox", "ein Löwe \U0001f981\n"),
            "learning_rate": 3e-5,
            "flip": True,
            "checkpoints": 2,
        }
    )
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml(), encoding="utf-8")
    assert load_config(file, {}) == config


# SDXL's and SD 1.5's own sizes
_SDXL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
}
_COUNTS = {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}


def _base() -> Base:
    source = Source("sdxl", Path(), _COUNTS)
    return Base(source, "sdxl", 1024, 8, 32, "epsilon", True, {}, _SDXL, {})


def _plan(free: float, device: str = "cuda", processes: int = 1, host: float = 64e9, **settings: Any) -> Any:
    config = TrainConfig.model_validate({**REQUIRED, **settings})
    return make_plan(config, _base(), 20, Machine(device, "a GPU", int(free), True, processes, int(host)))


def test_plan_fits_the_memory() -> None:
    """Less memory, smaller batches, then gradient checkpointing; every step still has four pictures."""
    chosen = [(plan.batch, plan.gradient_checkpointing) for plan in map(_plan, (80e9, 40e9, 24e9, 16e9, 9e9))]
    assert chosen == [(4, False), (2, False), (1, False), (4, True), (1, True)]
    for free in (80e9, 40e9, 24e9, 16e9, 9e9):
        plan = _plan(free)
        assert plan.batch * plan.accumulation == 4
        assert plan.memory <= free
        assert plan.steps == 300


def test_plan_refuses_what_would_spill() -> None:
    with pytest.raises(ResourceError) as caught:
        _plan(5e9)
    assert str(caught.value).startswith("sdxl at 1024 pixels needs about ")
    assert str(caught.value).endswith(" with batch 1, a GPU has 5.0 GB free; lower resolution or close other programs")


def test_plan_counts_pictures_over_all_devices() -> None:
    """As many pictures are seen on four devices as on one."""
    plans = [_plan(80e9, processes=processes, batch=1, accumulation=4 // processes) for processes in (1, 2, 4)]
    assert {plan.pictures for plan in plans} == {1200}
    assert [plan.steps for plan in plans] == [300, 300, 300]


def test_plan_of_a_resumed_run_is_the_first_one() -> None:
    config = TrainConfig.model_validate(REQUIRED)
    first = make_plan(config, _base(), 20, Machine("cuda", "a GPU", int(24e9), True))
    kept = first.resolve(config).model_dump()
    again = make_plan(config, _base(), 20, Machine("cuda", "a GPU", int(80e9), True), kept)
    assert again.resolve(config) == first.resolve(config)


def test_plan_learns_faster_with_a_narrow_model() -> None:
    """SDXL's own rate for SDXL; a given rate is kept."""
    small = replace(_base(), unet={**_SDXL, "block_out_channels": [64, 128, 192]})
    chosen = [
        make_plan(TrainConfig.model_validate(REQUIRED | said), base, 20, Machine("cpu", "a CPU", int(99e9), True))
        for base, said in ((_base(), {}), (small, {}), (small, {"learning_rate": 3e-4}))
    ]
    assert [plan.learning_rate for plan in chosen] == [1e-4, 7e-4, 3e-4]


def test_plan_says_what_it_chose() -> None:
    assert list(_plan(16e9).lines()) == [
        "300 steps of 4 pictures: 4 at once; learning rate 0.0001",
        f"a GPU, bf16, gradient checkpointing; about {_plan(16e9).memory / 1e9:.1f} GB of 16.0 GB free",
    ]


def test_plan_draws_where_there_is_memory() -> None:
    """On a CPU next to the model; with a GPU in the CPU's own memory. Otherwise a note says that nothing is drawn."""
    large, middle, small = (_plan(free, "cpu", resolution=512, batch=1) for free in (32e9, 18e9, 14e9))
    assert [(plan.draws, plan.keeps) for plan in (large, middle, small)] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert 11e9 < middle.memory < 16e9, "drawing alone was measured at 10.5 GB with the mapped file"
    assert large.memory == small.memory + large.drawing
    assert (large.sample_every, small.sample_every) == (large.checkpoint_every, 0)
    assert list(small.lines())[2:] == [
        "note: no samples, and no picture to check the file with: drawing would take another "
        f"{small.drawing / 1e9:.1f} GB of the CPU's memory, which is not free"
    ]
    assert [_plan(80e9, host=host).draws for host in (64e9, 12e9)] == [True, False]


def test_plan_refuses_a_resolution_that_cannot_be_drawn() -> None:
    with pytest.raises(TrainError) as caught:
        _plan(80e9, resolution=1000)
    assert str(caught.value) == "resolution is 1000, sdxl takes multiples of 32; give 992 or 1024"


def test_memory_of_real_models() -> None:
    """SDXL's adapters are trained on 10 to 12 GB with gradient checkpointing, and 1024 pixels do not fit 16 GB without
    (kohya's documentation; training on consumer GPUs at that size is always with it)."""
    config = TrainConfig.model_validate(REQUIRED)
    assert 6e9 < memory_needed(config, _base(), 1024, "bf16", 1, True, "cuda") < 12e9
    assert memory_needed(config, _base(), 1024, "bf16", 1, False, "cuda") > 16e9
