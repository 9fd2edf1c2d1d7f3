"""Many browsers, one pipeline: order, stop, and workers that do not outlive their page."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lorablend.adapters.errors import Cancelled, RequestError
from lorablend.app.png import open_picture
from lorablend.app.seeds import seeds
from lorablend.app.studio import Picture, Studio
from lorablend.engine import Pipeline, Step


@pytest.fixture(scope="module")
def pipe(sdxl_model: Path) -> Pipeline:
    return Pipeline(sdxl_model)


def test_steps_then_pictures(pipe: Pipeline, tmp_path: Path) -> None:
    studio = Studio(pipe, tmp_path)
    events = list(studio.draw("a", count=2, seed=7, prompt="a fox", steps=2))
    steps = [event for event in events if isinstance(event, Step)]
    pictures = [event for event in events if isinstance(event, Picture)]
    assert {(step.picture, step.pictures) for step in steps} == {(0, 2), (1, 2)}
    assert [picture.seed for picture in pictures] == [7, 8]
    assert all(f"Seed: {picture.seed}" in picture.parameters for picture in pictures)
    assert {picture.path for picture in pictures} == set(tmp_path.iterdir())
    (alone,) = [e for e in studio.draw("a", count=1, seed=8, prompt="a fox", steps=2) if isinstance(e, Picture)]
    assert open_picture(alone.path).tobytes() == open_picture(pictures[1].path).tobytes()


def test_stop_keeps_what_is_done(pipe: Pipeline, tmp_path: Path) -> None:
    studio = Studio(pipe, tmp_path)
    studio.begin("a")
    drawing = studio.draw("a", count=2, seed=7, prompt="a fox", steps=50)
    while not isinstance(next(drawing), Picture):
        pass
    studio.stop("b")  # somebody else's
    assert isinstance(next(drawing), Step)
    studio.stop("a")
    with pytest.raises(Cancelled):
        list(drawing)
    assert len(list(tmp_path.iterdir())) == 1


def test_stop_while_waiting(pipe: Pipeline, tmp_path: Path) -> None:
    studio = Studio(pipe, tmp_path)
    studio.begin("a")
    studio.stop("a")
    with pytest.raises(Cancelled) as caught:
        list(studio.draw("a", count=1, seed=7, prompt="a fox", steps=2))
    assert str(caught.value) == "stopped before the first step"


def test_a_closed_page_stops_its_work(pipe: Pipeline, tmp_path: Path) -> None:
    studio = Studio(pipe, tmp_path)
    drawing = studio.draw("a", count=1, seed=7, prompt="a fox", steps=500)
    next(drawing)
    drawing.close()
    started = time.perf_counter()
    list(studio.draw("b", count=1, seed=7, prompt="a fox", steps=1))  # waits for the device
    assert time.perf_counter() - started < 2
    assert len(list(tmp_path.iterdir())) == 1


def test_two_at_once_take_turns(pipe: Pipeline, tmp_path: Path) -> None:
    studio = Studio(pipe, tmp_path)
    done: list[str] = []

    def draw(session: str) -> None:
        list(studio.draw(session, count=1, seed=7, prompt="a fox", steps=3))
        done.append(session)

    threads = [threading.Thread(target=draw, args=(session,)) for session in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["a", "b"]
    first, second = tmp_path.iterdir()
    assert open_picture(first).tobytes() == open_picture(second).tobytes()


def test_a_session_has_one_job(pipe: Pipeline, tmp_path: Path) -> None:
    studio = Studio(pipe, tmp_path)
    studio.begin("a")
    studio.begin("b")
    with pytest.raises(RequestError) as caught:
        studio.begin("a")
    assert str(caught.value) == "a picture is being drawn already; wait for it, or stop it"
    studio.end("a")
    studio.begin("a")


def test_errors_reach_the_caller(pipe: Pipeline, tmp_path: Path) -> None:
    studio = Studio(pipe, tmp_path)
    with pytest.raises(RequestError) as caught:
        list(studio.draw("a", count=1, seed=7, prompt="a fox", steps=0))
    assert str(caught.value) == "steps is 0; give 1 to 1000"


def test_seeds() -> None:
    assert list(seeds(7, 3)) == [7, 8, 9]
    assert len(seeds(None, 3)) == 3
    assert seeds(None, 1) != seeds(None, 1)
    with pytest.raises(RequestError) as caught:
        seeds(7, 0)
    assert str(caught.value) == "count is 0; give 1 to 10000"
