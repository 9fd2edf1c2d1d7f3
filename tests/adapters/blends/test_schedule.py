from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters import Schedule
from lorablend.adapters.errors import BlendError
from tests.adapter_files import message_of


@pytest.mark.parametrize(
    ("form", "steps", "on"),
    [
        ({}, 3, [0, 1, 2]),
        ({"start": 3}, 5, [2, 3, 4]),
        ({"stop": 3}, 5, [0, 1]),
        ({"start": 3, "stop": 10}, 12, [2, 3, 4, 5, 6, 7, 8]),
        ({"start": 3, "stop": 10}, 5, [2, 3, 4]),
        ({"start": 9}, 5, []),
        ({"start": 0.5}, 4, [2, 3]),
        ({"stop": 0.5}, 4, [0, 1]),
        ({"start": 0.25, "stop": 0.5}, 8, [2, 3]),
        ({"start": 0.3}, 10, [3, 4, 5, 6, 7, 8, 9]),  # 0.3 * 10 is a little more than 3
        ({"start": 0.3}, 5, [2, 3, 4]),
        ({"start": 2, "stop": 0.5}, 10, [1, 2, 3, 4]),
        ({"start": 0.9, "stop": 3}, 10, []),
    ],
    ids=str,
)
def test_windows(form: dict, steps: int, on: list[int]) -> None:
    schedule = Schedule.from_json(form)
    assert [step for step, factor in enumerate(schedule.values(steps)) if factor == 1] == on
    assert set(schedule.values(steps)) <= {0.0, 1.0}


def test_windows_count_as_the_block_weight_extension_does() -> None:
    """Its `denoiser_callback` is on for sampling_step > start - 2, off for sampling_step > stop - 2, counted from 0."""
    for start in range(1, 12):
        for stop in range(start + 1, 14):
            theirs = [float(step > start - 2 and not step > stop - 2) for step in range(12)]
            assert list(Schedule(start, stop).values(12)) == theirs


@pytest.mark.parametrize(
    ("form", "steps", "values"),
    [
        ({"ramp": [0, 1]}, 5, [0, 0.25, 0.5, 0.75, 1]),
        ({"ramp": [1, -1]}, 3, [1, 0, -1]),
        ({"ramp": [0, 1]}, 1, [1]),
        ({"ramp": [0.5, 0.5]}, 2, [0.5, 0.5]),
        ({"start": 2, "stop": 5, "ramp": [1, 2]}, 6, [0, 1, 1.5, 2, 0, 0]),
        ({"start": 0.5, "ramp": [0, 1]}, 6, [0, 0, 0, 0, 0.5, 1]),
        ({"start": 2, "stop": 50, "ramp": [0, 1]}, 4, [0, 0, 0.5, 1]),
    ],
    ids=str,
)
def test_ramps(form: dict, steps: int, values: list[float]) -> None:
    schedule = Schedule.from_json(form)
    assert list(schedule.values(steps)) == values


@given(st.integers(1, 60), st.lists(st.floats(0, 1), max_size=5))
def test_windows_that_meet_cover_the_run_once(steps: int, cuts: list[float]) -> None:
    edges = sorted({0.0, 1.0, *cuts})
    windows = [Schedule(low, high) for low, high in pairwise(edges)]
    assert [sum(window.at(step, steps) for window in windows) for step in range(steps)] == [1.0] * steps


def test_schedules_with_the_same_meaning_are_equal() -> None:
    assert Schedule(0, 1.0, (1, 1)) == Schedule(1) == Schedule(0.0) == Schedule()
    assert Schedule(2) != Schedule(3)
    assert hash(Schedule(2, ramp=[0, 1])) == hash(Schedule(2, ramp=(0.0, 1.0)))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "form",
    [{}, {"start": 3}, {"stop": 0.5}, {"start": 2, "stop": 9, "ramp": [0.0, 1.0]}, {"ramp": [-1.0, 1.0]}],
    ids=str,
)
def test_the_json_form_is_read_back(form: dict) -> None:
    assert Schedule.from_json(form).to_json() == form
    assert [type(value) for value in Schedule.from_json(form).to_json().values()] == [type(v) for v in form.values()]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"start": 10, "stop": 3}, "there is no step in the window from step 10 to step 3"),
        ({"start": 3, "stop": 3}, "there is no step in the window from step 3 to step 3"),
        ({"start": 0.5, "stop": 0.25}, "there is no step in the window from 0.5 of the run to 0.25 of the run"),
        ({"stop": 1}, "there is no step in the window from the start to step 1"),
        ({"stop": 0.0}, "there is no step in the window from the start to 0.0 of the run"),
        ({"start": 1.0}, "there is no step in the window from 1.0 of the run to the end"),
        ({"start": -1}, "start -1 is not a step; steps are counted from 1"),
        ({"stop": 2.5}, "stop 2.5 is neither a whole step nor a fraction of the run from 0.0 to 1.0"),
        ({"stop": "3"}, "stop 3 is not a finite number"),
        ({"stop": True}, "stop True is not a finite number"),
        ({"ramp": 1}, "ramp 1 is not two numbers, the factors at its first and its last step"),
        ({"ramp": [0, 1, 2]}, "ramp [0, 1, 2] is not two numbers, the factors at its first and its last step"),
        ({"ramp": [0, float("inf")]}, "ramp inf is not a finite number"),
        ({"end": 3}, 'unknown key "end"; choose from start, stop, ramp'),
        ({"strat": 3}, 'unknown key "strat"; did you mean "start"?'),
        (3, 'schedule 3 is not of the form {"start": 3, "stop": 10, "ramp": [0, 1]}'),
    ],
    ids=str,
)
def test_refused(form: object, message: str) -> None:
    assert message_of(BlendError, lambda: Schedule.from_json(form)) == message
