"""The library: its entries, when it reads files, what survives damage, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError, BlendError
from lorablend.app.library.library import Library
from lorablend.app.library.scan import AdapterFacts, hash_whole, read_facts
from tests.adapter_files import SD15_SHAPES, SDXL_SHAPES, message_of, random_factors, write_kohya
from tests.app.library.library_files import PNG, headers_read, write


def names(library: Library) -> list[str]:
    return [entry.name for entry in library.entries()]


# what is listed


def test_headers_first_then_hashes(library: Library, folder: Path) -> None:
    broken, ink, neon = library.entries()
    assert (broken.name, ink.name, neon.name) == ("broken", "ink", "styles/neon")
    assert broken.error == "not a safetensors file: it is a web page, so the download failed"
    assert (ink.base_model, ink.algorithms, ink.ranks, ink.error) == ("sdxl", ("lora",), (4,), None)
    assert (neon.base_model, neon.algorithms, neon.ranks, neon.error) == ("sd15", ("lora",), (8,), None)
    assert (ink.title, ink.trigger_words) == ("Ink & Water", ("ink drawing", "brush"))
    assert (ink.size, ink.path) == ((folder / "ink.safetensors").stat().st_size, folder / "ink.safetensors")
    assert ink.modified == pytest.approx((folder / "ink.safetensors").stat().st_mtime)
    assert ink.tensors == len(SDXL_SHAPES) * 3
    assert not any(entry.hashed or entry.sha256 or entry.autov2 or entry.autov3 for entry in library.entries())

    library.hash_files()
    ink = library.get("ink")
    adapter = load_adapter(ink.path)
    assert ink.hashed
    assert (ink.sha256, ink.autov2, ink.autov3) == (adapter.sha256, adapter.autov2, adapter.autov3)
    assert ink.sha256 == hashlib.sha256(ink.path.read_bytes()).hexdigest()
    assert not library.get("broken").hashed
    assert json.loads(json.dumps(ink.to_dict()))["autov2"] == ink.autov2


@pytest.mark.parametrize(("shapes", "base"), [(SDXL_SHAPES, "sdxl"), (SD15_SHAPES, "sd15")], ids=["sdxl", "sd15"])
def test_the_header_tells_what_is_in_the_file(shapes: dict, base: str, tmp_path: Path) -> None:
    """No values are read: they are all NaN, which loading the adapter would refuse."""
    path = write_kohya(tmp_path / "x.safetensors", random_factors(shapes, rank=3))
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:header] + b"\xff" * (len(content) - header))
    assert read_facts(path) == AdapterFacts(base_model=base, algorithms=("lora",), ranks=(3,), tensors=2 * len(shapes))


def test_a_file_that_is_not_understood_is_described_as_far_as_it_is(library: Library, folder: Path) -> None:
    path = write(folder, "odd", metadata={"modelspec.title": "Odd"})
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b"text_model_encoder_layers_1_mlp_fc1.alpha", b"text_model_encoder_layers_1_mlp_fc1.omega")
    )
    library.scan()
    odd = library.get("odd")
    assert odd.error is not None
    assert odd.error.startswith("unknown algorithm in 1 tensor: lora_te1_text_model_encoder_layers_1_mlp_fc1.omega")
    assert (odd.title, odd.base_model, odd.algorithms, odd.ranks) == ("Odd", "sdxl", ("lora",), (4,))
    assert library.set_favourite("odd").favourite


def test_a_file_that_cannot_be_used_is_listed_with_its_reason(library: Library, folder: Path) -> None:
    from safetensors.numpy import save_file

    random = random_factors(SDXL_SHAPES)
    some = next(iter(random.values()))
    save_file({"lora_unet_of_nothing.lora_down.weight": some.down}, folder / "stranger.safetensors")
    library.scan()
    library.hash_files()
    entry = library.get("stranger")
    assert entry.error == message_of(AdapterError, lambda: load_adapter(entry.path)).removeprefix(
        "stranger.safetensors: "
    )
    assert entry.sha256


@pytest.mark.parametrize("size", [0, 7, 8, 9, 5_000_000, (4 << 20) + 8])
def test_hashes(size: int, tmp_path: Path) -> None:
    """Any bytes are hashed, with headers that end within, at and after a chunk."""
    content = os.urandom(size)
    for header in (0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 3, 2**63):
        whole = (header.to_bytes(8, "little") + content)[:size]
        (tmp_path / "x").write_bytes(whole)
        found = hash_whole(tmp_path / "x")
        assert found.sha256 == hashlib.sha256(whole).hexdigest()
        assert found.autov3 == hashlib.sha256(whole[8 + header :]).hexdigest()[:12]


def test_nothing_is_read_twice(library: Library, folder: Path) -> None:
    library.hash_files()
    ink = library.get("ink")
    status = ink.path.stat()
    ink.path.write_bytes(b"\0" * ink.size)  # other contents of the same size and date
    os.utime(ink.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert headers_read(library) == 0
    library.hash_files()
    assert library.get("ink") == ink
    os.utime(ink.path)
    assert headers_read(library) == 1
    assert library.get("ink").error == "not a safetensors file"


def test_added_changed_removed(library: Library, folder: Path) -> None:
    write(folder, "new")
    write(folder, "ink", rank=2)
    (folder / "broken.safetensors").unlink()
    assert headers_read(library) == 2
    assert names(library) == ["ink", "new", "styles/neon"]
    assert library.get("ink").ranks == (2,)
    assert headers_read(library) == 0


def test_a_folder_that_is_gone(library: Library, folder: Path) -> None:
    os.rename(folder, folder.with_name("away"))
    assert message_of(AdapterError, library.scan) == f"{folder}: the folder of adapters is missing; put it back"
    os.rename(folder.with_name("away"), folder)
    assert headers_read(library) == 0


def test_stopped_and_gone_on(library: Library, folder: Path) -> None:
    """What was done before an interruption is not done again."""
    for seed in range(4):
        write(folder, f"more-{seed}", seed=10 + seed)
    library.scan()

    def stop(done: int, total: int) -> None:
        assert total == 6
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.hash_files(stop)
    assert sum(entry.hashed for entry in library.entries()) == 3
    seen: list[tuple[int, int]] = []
    Library(folder).hash_files(lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_file_that_changes_while_it_is_read_is_read_again(library: Library, folder: Path) -> None:
    def meddle(done: int, total: int) -> None:
        write(folder, "ink", seed=5, rank=2)  # after the scan that listed it
        os.utime(folder / "ink.safetensors", ns=(0, 10**18))

    library.hash_files(meddle)
    assert library.get("ink").sha256 is None
    library.scan()
    library.hash_files()
    assert library.get("ink").sha256 == load_adapter(folder / "ink.safetensors").sha256


def test_hidden_files_are_no_adapters(library: Library, folder: Path) -> None:
    write(folder / ".hidden", "one")
    write(folder, "._ink")
    assert headers_read(library) == 0


# links and names


def test_links_do_not_lead_out(library: Library, folder: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", "secret")
    (folder / "file.safetensors").symlink_to(outside)
    (folder / "directory").symlink_to(outside.parent)
    (folder / "nowhere.safetensors").symlink_to(folder / "nosuch")
    (folder / "inside.safetensors").symlink_to(folder / "ink.safetensors")
    (folder / "circle").symlink_to(folder)
    (folder / "ink.png").symlink_to(outside)
    library.scan()
    library.hash_files()
    reason = "a link out of the folder, which is not followed; put the file itself here"
    assert {entry.name: entry.error for entry in library.entries()} == {
        "broken": "not a safetensors file: it is a web page, so the download failed",
        "directory": reason,
        "file": reason,
        "ink": None,
        "inside": None,
        "nowhere": "cannot be read (No such file or directory)",
        "styles/neon": None,
    }
    assert library.get("file").sha256 is None
    assert library.preview("ink") is None
    assert headers_read(library) == 0
    assert message_of(AdapterError, lambda: library.set_favourite("file")) == f"file: {reason}, so it cannot be marked"


def test_a_name_that_is_no_text(library: Library, folder: Path) -> None:
    os.replace(folder / "ink.safetensors", os.fsencode(folder) + b"/\xff.safetensors")
    library.scan()
    entry = next(entry for entry in library.entries() if entry.error and "UTF-8" in entry.error)
    assert entry.name == "\\udcff"
    assert entry.error == "its name is not valid UTF-8; rename it"


@pytest.mark.parametrize("name", ["ink", "ink.safetensors", "INK", "Ink.SAFETENSORS"])
def test_get(name: str, library: Library) -> None:
    assert library.get(name).name == "ink"


@pytest.mark.parametrize("name", ["neon", "styles/neon", "neon.safetensors", "styles/neon.safetensors"])
def test_get_in_a_folder(name: str, library: Library) -> None:
    assert library.get(name).name == "styles/neon"


@pytest.mark.parametrize(
    "name", ["../adapters/ink", "./ink", "styles/../ink", "/etc/passwd", "styles", "", "\0", "nén"]
)
def test_a_name_is_no_path(name: str, library: Library, folder: Path) -> None:
    message = message_of(BlendError, lambda: library.get(name))
    assert f"no adapter with that name among the 3 in {folder}" in message


def test_names_that_do_not_fit(library: Library, folder: Path) -> None:
    assert message_of(BlendError, lambda: library.get("inc")) == (
        f"inc: no adapter with that name among the 3 in {folder}; did you mean ink?"
    )
    write(folder / "a", "same")
    write(folder / "b", "same", seed=2)
    library.scan()
    assert message_of(BlendError, lambda: library.get("same")) == (
        "same: both a/same and b/same have that name; give one of these"
    )
    assert library.get("b/same").name == "b/same"
    write(folder, "same", seed=3)
    library.scan()
    assert library.get("same").name == "same"
    assert message_of(BlendError, lambda: Library(folder / "nosuch")) == (
        f"{folder / 'nosuch'} is not a folder; give an existing folder of adapters"
    )


# search


def test_search(library: Library) -> None:
    library.hash_files()
    library.set_tags("styles/neon", ["Night city"])
    library.set_favourite("ink")
    sha256, autov3 = library.get("ink").sha256, library.get("ink").autov3
    assert sha256
    assert autov3
    found = {
        "": ["broken", "ink", "styles/neon"],
        "INK": ["ink"],
        "water brush": ["ink"],
        "water neon": [],
        "night": ["styles/neon"],
        "styles/": ["styles/neon"],
        sha256[:10].upper(): ["ink"],
        autov3: ["ink"],
        sha256[1:10]: [],
    }
    assert {text: [entry.name for entry in library.search(text)] for text in found} == found

    def only(**filters: object) -> list[str]:
        return [entry.name for entry in library.search(**filters)]  # pyright: ignore[reportArgumentType]

    assert only(base_model="sdxl") == ["ink"]
    assert only(algorithm="LoRA") == ["ink", "styles/neon"]
    assert only(algorithm="loha") == []
    assert only(tag="night city") == ["styles/neon"]
    assert only(tag="night") == []
    assert only(favourite=True) == ["ink"]
    assert only(favourite=False) == ["broken", "styles/neon"]
    assert only(text="ink", base_model="sd15") == []


# removing


def test_remove(library: Library, folder: Path) -> None:
    content = (folder / "styles" / "neon.safetensors").read_bytes()
    (folder / "styles" / "neon.preview.png").write_bytes(PNG)
    library.scan()
    library.set_favourite("neon")
    moved = library.remove("neon")
    assert moved.parent == folder / ".lorablend" / "bin"
    assert names(library) == ["broken", "ink"]
    assert not (folder / "styles").exists()
    assert (moved / "styles" / "neon.preview.png.removed").read_bytes() == PNG
    assert (moved / "styles" / "neon.safetensors.removed").read_bytes() == content
    (folder / "back.safetensors").write_bytes(content)
    library.scan()
    library.hash_files()
    assert library.get("back").favourite
    assert library.remove("broken") != library.remove("ink")


def test_removing_a_link_spares_what_it_leads_to(library: Library, folder: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", "secret")
    (folder / "link.safetensors").symlink_to(outside)
    library.scan()
    library.remove("link")
    assert outside.exists()
    assert "link" not in names(library)


def test_an_index_that_lies_leads_nowhere(library: Library, folder: Path, tmp_path: Path) -> None:
    """The index is in a folder that others can write to, so its paths are not trusted."""
    outside = write(tmp_path / "outside", "secret")
    db = sqlite3.connect(folder / ".lorablend" / "index.sqlite")
    for file in ("../outside/secret.safetensors", str(outside)):
        db.execute(
            "INSERT INTO files (file, size, mtime_ns, inode, preview, refused, stage) VALUES (?,1,1,1,'','',2)", (file,)
        )
    db.execute("UPDATE files SET preview = '../outside/secret.safetensors' WHERE file = 'ink.safetensors'")
    db.commit()
    db.close()
    for name in ("secret", "../outside/secret", str(outside.with_suffix(""))):
        assert "no adapter with that name" in message_of(BlendError, lambda name=name: library.remove(name))
    assert library.preview("ink") is None
    library.remove("ink")
    assert outside.exists()


# several at once


def test_threads(folder: Path) -> None:
    """Threads read, mark and scan one library while another one deletes the index."""
    library = Library(folder)
    library.scan()
    errors: list[BaseException] = []

    def run(work: Callable[[int], object]) -> None:
        try:
            for turn in range(15):
                work(turn)
        except BaseException as error:
            errors.append(error)

    works: list[Callable[[int], object]] = [
        lambda turn: library.entries(),
        lambda turn: library.scan(),
        lambda turn: library.hash_files(),
        lambda turn: library.search("ink"),
        lambda turn: library._marks.change(f"{turn:064}", "a", favourite=True),
        lambda turn: library._marks.change(f"{turn + 100:064}", "b", tags=("x",)),
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    marks = json.loads((folder / ".lorablend" / "marks.json").read_text())["adapters"]
    assert len(marks) == 30


def test_two_programs(folder: Path) -> None:
    for seed in range(10):
        write(folder, f"more-{seed}", seed=20 + seed)
    code = (
        "import sys; from lorablend.app.library.library import Library\n"
        "library = Library(sys.argv[1])\n"
        "for turn in range(10):\n"
        "    library.scan(); library.hash_files()\n"
        "    library.set_tags(f'more-{turn}', [*library.get(f'more-{turn}').tags, sys.argv[2]])\n"
        "    library.set_tags(sys.argv[3], [f'{turn}'])\n"
    )
    programs = [
        subprocess.Popen([sys.executable, "-c", code, str(folder), tag, own], stderr=subprocess.PIPE, text=True)
        for tag, own in (("one", "ink"), ("two", "neon"))
    ]
    assert [program.communicate(timeout=60)[1] for program in programs] == ["", ""]
    library = Library(folder)
    assert all(entry.hashed for entry in library.entries() if entry.name != "broken")
    assert library.get("ink").tags == library.get("neon").tags == ("9",)
    assert {tag for seed in range(10) for tag in library.get(f"more-{seed}").tags} <= {"one", "two"}
    assert all(library.get(f"more-{seed}").tags for seed in range(10))
