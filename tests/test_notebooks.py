"""Every notebook is run from its first cell to its last, with the real model that is shipped."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(file, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs belong to whoever runs it"
    (training,) = (cell for cell in notebook.cells if "steps=150" in cell.source)
    training.source = training.source.replace("steps=150", "steps=15")  # what is learnt in how many, tests/train says
    for cell in notebook.cells:
        for steps in ("steps=12", "steps=3"), ("num_inference_steps=12", "num_inference_steps=3"):
            cell.source = cell.source.replace(*steps)  # the pictures are not looked at
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    drawn = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(drawn) >= 5
    warned = [out["text"] for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
    assert not [text for text in warned if "Error" in text]
