"""`lorablend adapters …` on a library: the output, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorablend.adapters import load_adapter
from lorablend.app.cli.commands import run
from lorablend.app.library.folder import adapter_files, default_folder
from lorablend.app.library.library import Library
from tests.adapter_files import SDXL_SHAPES, random_factors, write_kohya, write_tensors
from tests.app.file_server import serving

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "ink.safetensors"
    metadata = {"modelspec.trigger_phrase": "ink drawing", "modelspec.title": "Ink \x1b[31m& Water"}
    write_kohya(path, random_factors(SDXL_SHAPES, rank=4, alpha=2.0), metadata=metadata)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default library, which does not exist yet."""
    monkeypatch.setenv("LORABLEND_ADAPTERS", str(tmp_path / "data" / "library"))
    return tmp_path / "data" / "library"


def lines(capsys: Capture, *arguments: str) -> list[str]:
    assert run(["adapters", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def error(capsys: Capture, *arguments: str) -> str:
    assert run(["adapters", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    return err.removeprefix("error: ").removesuffix("\n")


def test_add_list_search_remove(source: Path, folder: Path, capsys: Capture) -> None:
    for command in ("list", "search"):
        assert run(["adapters", command]) == 0
        none = 'there are none; add one with "lorablend adapters add"'
        assert capsys.readouterr() == ("", f"adapters in {folder}: {none}\n")
    assert lines(capsys, "add", str(source)) == [str(folder / "ink.safetensors")]
    write_kohya(source, random_factors(SDXL_SHAPES, rank=16, seed=1))
    assert lines(capsys, "add", str(source), "--name", "water") == [str(folder / "water.safetensors")]
    (folder / "broken.safetensors").write_text("<html>")
    Library(folder).set_favourite("water")
    Library(folder).set_tags("water", ["wet"])
    size = f"{(folder / 'ink.safetensors').stat().st_size / 1e3:.1f} kB"
    larger = f"{(folder / 'water.safetensors').stat().st_size / 1e3:.1f} kB"
    heading = f"name     base model  algorithm  rank  {'size'.ljust(len(larger))}  trigger words"
    ink = f"ink      sdxl        lora       4     {size.ljust(len(larger))}  ink drawing"
    water = f"water ★  sdxl        lora       16    {larger}"
    broken = "broken: cannot be used: not a safetensors file: 6 bytes long, the header alone needs 8"
    assert lines(capsys, "list") == [heading, ink, water, broken]
    assert lines(capsys, "search", "drawing") == [
        f"name  base model  algorithm  rank  {'size'.ljust(len(size))}  trigger words",
        f"ink   sdxl        lora       4     {size}  ink drawing",
    ]
    assert [line.split()[0] for line in lines(capsys, "search", "--tag", "wet", "--favourite")] == ["name", "water"]
    assert run(["adapters", "search", "nothing", "like", "it"]) == 0
    assert capsys.readouterr() == ("", f"adapters in {folder}: none of the 3 matches\n")
    assert lines(capsys, "search", "--base-model", "sd15") == []
    moved = Path(lines(capsys, "remove", "ink")[0])
    assert (moved / "ink.safetensors.removed").is_file()
    assert [line.split()[0] for line in lines(capsys, "list")] == ["name", "water", "broken:"]


def test_json(source: Path, folder: Path, capsys: Capture) -> None:
    folder.mkdir(parents=True)
    source.rename(folder / "ink.safetensors")
    (entry,) = json.loads("\n".join(lines(capsys, "list", "--json")))
    assert (entry["name"], entry["sha256"], entry["ranks"]) == ("ink", None, [4])
    (entry,) = json.loads("\n".join(lines(capsys, "search", "ink", "--hashes", "--json")))
    adapter = load_adapter(folder / "ink.safetensors")
    assert (entry["sha256"], entry["autov3"]) == (adapter.sha256, adapter.autov3)
    assert entry["title"] == "Ink \\x1b[31m& Water"


def test_a_folder_of_ones_own(source: Path, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    own = tmp_path / "own"
    missing = f"{own} is not a folder; give an existing folder of adapters"
    for command in (["list"], ["search", "x"], ["remove", "x"]):
        assert error(capsys, *command, "--lora-dir", str(own)) == missing
    assert lines(capsys, "add", str(source), "--lora-dir", str(own)) == [str(own / "ink.safetensors")]
    assert not folder.exists()
    assert error(capsys, "remove", "inc", "--lora-dir", str(own)) == (
        f"inc: no adapter with that name among the 1 in {own}; did you mean ink?"
    )


def test_add_from_an_address(source: Path, folder: Path, capsys: Capture) -> None:
    with serving(files={"/ink.safetensors": source.read_bytes()}) as server:
        address = f"{server.url}/ink.safetensors?token=secret"
        wrong = error(capsys, "add", address, "--sha256", "00")
        assert wrong == "sha256 is '00'; give 64 hex digits"
        sha256 = load_adapter(source).sha256
        assert lines(capsys, "add", address, "--sha256", sha256) == [str(folder / "ink.safetensors")]


def test_add_warns_of_what_cannot_be_used(tmp_path: Path, folder: Path, capsys: Capture) -> None:
    factors = next(iter(random_factors(SDXL_SHAPES).values()))
    path = tmp_path / "flux.safetensors"
    write_tensors(path, {"double_blocks.0.img_attn_qkv.lora_down.weight": ("F32", factors.down)})
    assert run(["adapters", "add", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{folder / path.name}\n"
    assert err.startswith("warning: the adapter was added, but cannot be used: made for ")


def test_inspect_counts_every_tensor(tmp_path: Path, source: Path, capsys: Capture) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(source)
    strange = next(iter(tensors.values()))
    some = next(name for name in tensors if name.endswith(".lora_down.weight"))
    mixed = tmp_path / "mixed.safetensors"
    save_file(tensors | {"what\x1b[31m.ever": strange, "_aux.note": strange}, mixed)
    assert "what\\x1b[31m.ever" in error(capsys, "inspect", str(mixed))
    assert run(["adapters", "inspect", str(mixed), "--lenient"]) == 0
    out = capsys.readouterr().out
    assert f"{len(tensors) + 2} tensors: {len(tensors)} covered, 1 ignored, 1 refused" in out
    assert "\nignored        _aux.note\n" in out
    assert "\nrefused        what\\x1b[31m.ever\n" in out
    assert "\x1b" not in out
    assert run(["adapters", "inspect", str(mixed), "--lenient", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["covered"] + len(report["ignored"]) + len(report["refused"]) == report["tensor_count"]
    assert some not in report["refused"]


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORABLEND_ADAPTERS", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("LORABLEND_ADAPTERS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "lorablend" / "adapters"


def test_the_files_of_a_folder_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a/c.SAFETENSORS", ".x/d.safetensors", "a/.e.safetensors", "f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert adapter_files(tmp_path) == [tmp_path / "a" / "c.SAFETENSORS", tmp_path / "b.safetensors"]
    assert adapter_files(None) == []
