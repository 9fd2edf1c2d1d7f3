"""Jobs: their states, whose turn it is, and what a kill leaves."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from lorablend.adapters.errors import QueueFullError, RequestError
from lorablend.app.jobs.jobs import Job, JobProgress, Jobs

VERSION_1 = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    client TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    attempts INTEGER NOT NULL DEFAULT 0,
    submitted REAL NOT NULL,
    started REAL,
    ended REAL,
    reason TEXT NOT NULL DEFAULT '',
    result TEXT NOT NULL DEFAULT 'null'
);
CREATE INDEX by_state ON jobs (state, number);
INSERT INTO jobs (id, kind, client, request, state, submitted, started, ended, reason)
    VALUES ('a', 'picture', '', '{}', 'failed', 1, 2, 3, 'no room');
INSERT INTO jobs (id, kind, client, request, submitted) VALUES ('b', 'picture', '', '{"prompt": "a fox"}', 4);
PRAGMA user_version = 1;
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path / "jobs.sqlite", limit=5)
    yield jobs
    jobs.close()


def taken(jobs: Jobs) -> Job:
    job = jobs.take(["picture"], 0)
    assert job is not None
    return job


def test_a_job_from_end_to_end(jobs: Jobs) -> None:
    asked = {"prompt": "ein Füchslein", "steps": 3, "blend": [["ink", 0.5]]}
    job = jobs.submit("picture", asked, "anna")
    assert (job.state, job.request, job.client, job.kind) == ("queued", asked, "anna", "picture")
    assert taken(jobs).id == job.id
    assert jobs.get(job.id).state == "running"
    assert jobs.report(job.id, JobProgress(step=1, steps=3, eta=2.0))
    assert jobs.get(job.id).progress == JobProgress(step=1, steps=3, eta=2.0)
    done = jobs.finish(job.id, {"pictures": ["a.png"]})
    assert (done.state, done.result, done.progress) == ("done", {"pictures": ["a.png"]}, None)
    assert done.started
    assert done.ended
    assert job.submitted <= done.started <= done.ended
    assert jobs.take(["picture"], 0) is None


def test_failed_says_why(jobs: Jobs) -> None:
    job = jobs.submit("picture", {})
    taken(jobs)
    assert jobs.fail(job.id, "no room on the disk").reason == "no room on the disk"
    assert jobs.get(job.id).state == "failed"


def test_clients_take_turns(jobs: Jobs) -> None:
    for name in ("a1", "a2", "a3", "b1", "c1"):
        jobs.submit("picture", name, name[0])
    order = []
    for _ in range(5):
        job = taken(jobs)
        order.append(job.request)
        jobs.finish(job.id, {})
    assert order == ["a1", "b1", "c1", "a2", "a3"]


def test_the_order_of_the_queue(tmp_path: Path) -> None:
    """As the rule says it: of the waiting clients the one whose last turn was longest ago, of its jobs the oldest."""
    random = Random(0)
    queue = Jobs(tmp_path / "jobs.sqlite", limit=1000)
    turns: dict[str, int] = {}
    waiting: list[tuple[int, str, str]] = []
    for turn in range(1, 300):
        for _ in range(random.randrange(3)):
            client, kind = random.choice("abcdefgh"), random.choice(["picture", "grid", "train"])
            waiting.append((queue.submit(kind, {}, client).number, client, kind))
        kinds = ["train"] if random.random() < 0.2 else ["picture", "grid"]
        able = [job for job in waiting if job[2] in kinds]
        job = queue.take(kinds, 0)
        assert (job is None) == (not able)
        if job is None:
            continue
        expected = min(able, key=lambda one: (turns.get(one[1], 0), one[0]))
        assert job.number == expected[0]
        turns[job.client] = turn
        waiting.remove(expected)
        if random.random() < 0.1:
            queue.put_back(job.id)
            waiting.append(expected)
        else:
            queue.finish(job.id, {})
    queue.close()


def test_current_and_stoppable_are_the_first_of_active(jobs: Jobs) -> None:
    for kind, client in (("picture", "a"), ("grid", "b"), ("picture", "b"), ("train", "a")):
        jobs.submit(kind, {}, client)
    taken(jobs)
    for kinds in (("picture",), ("picture", "grid"), ("grid",), ("train",), ("none",)):
        active = jobs.active(*kinds)
        current, behind = jobs.current(*kinds)
        assert (current, behind) == ((active[0], len(active) - 1) if active else (None, 0))
        for user in ("", "a", "b", "c"):
            first = next((job for job in active if job.is_stoppable(user)), None)
            assert jobs.stoppable(user, *kinds) == first


def test_history_is_trimmed(tmp_path: Path) -> None:
    """The jobs that ended first are forgotten, and none that waits, however old it is."""
    path = tmp_path / "jobs.sqlite"
    queue = Jobs(path, limit=20, history=3)
    old = queue.submit("train", {"old": True})
    ended = [queue.submit("picture", number) for number in range(6)]
    for _ in ended:
        queue.finish(taken(queue).id, {})
    assert [job.request for job in queue.find(kind="picture")] == [5, 4, 3]
    assert queue.get(old.id).state == "queued"
    queue.close()
    again = Jobs(path, history=2)
    assert [job.request for job in again.find(kind="picture")] == [5, 4]
    assert again.submit("picture", 6).number == 8  # numbers are not used twice
    again.close()


def test_jobs_that_mention_a_word(jobs: Jobs) -> None:
    for request in ({"image": "a"}, {"prompt": "image"}, {"mask": "b"}):
        jobs.submit("picture", request)
    assert [job.request for job in jobs.mentioning('"image":', '"mask":')] == [{"image": "a"}, {"mask": "b"}]


def test_turns_when_the_clock_is_set_back(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits until it has caught up, and no job ends before it began."""
    for name in ("a1", "b1"):
        jobs.submit("picture", name, name[0])
    first = taken(jobs)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    done = jobs.finish(first.id, {})
    assert done.started
    assert done.ended == done.started
    jobs.finish(taken(jobs).id, {})
    for name in ("a2", "b2", "b3"):
        jobs.submit("picture", name, name[0])
    assert [taken(jobs).request for _ in range(3)] == ["a2", "b2", "b3"]


