"""Finding adapters by name, and the weights of a blend."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import Adapter, Blend, BlendItem, load_adapter, resolve_blend
from lorablend.adapters.errors import AdapterError, BlendError
from tests.adapter_files import SDXL_SHAPES, message_of, random_factors, write_kohya

ONE_MODULE = dict(list(SDXL_SHAPES.items())[:1])


def write(path: Path, alias: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"ss_output_name": alias} if alias else None
    return write_kohya(path, random_factors(ONE_MODULE), metadata=metadata)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "ink.safetensors")
    write(tmp_path / "styles" / "Neon.v2.safetensors", alias="neon_style")
    write(tmp_path / "styles" / "deep" / "comic.SafeTensors", alias="ink")
    write(tmp_path / "a" / "twin.safetensors", alias="twins")
    write(tmp_path / "b" / "twin.safetensors", alias="twins")
    write(tmp_path / "a" / "Case.safetensors")
    write(tmp_path / "a" / "case.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    (tmp_path / "notes.txt").write_text("ink")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ink", "ink.safetensors"),
        ("ink.safetensors", "ink.safetensors"),
        ("INK", "ink.safetensors"),
        ("Neon.v2", "styles/Neon.v2.safetensors"),
        ("styles/Neon.v2", "styles/Neon.v2.safetensors"),
        ("styles/Neon.v2.safetensors", "styles/Neon.v2.safetensors"),
        ("neon.V2", "styles/Neon.v2.safetensors"),
        ("neon_style", "styles/Neon.v2.safetensors"),
        ("Neon_Style", "styles/Neon.v2.safetensors"),
        ("comic", "styles/deep/comic.SafeTensors"),
        ("comic.safetensors", "styles/deep/comic.SafeTensors"),
        ("a/twin", "a/twin.safetensors"),
        ("Case", "a/Case.safetensors"),
        ("case", "a/case.safetensors"),
    ],
)
def test_names(folder: Path, name: str, file: str) -> None:
    (item,) = resolve_blend([(name, 0.5)], folder)
    assert item.adapter.path == folder / file
    assert item.weight == 0.5


def test_paths_and_adapters(folder: Path) -> None:
    path = folder / "ink.safetensors"
    adapter = load_adapter(path)
    number: Any = np.float32(0.5)
    blend = resolve_blend([(adapter, 1), (path, -2), (str(path), number)])
    assert [(item.adapter.name, item.weight) for item in blend] == [("ink", 1.0), ("ink", -2.0), ("ink", 0.5)]
    assert blend.items[0].adapter is adapter
    assert all(type(item.weight) is float for item in blend)


def test_a_bare_word_is_a_name_whatever_lies_in_the_current_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "ink").write_text("not an adapter")
    monkeypatch.chdir(tmp_path / "cwd")
    (item,) = resolve_blend([("ink", 1)], folder)
    assert item.adapter.path == folder / "ink.safetensors"


def test_a_blend_stays_as_it_is(folder: Path) -> None:
    blend = Blend((BlendItem(load_adapter(folder / "ink.safetensors"), 1.0),))
    assert resolve_blend(blend) is blend
    assert len(resolve_blend([])) == 0
    assert resolve_blend([]) == Blend()


def test_a_callers_own_load_is_used(folder: Path) -> None:
    kept: dict[Path, Adapter] = {}

    def load(path: Path) -> Adapter:
        return kept.setdefault(path, load_adapter(path))

    first, second = resolve_blend([("ink", 1), ("ink.safetensors", 2)], folder, load=load)
    assert first.adapter is second.adapter


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inc", "inc: no adapter of that name among the 8 in {folder}; did you mean ink?"),
        ("Neon.v3", "Neon.v3: no adapter of that name among the 8 in {folder}; did you mean Neon.v2?"),
        ("neon_stile", "neon_stile: no adapter of that name among the 8 in {folder}; did you mean neon_style?"),
        ("zzzzzz", "zzzzzz: no adapter of that name among the 8 in {folder}"),
        ("../ink", "../ink: no adapter of that name among the 8 in {folder}; did you mean ink?"),
        ("x" * 300, "x" * 80 + "…" + "x" * 80 + ": no adapter of that name among the 8 in {folder}"),
        ("a\0b", "a\\x00b: no adapter of that name among the 8 in {folder}"),
        ("twin", "twin: both a/twin.safetensors and b/twin.safetensors have that name; give the path in {folder}"),
        ("twins", "twins: both a/twin.safetensors and b/twin.safetensors have that name; give the path in {folder}"),
        ("CASE", "CASE: both a/Case.safetensors and a/case.safetensors have that name; give the path in {folder}"),
    ],
)
def test_names_that_are_not_found(folder: Path, name: str, message: str) -> None:
    assert message_of(BlendError, lambda: resolve_blend([(name, 1)], folder)) == message.format(folder=folder)


def test_no_folder_to_look_in(tmp_path: Path) -> None:
    assert message_of(BlendError, lambda: resolve_blend([("ink", 1)])) == (
        "ink: no such file, and no folder of adapters to look for the name in"
    )
    assert message_of(BlendError, lambda: resolve_blend([("ink", 1)], tmp_path / "no")) == (
        f"{tmp_path / 'no'}: no such folder of adapters, wanted for ink"
    )


def test_a_missing_path_and_a_broken_file(folder: Path) -> None:
    missing = folder / "no.safetensors"
    assert message_of(AdapterError, lambda: resolve_blend([(missing, 1)])) == (
        f"{missing}: cannot be read (No such file or directory)"
    )
    assert message_of(AdapterError, lambda: resolve_blend([("broken", 1)], folder)) == (
        "broken.safetensors: not a safetensors file"
    )


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "0.8", None, True, 1j])
def test_weights_that_are_no_finite_numbers(folder: Path, weight) -> None:
    assert message_of(BlendError, lambda: resolve_blend([("ink", weight)], folder)) == (
        f"ink: weight {weight} is not a finite number"
    )
    adapter = load_adapter(folder / "ink.safetensors")
    assert message_of(BlendError, lambda: resolve_blend([(adapter, weight)])) == (
        f"ink: weight {weight} is not a finite number"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("ink", "ink: an entry of a blend is a pair, (file or name, weight)"),
        (("ink", 1, 2), "('ink', 1, 2): an entry of a blend is a pair, (file or name, weight)"),
        ((7, 1), "7: an adapter is given by its path, its name or an Adapter"),
    ],
)
def test_entries_of_another_kind(entry, message: str) -> None:
    assert message_of(BlendError, lambda: resolve_blend([entry])) == message
