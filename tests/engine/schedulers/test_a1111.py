"""A1111's names, read and written."""

import pytest

from lorablend.engine.schedulers import SCHEDULERS, SPACINGS
from lorablend.engine.schedulers.a1111 import read_sampler, read_schedule_type, schedule_type_of


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_name_of_a_sampler_is_read(name):
    info = SCHEDULERS[name]
    for written in (name, info.label, info.label.upper(), *info.aliases):
        assert read_sampler(written) == (name, None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE  Exponential", ("dpmpp_2m_sde", "exponential")),
        ("Euler SGM Uniform", ("euler", "trailing")),
        ("Euler SGMUniform", ("euler", "trailing")),
        ("k_euler_ancestral", ("euler_a", None)),
        ("DPM2 Karras", (None, "karras")),
        ("Restart", (None, None)),
        ("", (None, None)),
    ],
)
def test_read_sampler(written, expected):
    assert read_sampler(written) == expected


@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_spacing_is_written_and_read_back(spacing):
    kind = read_schedule_type(schedule_type_of(spacing))
    assert kind is not None
    assert kind.spacing == spacing


def test_read_schedule_type():
    for name in ("sgm_uniform", "sgm  uniform", "SGMUniform"):
        kind = read_schedule_type(name)
        assert kind is not None
        assert kind.label == "SGM Uniform"
    assert read_schedule_type("Beta") is None
    assert read_schedule_type("") is None