def test_no_more_than_the_limit_wait(jobs: Jobs) -> None:
    for number in range(6):
        if number == 1:
            taken(jobs)
        jobs.submit("picture", number)
    with pytest.raises(
        QueueFullError, match="5 of your picture jobs are waiting, which is the limit; try again in 1 s"
    ) as error:
        jobs.submit("picture", 6)
    assert error.value.retry_after == 1
    assert len(jobs.find()) == 6


def test_a_full_queue_is_one_clients_and_one_kinds(jobs: Jobs) -> None:
    """Downloads keep nobody from drawing, and one client keeps nobody else from downloading."""
    clients = [f"client {number}" for number in range(4)]
    for _ in range(5):
        jobs.submit("add", {}, clients[0])
    assert (jobs.room("add", clients[0]), jobs.room("draw", clients[0]), jobs.room("add", clients[1])) == (0, 5, 5)
    with pytest.raises(QueueFullError, match="5 of your add jobs are waiting"):
        jobs.submit("add", {}, clients[0])
    assert jobs.submit("draw", {}, clients[0]).state == "queued"
    for client in clients[1:]:
        for _ in range(5):
            jobs.submit("add", {}, client)
    assert (jobs.room("add", "a fifth"), jobs.room("draw", "a fifth")) == (0, 5)
    with pytest.raises(QueueFullError, match="20 add jobs are waiting"):
        jobs.submit("add", {}, "a fifth")
    assert jobs.take(["add"], 0)
    assert jobs.submit("add", {}, "a fifth").state == "queued"


def test_when_to_try_again_is_told_by_jobs_of_the_same_kind(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 7000.0, *[7001.0] * 10])
    monkeypatch.setattr("lorablend.app.jobs.jobs.time.time", lambda: next(clock))
    jobs.submit("train", 0)
    trained = jobs.take(["train"], 0)
    assert trained is not None
    assert jobs.finish(trained.id, {}).ended == 7000.0
    for number in range(5):
        jobs.submit("picture", number)
        jobs.submit("train", number)
    for kind, seconds in (("picture", 1), ("train", 7000)):
        with pytest.raises(QueueFullError) as error:
            jobs.submit(kind, 5)
        assert error.value.retry_after == seconds


def test_cancel(jobs: Jobs) -> None:
    first, second = jobs.submit("picture", 1), jobs.submit("picture", 2)
    taken(jobs)
    assert jobs.cancel(second.id).state == "cancelled"
    assert jobs.cancel(first.id).state == "running"
    assert not jobs.report(first.id, JobProgress(step=1, steps=9))
    assert jobs.stop(first.id).state == "cancelled"
    assert jobs.cancel(first.id).state == "cancelled"  # again is no error
    assert jobs.take(["picture"], 0) is None


def test_what_is_shown_and_what_may_be_stopped(jobs: Jobs) -> None:
    assert jobs.current("picture", "grid") == (None, 0)
    last = jobs.submit("grid", 0, "anna")
    jobs.cancel(last.id)
    jobs.submit("train", 0, "anna")
    assert jobs.current("picture", "grid")[0] == jobs.get(last.id)
    running, hers, his = (jobs.submit("picture", 1, name) for name in ("anna", "anna", "bert"))
    taken(jobs)
    assert [job.id for job in jobs.active("picture", "grid")] == [running.id, hers.id, his.id]
    assert jobs.current("picture", "grid") == (jobs.get(running.id), 2)
    for user, job in (("", running), ("anna", running), ("bert", his)):
        assert jobs.stoppable(user, "picture", "grid") == jobs.get(job.id)
    assert jobs.stoppable("carl", "picture", "grid") is None


