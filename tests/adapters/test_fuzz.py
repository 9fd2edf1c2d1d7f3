"""Broken files of every algorithm and key family; `python -m bench.fuzz` does the same for longer."""

from pathlib import Path

import pytest

from lorablend.adapters import load_adapter
from tests.adapters.fuzz_files import ALGORITHMS, Draft, library_drafts, plain_drafts, write_draft
from tests.adapters.fuzzing import Figures, fuzz

COUNT, SEED = 50_000, 1


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Draft]:
    return dict([*plain_drafts(), *library_drafts(tmp_path_factory.mktemp("libraries"))])


def test_the_files_are_valid_before_they_are_broken(drafts: dict[str, Draft], tmp_path: Path) -> None:
    assert len(drafts) > 12 * len(ALGORITHMS)
    for number, (name, draft) in enumerate(drafts.items()):
        (tmp_path / str(number)).mkdir()
        adapter = load_adapter(write_draft(tmp_path / str(number), draft))
        assert adapter.covered + len(adapter.ignored) == len(draft.tensors), name
        assert adapter.deltas or adapter.biases or adapter.embeddings, name


@pytest.mark.slow
def test_broken_files_are_loaded_or_refused(drafts: dict[str, Draft], tmp_path: Path) -> None:
    figures = fuzz(drafts, tmp_path, SEED, COUNT)
    outcomes = figures.outcomes
    assert outcomes["loaded"] + outcomes["loaded leniently"] + outcomes["refused"] == COUNT
    # If nearly all were refused at once, the code behind would not have been tried.
    assert outcomes["loaded"] > COUNT / 10
    assert outcomes["loaded leniently"] > COUNT / 10
    assert outcomes["used"] > COUNT / 4
    expected = {"lora", "loha", "lokr", "dora", "glora", "ia3", "oft", "boft", "full", "norm"}
    assert {algorithm for algorithm, times in figures.algorithms.items() if times > COUNT / 1000} == expected
    assert figures.slowest < 5


def test_a_broken_file_is_determined_by_its_number(drafts: dict[str, Draft], tmp_path: Path) -> None:
    figures: list[Figures] = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        figures.append(fuzz(drafts, tmp_path / folder, SEED, 100))
    assert figures[0].outcomes == figures[1].outcomes
