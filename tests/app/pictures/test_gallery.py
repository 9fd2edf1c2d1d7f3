"""The gallery: searches, and that the files are authoritative."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from lorablend.adapters.errors import NotFoundError, RequestError
from lorablend.app.pictures.gallery import Gallery
from lorablend.app.pictures.png import save_png, save_result
from lorablend.engine import Pipeline

RED = Image.new("RGB", (16, 8), "red")


def words(prompt: str, seed: int) -> dict[str, str]:
    return {"parameters": f"{prompt}\nNegative prompt: mud\nSteps: 4, Sampler: Euler, Seed: {seed}, Model: toy"}


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    gallery = Gallery(tmp_path / "pictures", tmp_path / "gallery.sqlite")
    yield gallery
    gallery.close()


@pytest.fixture
def filled(gallery: Gallery) -> Gallery:
    for seed, prompt in enumerate(("a red fox", "a blue fox, 100% wool", "the sea_side")):
        gallery.add(save_png(RED, gallery.day(), f"p{seed}", words(prompt, seed)))
    return gallery


def prompts(gallery: Gallery, *args: object, **asked: object) -> list[str]:
    return [picture.prompt for picture in gallery.find(*args, **asked)]  # type: ignore[arg-type]


def test_pictures_of_other_programs(gallery: Gallery) -> None:
    """Read as the page reads them: adapters that lists name, and one bad tag among good ones."""
    swarm = {
        "prompt": "a boat",
        "negativeprompt": "mud",
        "seed": 5,
        "model": "x/toy",
        "loras": ["ink"],
        "loraweights": [1],
    }
    bad = words("a boat <lora:ink:1@0,0@1> <lora:neon:0.5>", 5)
    for number, chunks in enumerate(({"parameters": json.dumps({"sui_image_params": swarm})}, bad)):
        picture = gallery.add(save_png(RED, gallery.day(), f"o{number}", chunks))
        assert (picture.prompt, picture.negative_prompt, picture.seed) == ("a boat", "mud", 5)
        assert (picture.adapters, picture.model) == (("neon" if number else "ink",), "toy")
        assert picture.parameters == chunks["parameters"]
    silent = gallery.add(save_png(RED, gallery.day(), "silent", {"Author": "me"}))
    assert (silent.prompt, silent.parameters, silent.seed) == ("", "", None)


def test_a_picture_of_ours(sdxl_model: Path, lora_dir: Path, gallery: Gallery) -> None:
    pipe = Pipeline(sdxl_model, lora_dir=lora_dir)
    result = pipe.generate("a fox <lora:ink:0.5>", "mud", steps=1, seed=2**62)
    (path,) = save_result(result, pipe, gallery.day())
    picture = gallery.add(path)
    assert (picture.prompt, picture.negative_prompt, picture.seed) == ("a fox", "mud", 2**62)
    assert (picture.adapters, picture.model) == (("ink",), sdxl_model.name)
    assert gallery.adapters() == ["ink"]
    whole = path.read_bytes()  # if there is a record, the pixels are not read
    path.write_bytes(whole[: whole.index(b"IDAT")] + b"IDAT, cut off")
    assert gallery.add(path).seed == 2**62
    path.write_bytes(whole)
    picture = gallery.add(path)
    assert (picture.width, picture.height) == (64, 64)
    assert picture.parameters.startswith("a fox <lora:ink:0.5>\nNegative prompt: mud\nSteps: 1")
    assert gallery.path(picture.file) == path
    assert [one.file for one in gallery.find(adapter="ink")] == [picture.file]
    assert gallery.find(adapter="in") == []


def test_search(filled: Gallery) -> None:
    assert prompts(filled) == ["the sea_side", "a blue fox, 100% wool", "a red fox"]
    assert prompts(filled, "fox") == ["a blue fox, 100% wool", "a red fox"]
    assert prompts(filled, "Fox red") == ["a red fox"]
    assert prompts(filled, "%") == ["a blue fox, 100% wool"]
    assert prompts(filled, "a_s") == ["the sea_side"]
    assert prompts(filled, "fox", seed=0) == ["a red fox"]
    assert prompts(filled, limit=1) == ["the sea_side"]
    assert prompts(filled, limit=1, after=filled.find(limit=1)[0].file) == ["a blue fox, 100% wool"]


def test_favourites(filled: Gallery) -> None:
    newest = filled.find()[0]
    assert filled.mark(newest.file, favourite=True).favourite
    filled.scan()  # does not forget
    assert [picture.file for picture in filled.find(favourite=True)] == [newest.file]
    assert len(filled.find(favourite=False)) == 2


def test_bin(filled: Gallery, tmp_path: Path) -> None:
    newest = filled.find()[0]
    filled.delete(newest.file)
    filled.scan()
    assert prompts(filled) == ["a blue fox, 100% wool", "a red fox"]
    assert filled.bin() == [newest.file]
    assert filled.restore(newest.file) == newest
    assert len(filled.find()) == 3
    filled.delete(newest.file)
    filled.empty_bin()
    assert filled.bin() == []
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 2


def test_files_are_the_truth(filled: Gallery, tmp_path: Path) -> None:
    old = filled.find()
    filled.path(old[0].file).unlink()
    save_png(RED, filled.day(), "new", words("a late guest", 9))
    (filled.day() / "broken.png").write_bytes(b"\x89PNG but no more")
    (filled.day() / "link.png").symlink_to(filled.path(old[1].file))
    save_png(RED, tmp_path / "elsewhere", "private", words("a private picture", 9))
    for link in (tmp_path / "pictures" / "2026-01-01", filled.day() / "below", tmp_path / "pictures" / "bin"):
        link.symlink_to(tmp_path / "elsewhere")
    filled.scan()
    assert prompts(filled) == ["a late guest", old[1].prompt, old[2].prompt]
    assert filled.bin() == []
    with pytest.raises(NotFoundError):
        filled.restore("private.png")
    filled.empty_bin()
    assert (tmp_path / "elsewhere" / "private.png").is_file()


def test_what_is_added_during_a_scan_stays(filled: Gallery) -> None:
    """Threads save, delete and scan at the same time; afterwards the index matches the disk."""
    stop = threading.Event()

    def scan() -> None:
        while not stop.is_set():
            filled.scan()

    with ThreadPoolExecutor(2) as pool:
        scanning = pool.submit(scan)
        try:
            for seed in range(60):
                path = save_png(RED, filled.day(), f"q{seed}", words("a fox", seed))
                file = filled.add(path).file
                assert filled.get(file).seed == seed
                if seed % 3 == 0:
                    path.unlink()
                elif seed % 3 == 1:
                    filled.delete(file)
        finally:
            stop.set()
        scanning.result(60)
    filled.scan()
    assert {picture.seed for picture in filled.find("a fox") if "/q" in picture.file} == set(range(2, 60, 3))


@pytest.mark.parametrize("loss", ["gone", "no database", "damaged inside"])
def test_a_lost_index_is_made_again(filled: Gallery, tmp_path: Path, loss: str) -> None:
    before = filled.find()
    filled.close()
    database = tmp_path / "gallery.sqlite"
    if loss == "gone":
        database.unlink()
    else:
        whole = database.read_bytes()
        keep = 4096 if loss == "damaged inside" else 0  # the first page, with the tables' names
        database.write_bytes(whole[:keep] + b"no database at all" * (len(whole[keep:]) // 18 + 1))
    again = Gallery(tmp_path / "pictures", database)
    assert again.find() == before
    again.close()


def test_what_no_lorablend_wrote_stops_nothing(sdxl_model: Path, gallery: Gallery) -> None:
    """Files from elsewhere: names that are not UTF-8, values that SQLite cannot store, files that are not pictures."""
    pipe = Pipeline(sdxl_model)
    (path,) = save_result(pipe.generate("a fox", steps=1, seed=1, width=64, height=64), pipe, gallery.day())
    record = json.loads(Image.open(path).info["lorablend"])
    hostile = {"huge": record | {"seed": 2**70}, "half": record | {"model": "\ud800"}}
    for name, told in hostile.items():
        save_png(RED, gallery.day(), name, {"lorablend": json.dumps(told)})
    shutil.copy(path, os.fsencode(gallery.day()) + b"/\xff.png")
    shutil.copy(path, os.fsencode(gallery.day() / "a fox\xa0é.png"))
    (gallery.day() / "empty.png").touch()
    os.mkfifo(gallery.day() / "pipe.png")
    gallery.scan()
    assert {Path(picture.file).name for picture in gallery.find()} == {path.name, "a fox\xa0é.png"}


def test_zip(filled: Gallery) -> None:
    files = [picture.file for picture in filled.find()]
    with zipfile.ZipFile(io.BytesIO(filled.zip(files))) as archive:
        assert archive.namelist() == files
        assert archive.read(files[0]) == filled.path(files[0]).read_bytes()


@pytest.mark.parametrize("name", ["../gallery.sqlite", "/etc/passwd", "", "bin/p0.png", "nothing.png"])
def test_a_name_is_no_path(filled: Gallery, name: str) -> None:
    for ask in (filled.get, filled.path, filled.delete, filled.restore):
        with pytest.raises(RequestError, match="has no picture"):
            ask(name)


def test_a_quick_scan_looks_where_a_folder_has_changed(gallery: Gallery, tmp_path: Path) -> None:
    """It finds what came, went and changed its name; a file that is rewritten in place is left to a whole scan."""
    days = [tmp_path / "pictures" / day for day in ("2026-01-01", "2026-01-02", "2026-01-02/more")]

    def settle(when: float) -> None:
        """A folder that has changed just now is always looked at."""
        for day in days:
            os.utime(day, (when, when))

    def found() -> set[str]:
        gallery.scan(thoroughly=False)
        return {picture.prompt for picture in gallery.find()}

    for number, day in enumerate(days):
        save_png(RED, day, "a", words(f"one {number}", number))
    settle(1e9)
    assert found() == {"one 0", "one 1", "one 2"}
    save_png(RED, days[2], "b", words("deep", 3))
    assert found() == {"one 0", "one 1", "one 2", "deep"}
    (days[0] / "a.png").rename(days[0] / "c.png")
    (days[2] / "b.png").unlink()
    settle(1.1e9)
    assert found() == {"one 0", "one 1", "one 2"}
    assert {picture.file for picture in gallery.find("one 0")} == {"2026-01-01/c.png"}
    (days[1] / "a.png").write_bytes((days[0] / "c.png").read_bytes())
    assert found() == {"one 0", "one 1", "one 2"}
    gallery.scan()
    assert sorted(picture.prompt for picture in gallery.find()) == ["one 0", "one 0", "one 2"]
    shutil.rmtree(days[1])
    assert found() == {"one 0"}


def test_an_index_of_version_1(filled: Gallery, tmp_path: Path) -> None:
    filled.mark(filled.find()[0].file, favourite=True)
    before = filled.find()
    filled._db.executescript("DROP INDEX by_time; DROP INDEX by_adapters; PRAGMA user_version = 1;")
    filled.close()
    again = Gallery(tmp_path / "pictures", tmp_path / "gallery.sqlite")
    assert again.find() == before
    indexes = [row["name"] for row in again._db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")]
    assert {"by_time", "by_adapters"} <= set(indexes)
    again.close()


def test_a_damaged_picture_does_not_stop_the_scan(gallery: Gallery) -> None:
    """EXIF data that Pillow reads and cannot write, and what is no picture but by its name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    raw = bytearray(exif.tobytes())
    raw[raw.index(b"\x01\x1a") + 3] = 2
    gallery.day().mkdir()
    RED.save(gallery.day() / "a.jpg", exif=bytes(raw))
    (gallery.day() / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n%%EOF\n")
    gallery.scan()
    assert [(Path(one.file).name, one.width, one.height) for one in gallery.find()] == [("a.jpg", 8, 16)]