@pytest.mark.parametrize("end", ["killed", "in good order"])
def test_a_cancelled_job_does_not_come_back(tmp_path: Path, end: str) -> None:
    """The program ends before the worker has seen it."""
    first = Jobs(tmp_path / "jobs.sqlite")
    job, other = first.submit("picture", 1), first.submit("picture", 2)
    for _ in range(2):
        taken(first)
    assert first.cancel(job.id).ended is None  # it still runs
    if end == "in good order":
        assert [first.put_back(one.id).state for one in (job, other)] == ["cancelled", "queued"]
    first.close()
    second = Jobs(tmp_path / "jobs.sqlite")
    assert [second.get(one.id).state for one in (job, other)] == ["cancelled", "queued"]
    assert second.get(job.id).ended
    second.close()


def test_lists(jobs: Jobs) -> None:
    numbers = [jobs.submit("picture", i, "ab"[i % 2]).number for i in range(5)]
    taken(jobs)
    assert [job.number for job in jobs.find()] == numbers[::-1]
    assert [job.number for job in jobs.find(client="b")] == [numbers[3], numbers[1]]
    assert [job.request for job in jobs.find(state="running")] == [0]
    assert [job.number for job in jobs.find(limit=2, before=numbers[3])] == [numbers[2], numbers[1]]
    assert jobs.count("queued") == 4


def test_wrong_asks(jobs: Jobs) -> None:
    with pytest.raises(RequestError, match="there is no job 'nothing'"):
        jobs.get("nothing")
    with pytest.raises(RequestError, match="cannot be kept"):
        jobs.submit("picture", {"weight": float("nan")})
    assert jobs.find() == []


def test_watch_sees_every_state(jobs: Jobs) -> None:
    job = jobs.submit("picture", {})
    seen: list[Job] = []
    watcher = threading.Thread(target=lambda: seen.extend(jobs.watch(job.id)))
    watcher.start()

    def until(count: int) -> None:
        deadline = time.monotonic() + 20
        while len(seen) < count and time.monotonic() < deadline:
            time.sleep(0.005)

    until(1)
    taken(jobs)
    until(2)
    jobs.report(job.id, JobProgress(step=1, steps=2))
    until(3)
    jobs.finish(job.id, {})
    watcher.join(20)
    assert [one.state for one in seen] == ["queued", "running", "running", "done"]
    assert seen[2].progress == JobProgress(step=1, steps=2)


def test_two_workers_never_take_the_same(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs.sqlite", limit=200)
    for number in range(100):
        jobs.submit("picture", number, str(number % 7))
    done: list[int] = []

    def work() -> None:
        while job := jobs.take(["picture"], 0):
            done.append(job.request)
            jobs.finish(job.id, {})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    jobs.close()
    assert sorted(done) == list(range(100))


_KILLED = """
import os, signal, sys
from pathlib import Path
from lorablend.app.jobs.jobs import Jobs
jobs = Jobs(Path(sys.argv[1]))
if not jobs.find():
    jobs.finish(jobs.submit("picture", "first").id, {"pictures": ["a.png"]})
    jobs.submit("picture", "second"), jobs.submit("picture", "third")
assert jobs.take(["picture"], 0).request == "second"
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_nothing_is_lost_and_nothing_runs_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    for attempt in range(3):
        ended = subprocess.run([sys.executable, "-c", _KILLED, str(path)], capture_output=True, text=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        jobs = Jobs(path)
        first, second, third = reversed(jobs.find())
        assert (first.state, first.result) == ("done", {"pictures": ["a.png"]})
        assert (second.state, second.attempts) == (("queued", "queued", "failed")[attempt], attempt + 1)
        assert third.state == "queued"
        assert ("3 times" in second.reason) == (attempt == 2)
        jobs.close()


def test_a_worker_takes_its_own_kinds_only(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs.sqlite")
    long = jobs.submit("train", 1)
    assert jobs.take(["draw"], 0) is None
    short = jobs.submit("draw", 2)
    taken = [jobs.take(kinds, 0) for kinds in (["draw"], ["bake", "train"])]
    assert [job and job.number for job in taken] == [short.number, long.number]
    assert [job.number for job in jobs.find(kind="train")] == [long.number]


def test_jobs_of_unknown_kinds_fail(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs.sqlite")
    strange, known = jobs.submit("dream", 1), jobs.submit("draw", 2)
    jobs.refuse_others(["draw"])
    assert jobs.get(strange.id).state == "failed"
    assert "newer lorablend" in jobs.get(strange.id).reason
    assert jobs.get(known.id).state == "queued"


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + bytes(4080)])
def test_a_damaged_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"jobs\.sqlite is damaged .* move it away"):
        Jobs(path)
    assert path.read_bytes() == content


def test_a_database_of_version_1(tmp_path: Path) -> None:
    """It is upgraded in place; its jobs are what they were."""
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
    Jobs(path).close()
    with closing(Jobs(path)) as jobs:  # an upgraded database is not upgraded again
        waiting, failed = jobs.find()
        assert (waiting.state, waiting.request) == ("queued", {"prompt": "a fox"})
        assert (failed.state, failed.reason, failed.error) == ("failed", "no room", "")
        taken(jobs)
        assert jobs.fail(waiting.id, "no ink", "AdapterError").error == "AdapterError"
