"""Load broken adapter files by the hundred thousand: `python -m bench.fuzz --count 1000000 --seed 7`.

It does the same as tests/adapters/test_fuzz.py, for longer, and prints the outcomes. A file that crashes, hangs, takes
too much memory or raises anything but LorablendError stays in the folder that is then printed.
"""

import argparse
import logging
import shutil
import tempfile
import time
import warnings
from pathlib import Path

from tests.adapters.fuzz_files import library_drafts, plain_drafts
from tests.adapters.fuzzing import fuzz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # LyCORIS and PEFT log a lot that does not matter here
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as libraries:
        drafts = dict([*plain_drafts(), *library_drafts(Path(libraries))])
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    start = time.perf_counter()
    figures = fuzz(drafts, folder, options.seed, options.count, options.processes)
    shutil.rmtree(folder)
    print(f"{options.count} files from {len(drafts)}, seed {options.seed}: {time.perf_counter() - start:.0f} s")
    print(", ".join(f"{outcome} {times}" for outcome, times in figures.outcomes.most_common()))
    print("used by algorithm: " + ", ".join(f"{name} {times}" for name, times in figures.algorithms.most_common()))
    print(f"slowest {figures.slowest:.3f} s; most memory {figures.allocated:.0%} of the limit")


if __name__ == "__main__":
    main()
