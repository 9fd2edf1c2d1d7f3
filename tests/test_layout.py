"""The plan of the house, asserted: who may import whom, and what the base install loads.

Every import counts, also one inside a function or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - the same library, before Python 3.11

ROOT = Path(__file__).parents[1]
# An import goes from a later entry to an earlier one, or stays in its folder.
ORDER = ["shipped", "adapters", "engine", "convert", "train", "demo", "app"]
# The floors of app/, from the ground up; what stands on one floor does not import each other.
FLOORS = [
    {"files.py", "auth.py", "database.py", "log.py"},
    {"library", "jobs", "pictures"},
    {"orders", "grid"},
    {"work"},
    {"service.py"},
    {"reuse.py"},
    {"page", "rest"},
    {"server.py"},
    {"cli"},
]
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "optimum", "nncf", "torchvision"}
MAY_BE_HEAVY = {"convert", "train", "demo"}  # inside functions; the last test here holds them to it
MOST_FILES = 30  # in one folder

FILES = [file for folder in ORDER for file in sorted((ROOT / folder).rglob("*.py"))]
FOLDERS = sorted({file.parent for root in (*ORDER, "tests", "bench") for file in (ROOT / root).rglob("*.py")})


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _imports(file: Path) -> frozenset[str]:
    """The modules that a file imports, or imports from, by their full dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(file)} has a relative import; write the whole name"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in whole if _file(name)}
            names |= modules | ({node.module or ""} if modules < whole else set())
    return frozenset(names)


def _file(module: str) -> Path | None:
    """The file of one of our modules."""
    top, *parts = module.split(".")
    path = ROOT.joinpath(*parts)
    found = {path.with_suffix(".py"), path / "__init__.py"} & set(FILES)
    return found.pop() if top == "lorablend" and found else None


@cache
def _imported_files(file: Path) -> frozenset[Path]:
    """The files of ours that a file imports."""
    return frozenset(path for name in _imports(file) if (path := _file(name))) - {file}


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_imports_go_downwards(file: Path) -> None:
    folder = _name(file).partition("/")[0]
    below = set(ORDER[: ORDER.index(folder) + 1])
    used = {_name(other).partition("/")[0] for other in _imported_files(file)}
    assert used <= below, f"{_name(file)} imports from {', '.join(sorted(used - below))}"
    if folder not in MAY_BE_HEAVY:
        assert not {name.partition(".")[0] for name in _imports(file)} & HEAVY


@pytest.mark.parametrize("file", [file for file in FILES if _name(file).startswith("app/")], ids=_name)
def test_floors_of_app(file: Path) -> None:
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    room = _name(file).split("/")[1]
    if room == "__init__.py":
        assert not _imported_files(file)
        return
    for other in _imported_files(file):
        top, _, rest = _name(other).partition("/")
        theirs = rest.partition("/")[0]
        if top == "app" and theirs != room:
            assert floor_of[theirs] < floor_of[room], f"{_name(file)} imports {_name(other)}"


def test_no_import_circles() -> None:
    """No file imports itself by way of others."""
    done: set[Path] = set()

    def visit(file: Path, way: tuple[Path, ...]) -> None:
        assert file not in way, " -> ".join(map(_name, (*way[way.index(file) :], file)))
        if file not in done:
            for other in sorted(_imported_files(file)):
                visit(other, (*way, file))
            done.add(file)

    for file in FILES:
        visit(file, ())


@pytest.mark.parametrize("folder", FOLDERS, ids=_name)
def test_folders_are_small(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {f"lorablend.{_name(file.parent).replace('/', '.')}" for file in FILES if file.name == "__init__.py"}
    assert set(listed["packages"]) == set(listed["package-dir"]) == folders
    assert {file.parent for file in FILES} == {file.parent for file in FILES if file.name == "__init__.py"}


def test_adapters_need_only_numpy_and_safetensors() -> None:
    used = {name for file in FILES if _name(file).startswith("adapters/") for name in _imports(file)}
    outside = {name.partition(".")[0] for name in used} - set(sys.stdlib_module_names)
    assert outside <= {"lorablend", "numpy", "safetensors"}


@pytest.mark.parametrize("package", [file for file in FILES if file.name == "__init__.py"], ids=_name)
def test_exported_names_are_there(package: Path) -> None:
    module = importlib.import_module(f"lorablend.{_name(package.parent).replace('/', '.')}")
    assert all(hasattr(module, name) for name in getattr(module, "__all__", []))


def test_importing_everything_loads_no_torch() -> None:
    packages = ", ".join(f"lorablend.{name}" for name in ORDER)
    code = f"import sys, {packages}; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
