"""The plan of the house, asserted: who may import whom, and what the base install loads."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ["adapters", "engine", "convert", "train", "demo", "app"]
ALLOWED = {name: set(ORDER[: i + 1]) for i, name in enumerate(ORDER)}
# Where "demo" is a model's name: from demo/__init__.py alone.
KNOWS_DEMO = {"engine/pipeline.py", "train/base.py", "train/loop.py"}
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "optimum", "nncf", "torchvision"}
MAY_BE_HEAVY = {"convert", "train", "demo"}  # inside functions; the last test here holds them to it


def _imports(file: Path) -> set[tuple[str, str]]:
    """(top-level package, the rest) of every absolute import in the file, at any depth."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        found |= {(name.partition(".")[0], name.partition(".")[2]) for name in names}
    return found


FILES = [(folder, file) for folder in ORDER for file in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize(("folder", "file"), FILES, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_imports_go_downwards(folder: str, file: Path) -> None:
    ours = {rest.partition(".")[0] for top, rest in _imports(file) if top == "lorablend"}
    if file.relative_to(ROOT).as_posix() in KNOWS_DEMO:
        assert {rest for top, rest in _imports(file) if rest.startswith("demo")} <= {"demo"}
        ours -= {"demo"}
    assert ours <= ALLOWED[folder], f"{file} imports lorablend.{', lorablend.'.join(sorted(ours - ALLOWED[folder]))}"
    if folder not in MAY_BE_HEAVY:
        assert not {top for top, _ in _imports(file)} & HEAVY


def test_adapters_need_only_numpy_and_safetensors() -> None:
    outside = {top for folder, file in FILES if folder == "adapters" for top, _ in _imports(file)}
    assert outside - set(sys.stdlib_module_names) <= {"lorablend", "numpy", "safetensors"}


@pytest.mark.parametrize("folder", [name for name in ORDER if (ROOT / name / "__init__.py").exists()])
def test_exported_names_are_sorted_and_there(folder: str) -> None:
    package = importlib.import_module(f"lorablend.{folder}")
    assert sorted(package.__all__) == list(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


def test_importing_everything_loads_no_torch() -> None:
    packages = ", ".join(f"lorablend.{name}" for name in ORDER if (ROOT / name / "__init__.py").exists())
    code = f"import sys, {packages}; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
