"""The pedal board of the page on a busy machine: whether all edits arrive, and how long adding a pedal takes.

    python -m bench.board --runs 50

Needs the `dev` extra and a `chromium` on the path. It serves the demo, and keeps two cores busy meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Error

from lorablend.shipped import adapters_dir, model_dir
from tests.app.page.board_walk import busy, hurry
from tests.app.page.browser import browsing, opened, reload, running


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--busy", type=int, default=2, help="processes that only keep the cores busy")
    options = parser.parse_args(arguments)
    names = sorted(path.stem for path in adapters_dir().glob("*.safetensors"))
    seconds, wrong, begun = list[float](), 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with (
            running(model_dir(), adapters_dir(), data) as address,
            browsing() as browser,
            opened(browser, address) as page,  # fails at the end if there was an HTTP error, or one in the console
            busy(options.busy),
        ):
            for seed in range(options.runs):
                try:
                    seconds += hurry(page, names, data / "styles", seed)
                except (AssertionError, OSError, Error) as error:
                    wrong += 1
                    print(f"run {seed}: {str(error)[:400]}", flush=True)
                    reload(page)
    print(f"{options.runs} runs, {wrong} of them wrong, in {time.perf_counter() - begun:.0f} s")
    if seconds:
        print(f"adding a pedal, {len(seconds)} times: median {statistics.median(seconds):.3f} s, "
              f"longest {max(seconds):.3f} s")  # fmt: skip


if __name__ == "__main__":
    main()
