"""Process seconds of what people wait for, when there is much of everything.

    python -m bench.growth [--scale 1.0] [--write]

100,000 ended and 10,000 waiting jobs, 100,000 pictures, and a library of 10,000 adapters, in a temporary folder;
--scale 0.01 tries it with a hundredth. The pictures and adapters are links to a few real files. Everything goes
through the code that the server and the page call. Process seconds leave out what other programs do on the machine.
--write adds the table to bench/RESULTS.md.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from bench.run import RESULTS, _heading
from lorablend.app.jobs.jobs import Jobs
from lorablend.app.library.index import HEADER, Row, _insert
from lorablend.app.library.library import Library
from lorablend.app.library.scan import read_facts
from lorablend.app.library.walk import walk
from lorablend.app.page.complete import completions
from lorablend.app.page.page import build_page
from lorablend.app.pictures.gallery import Gallery
from lorablend.app.pictures.listing import list_all
from lorablend.app.pictures.png import save_png
from lorablend.app.rest.adapters import get_preview
from lorablend.app.service import Service
from lorablend.shipped import adapters_dir, model_dir

ENDED, WAITING, PICTURES, ADAPTERS = 100_000, 10_000, 100_000, 10_000
DAYS, CLIENTS, CARDS = 100, 50, 60
_TEXT = "a red boat <lora:ink:0.5>\nSteps: 4, Sampler: Euler, Seed: 7, Model: demo"
# What the same took before (commit 5ce035f, the same machine), at the sizes that it was measured at.
BEFORE = {
    "next job": "12 s",
    "take and finish": "1.2 s",
    "start": "3.5 s for the jobs alone",
    "Gallery tab": "2.8 s with 50,000 pictures",
    "completion": "1.1 s",
    "cards": "25 s",
}
MOST = {
    "next job": 0.01,
    "take and finish": 0.01,
    "start": 3.0,
    "Gallery tab": 0.3,
    "completion": 0.03,
    "cards": 0.3,
}


def fill(folder: Path, scale: float) -> None:
    """Make all of it."""
    _jobs(folder / "data" / "jobs.sqlite", int(ENDED * scale), int(WAITING * scale))
    _pictures(folder / "data" / "pictures", int(PICTURES * scale))
    _adapters(folder / "adapters", int(ADAPTERS * scale))


def _jobs(path: Path, ended: int, waiting: int) -> None:
    jobs = Jobs(path, limit=2 * WAITING)
    request = json.dumps({"prompt": "a red boat by the sea, " * 10, "steps": 20, "blend": [["ink", 0.5]]})
    result = json.dumps({"pictures": [{"file": "2026-11-30/213343-1-7.png", "seed": 7}], "warnings": []})
    now = time.time() - 2 * ended
    jobs._db.execute("BEGIN")
    jobs._db.executemany(
        "INSERT INTO jobs (id, kind, client, request, state, attempts, submitted, started, ended, result) "
        "VALUES (?, 'draw', ?, ?, 'done', 1, ?, ?, ?, ?)",
        ((f"e{i}", f"client {i % CLIENTS}", request, now + i, now + i, now + i + 0.9, result) for i in range(ended)),
    )
    jobs._db.executemany(
        "INSERT INTO jobs (id, kind, client, request, submitted) VALUES (?, 'draw', ?, ?, ?)",
        ((f"w{i}", f"client {i}", request, now + ended + i) for i in range(waiting)),  # each from another client
    )
    jobs._db.execute("COMMIT")
    jobs.close()


def _pictures(folder: Path, count: int) -> None:
    for day in range(DAYS):
        inside = folder / f"{date(2026, 1, 1) + timedelta(day)}"
        first = save_png(Image.new("RGB", (8, 8), (day, 0, 0)), inside, "0", {"parameters": _TEXT})
        for number in range(1, count // DAYS):
            os.link(first, inside / f"{number}.png")
        os.utime(inside, (1e9, 1e9))  # long unchanged, as most days are
    gallery = Gallery(folder / "none", folder.parent / "gallery.sqlite")
    columns = "file, mtime_ns, size, prompt, negative_prompt, seed, adapters, model, width, height, parameters"
    gallery._db.execute("BEGIN")  # the first index would read each of the links
    for file in list_all(folder):
        status, day = (folder / file).stat(), file.partition("/")[0]
        row = (file, status.st_mtime_ns, status.st_size, f"a red boat, {day}", "", 7, '["ink"]', "demo", 8, 8, _TEXT)
        gallery._db.execute(f"INSERT INTO pictures ({columns}) VALUES ({', '.join('?' * len(row))})", row)
    gallery._db.execute("COMMIT")
    gallery.close()
    (folder / "none").rmdir()


def _adapters(folder: Path, count: int) -> None:
    folder.mkdir()
    shipped = sorted(adapters_dir().glob("*.safetensors"))
    for number in range(count):
        target = folder / f"style {number:05}.safetensors"
        os.link(_copy(shipped[number % len(shipped)], folder.parent), target)
        os.link(_copy(shipped[number % len(shipped)].with_suffix(".jpg"), folder.parent), target.with_suffix(".jpg"))
    os.utime(folder, (1e9, 1e9))
    library = Library(folder)
    facts = [replace(read_facts(file), error="") for file in shipped]  # the first index would read each of the links
    library._index._make()
    with library._index._connection() as db:
        db.execute("BEGIN")
        for number, file in enumerate(walk(folder).files):
            _insert(db, Row(file, HEADER, facts[number % len(facts)], None))
        db.execute("COMMIT")


def _copy(file: Path, folder: Path) -> Path:
    """A copy on the disk of the folder, for links do not leave a disk."""
    copy = folder / file.name
    if not copy.exists():
        copy.write_bytes(file.read_bytes())
    return copy


def measure(folder: Path) -> dict[str, float]:
    """Process seconds: the median of several where that makes sense."""
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object], times: int = 5) -> None:
        seconds: list[float] = []
        for _ in range(times):
            started = time.process_time()
            work()
            seconds.append(time.process_time() - started)
        found[name] = statistics.median(seconds)
        print(f"{name}: {found[name]:.4f} s", file=sys.stderr)

    started = time.process_time()
    service = Service(folder / "data", {"demo": model_dir()}, folder / "adapters", limit=2 * WAITING)
    page = build_page(service)
    found["start"] = time.process_time() - started
    jobs, taken = service.jobs, []
    timed("next job", lambda: taken.append(jobs.take(["draw", "grid"], 0)))
    for job in taken:
        jobs.finish(job.id, {"pictures": []})

    def take_and_finish() -> None:
        job = jobs.take(["draw", "grid"], 0)
        assert job is not None
        jobs.finish(job.id, {"pictures": []})

    timed("take and finish", take_and_finish)
    timed("Gallery tab", lambda: _open(page, "gallery"))
    timed("completion", lambda: completions(service.shelf, "style 00"))
    names = service.shelf.names()[:CARDS]

    def cards() -> None:
        _open(page, "adapters")
        for name in names:
            get_preview(name, service)

    timed("cards", cards)
    service.close()
    return found


def _open(page: Any, tab: str) -> None:
    """Do what the page does when that tab is opened."""
    module = f"lorablend.app.page.{tab}"
    block = next(
        one for one in page.fns.values() if one.fn and one.fn.__module__ == module and one.fn.__name__ == "open_tab"
    )
    block.fn({component: getattr(component, "default_value", component.value) for component in block.inputs})


def table(found: dict[str, float], scale: float) -> str:
    words = {
        "next job": f"the next of {WAITING * scale:,.0f} waiting jobs, each of another client",
        "take and finish": f"take and finish a job, {ENDED * scale:,.0f} ended",
        "Gallery tab": f"open the Gallery tab, {PICTURES * scale:,.0f} pictures",
        "completion": f"one keystroke of completion, {ADAPTERS * scale:,.0f} adapters",
        "cards": f"open the Adapters tab: {CARDS} cards with their pictures",
        "start": "start with all of these, the page included",
    }
    rows = [f"| {text} | {BEFORE[name]} | {MOST.get(name, '')} | {found[name]:.4f} |" for name, text in words.items()]
    return "\n".join(["| process seconds | before | at most | now |", "|---|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), given.scale)
        found = measure(Path(folder))
    text = f"## Growth\n\n{_heading()}; `python -m bench.growth`\n\n{table(found, given.scale)}\n"
    print(text)
    if given.write:
        RESULTS.write_text(f"{RESULTS.read_text(encoding='utf-8')}\n{text}", encoding="utf-8")
    late = [name for name, most in MOST.items() if found[name] > most]
    if late:
        sys.exit(f"too slow: {', '.join(late)}")


if __name__ == "__main__":
    main()
