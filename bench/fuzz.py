"""Broken adapter files by the hundred thousand: `python -m bench.fuzz --count 1000000 --seed 7`.

The same as tests/adapters/test_fuzz.py, for as long as one likes. Prints what became of the files; a file that crashes,
hangs, takes too much memory or raises anything but LorablendError stays in the folder that is named then.
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
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # LyCORIS and PEFT say much that is no news here
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as libraries:
        drafts = dict([*plain_drafts(), *library_drafts(Path(libraries))])
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    start = time.perf_counter()
    figures = fuzz(drafts, folder, given.seed, given.count, given.processes)
    shutil.rmtree(folder)
    print(f"{given.count} files from {len(drafts)}, seed {given.seed}: {time.perf_counter() - start:.0f} s")
    print(", ".join(f"{outcome} {times}" for outcome, times in figures.outcomes.most_common()))
    print("used by algorithm: " + ", ".join(f"{name} {times}" for name, times in figures.algorithms.most_common()))
    print(f"slowest {figures.slowest:.3f} s; most memory {figures.allocated:.0%} of what is allowed")


if __name__ == "__main__":
    main()
