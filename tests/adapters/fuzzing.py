"""Thousands of broken adapter files: they must not crash, hang, take much memory, or raise anything but LorablendError.

The tests and `python -m bench.fuzz` use `fuzz`. Each file is determined by the seed and its number.
"""

import faulthandler
import json
import math
import multiprocessing
import pickle
import re
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np

from lorablend.adapters import Adapter, Delta, inspect_adapter, load_adapter
from lorablend.adapters.errors import LorablendError
from tests.adapter_files import result_or_message
from tests.adapters.fuzz_edits import mutated
from tests.adapters.fuzz_files import DTYPES, Draft, write_draft

_T = TypeVar("_T")

_SECONDS = 10  # for one file; the slowest of 100,000 takes a hundredth of it
_MEMORY = 1 << 30  # bytes that a worker may use in addition to those at its start
_MEASURED = 20  # one of this many files has its allocations measured, which is slow
# What loading may allocate: four times the file's size, and the Python objects that every file needs.
_ALLOCATED, _OBJECTS = 4, 200_000
_LARGEST_WEIGHT = 2**18  # elements of a base weight to try a delta on


@dataclass
class Figures:
    """The outcomes of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)  # "loaded", "loaded leniently", "refused", "used"
    algorithms: Counter[str] = field(default_factory=Counter)  # of the deltas that were computed
    slowest: float = 0.0  # seconds, of loading and using one file
    allocated: float = 0.0  # the most that loading allocated, as a share of the limit

    def add(self, other: "Figures") -> None:
        self.outcomes += other.outcomes
        self.algorithms += other.algorithms
        self.slowest = max(self.slowest, other.slowest)
        self.allocated = max(self.allocated, other.allocated)


def fuzz(drafts: Mapping[str, Draft], folder: Path, seed: int, count: int, processes: int = 2) -> Figures:
    """Make, load and use `count` broken files. Raises AssertionError, which names a file that stays in `folder`."""
    pickled = folder / "drafts.pickle"
    pickled.write_bytes(pickle.dumps(dict(drafts)))
    parts = [range(start, count, processes) for start in range(processes)]
    figures = Figures()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        for part in [pool.submit(_work, pickled, folder / f"worker{part.start}", seed, part) for part in parts]:
            figures.add(part.result())
    return figures


def _work(pickled: Path, folder: Path, seed: int, numbers: Sequence[int]) -> Figures:
    """Run one process. A hang or a crash ends it with a traceback, and breaks the pool."""
    drafts = pickle.loads(pickled.read_bytes())
    folder.mkdir()
    faulthandler.enable()
    _limit_memory()
    for draft in drafts.values():  # so that tables that are made once do not count as a file's memory
        _load(write_draft(folder, draft))
    figures = Figures()
    for number in numbers:
        faulthandler.dump_traceback_later(_SECONDS, exit=True)
        try:
            fuzz_one(drafts, folder, seed, number, figures)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            raise AssertionError(f"file {number} of seed {seed}, in {folder}: {text}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
    return figures


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def fuzz_one(drafts: Mapping[str, Draft], folder: Path, seed: int, number: int, figures: Figures) -> None:
    """Make, load and use one file."""
    random = Random(f"{seed} {number}")
    names = sorted(drafts)
    content, draft = mutated(random, drafts[random.choice(names)], drafts[random.choice(names)])
    path = write_draft(folder, draft, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if number % _MEASURED == 0:
            figures.allocated = max(figures.allocated, _share_of_memory(path))
        start = time.perf_counter()
        _load_and_use(path, random, figures)
        figures.slowest = max(figures.slowest, time.perf_counter() - start)


def _share_of_memory(path: Path) -> float:
    size = path.stat().st_size + (path.with_name("adapter_config.json").stat().st_size if "model" in path.name else 0)
    tracemalloc.start()
    try:
        _load(path, lenient=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    share = peak / (_ALLOCATED * size + _OBJECTS)
    assert share <= 1, f"{peak} bytes allocated for a file of {size}"
    return share


def _load(path: Path, **options: bool) -> Adapter | str:
    """Return the adapter, or the message of the error."""
    adapter = result_or_message(LorablendError, lambda: load_adapter(path, **options))
    assert not isinstance(adapter, str) or adapter.startswith(path.name), adapter
    return adapter


def _load_and_use(path: Path, random: Random, figures: Figures) -> None:
    strict, lenient, unread = _load(path), _load(path, lenient=True), _load(path, check_values=False)
    if isinstance(lenient, str):
        assert isinstance(strict, str), f"loads, but leniently not: {lenient}"
        figures.outcomes["refused"] += 1
        return
    if isinstance(strict, str):
        assert lenient.refused, f"loads leniently with nothing left out, but not strictly: {strict}"
        figures.outcomes["loaded leniently"] += 1
    else:
        assert not isinstance(unread, str), f"loads, but without its values not: {unread}"
        assert not strict.refused
        assert [(*module, d.made_for) for module, d in strict.deltas.items()] == [
            (*module, d.made_for) for module, d in unread.deltas.items()
        ]
        figures.outcomes["loaded"] += 1
    for adapter in (strict, lenient):
        if not isinstance(adapter, str):
            _check_counts(adapter)
    moderate = _is_moderate(lenient)
    used = {delta.algorithm for delta in lenient.deltas.values() if _use(delta, random, moderate)}
    figures.outcomes["used"] += bool(used)
    figures.algorithms.update(used)
    for bias in lenient.biases.values():
        change = _computed(lambda bias=bias: bias.dense(np.ones(bias.out_features, np.float32)))
        assert change is None or (change.shape == (bias.out_features,) and change.dtype == np.float32)


def _check_counts(adapter: Adapter) -> None:
    """Assert that every tensor is counted once and that the report is plain data."""
    report = inspect_adapter(adapter)
    json.dumps(report, allow_nan=False)
    assert report["covered"] + len(report["ignored"]) + len(report["refused"]) == len(adapter.file.tensors)
    assert not set(adapter.ignored) & set(adapter.refused)
    assert {*adapter.ignored, *adapter.refused} <= adapter.file.tensors.keys()
    assert all(warning.isprintable() for warning in adapter.warnings)


def _shapes(delta: Delta) -> Iterator[tuple[int, ...]]:
    """Shapes of weights that the delta may fit, small enough to be quick."""
    told = tuple(map(int, re.findall(r"\d+", delta.made_for)))
    pairs = product((delta.out_features or 0, *told[:1], 4), (delta.in_features or 0, *told[-1:], 6))
    for shape in (told, *((*pair, *kernel) for pair in pairs for kernel in ((), (1, 1), (3, 3))), told[:1]):
        if 0 < math.prod(shape) <= _LARGEST_WEIGHT and delta.fits(shape):
            yield shape


def _computed(compute: Callable[[], _T]) -> _T | None:
    """Return what the call returns, or None if the values are refused."""
    result = result_or_message(LorablendError, compute)
    return None if isinstance(result, str) else result


def _is_moderate(adapter: Adapter) -> bool:
    """Return whether products of a few of the numbers neither overflow float32 nor become subnormal."""
    for tensor in adapter.file.tensors.values():
        if tensor.dtype in DTYPES and tensor.is_finite():
            sizes = np.abs(tensor.float32())
            if sizes.max(initial=0) > 1e9 or sizes.min(initial=1, where=sizes > 0) < 1e-9:
                return False
    return True


def _use(delta: Delta, random: Random, moderate: bool) -> bool:
    """Use everything that the engine uses; return whether there was a weight that the delta fits.

    moderate: all forms must give the same numbers (up to rounding, for the products are in different orders).
    """
    shape = next(_shapes(delta), None)
    if shape is None:
        return False
    weight = np.random.default_rng(random.getrandbits(32)).normal(0, 0.5, shape).astype(np.float32)
    change = _computed(lambda: delta.dense(weight))
    factors = _computed(delta.factors)
    raw, gated = _computed(delta.raw_factors), _computed(lambda: delta.gated(weight))
    if change is None:  # numbers beyond float32
        return True
    assert change.shape == shape
    assert change.dtype == np.float32
    assert np.isfinite(change).all()
    assert change.flags.writeable
    assert raw is None or delta.live == "factors"
    assert gated is None or delta.live == "gate"
    if raw is not None:
        assert raw.down.dtype == raw.up.dtype
        assert (len(raw.down), raw.up.shape[1]) == (delta.live_rank, delta.live_rank)
    if not moderate:
        return True
    if factors is not None:
        _assert_alike(change, *_product(*factors))
    if gated is not None:
        gate = gated.gate.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1)) * weight
        low_rank = bound = np.zeros(shape)
        if gated.down is not None and gated.up is not None:
            low_rank, bound = (matrix.reshape(shape) for matrix in _product(gated.down, gated.up))
        _assert_alike(change, gate + low_rank, np.abs(gate) + bound)
    return True


def _product(down: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return up · down, and the sum of the terms' magnitudes, to which rounding errors are relative."""
    left, right = up.astype(np.float64), down.reshape(len(down), -1).astype(np.float64)
    return left @ right, np.abs(left) @ np.abs(right)


def _assert_alike(change: np.ndarray, other: np.ndarray, bound: np.ndarray) -> None:
    """Assert equality up to 1e-4 of the terms, which are few and computed in float32."""
    difference = np.abs(change - other.reshape(change.shape))
    limit = 1e-4 * np.maximum(bound.reshape(change.shape), np.abs(change)) + 1e-36
    assert (difference <= limit).all(), f"its forms differ by {(difference / limit).max():g} of the tolerance"
