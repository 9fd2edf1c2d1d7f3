"""Data sets as page and REST edit them: what comes in, what is refused, what is dropped and comes back."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import DataError, RequestError
from lorablend.app.pictures.uploads import MAX_PIXELS
from lorablend.app.work.sets import Sets
from lorablend.train.data.layouts import find_examples
from lorablend.train.data.members import Limits
from lorablend.train.data.mosaic import PER_SHEET
from tests.train.data.data_files import pattern

Files = list[tuple[str, BinaryIO]]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives are unpacked there."""
    monkeypatch.setenv("LORABLEND_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    return Sets(tmp_path / "sets")


def picture(number: int = 0, kind: str = "PNG", size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    pattern(number, size).save(buffer, kind)
    return buffer.getvalue()


def sent(**files: bytes | str) -> Files:
    """Files as they are sent: `a_png=` is a.png."""
    return [
        (name.replace("_", "."), io.BytesIO(content.encode() if isinstance(content, str) else content))
        for name, content in files.items()
    ]


def zipped(**files: bytes | str) -> Files:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return [("photos.zip", io.BytesIO(buffer.getvalue()))]


def three(sets: Sets) -> None:
    """The set foxes: a and c with captions, b without."""
    sets.add("foxes", sent(a_png=picture(1), a_txt="a fox\n", b_jpg=picture(2, "JPEG"), c_webp=picture(3, "WEBP"),
                           c_txt="one\n\nother  text"))  # fmt: skip


def test_pictures_and_their_captions(sets: Sets, tmp_path: Path) -> None:
    assert sets.names() == []
    assert not (tmp_path / "sets").exists()
    three(sets)
    assert sets.names() == ["foxes"]
    assert [(one.file, one.caption) for one in sets.pictures("foxes")] == [
        ("a.png", "a fox"),
        ("b.jpg", ""),
        ("c.webp", "one\nother text"),
    ]
    facts = sets.facts("foxes")
    assert (facts.pictures, facts.captions, facts.dropped) == (3, 2, 0)
    assert sets.path("foxes", "a.png").read_bytes() == picture(1)  # as it was sent
    assert find_examples(sets.folder("foxes")).problems == ()
    assert os.listdir(tmp_path / "sets") == ["foxes"]  # nothing is left of the sending

    added = sets.add("foxes", sent(a_png=picture(4), a_txt="another fox", b_txt="a late caption"))
    assert added.files == ("a-2.png",)
    assert [one.caption for one in sets.pictures("foxes")] == [
        "another fox",
        "a fox",
        "a late caption",
        "one\nother text",
    ]


def test_other_formats_become_png(sets: Sets) -> None:
    sets.add("x", sent(a_bmp=picture(1, "BMP"), b_gif=picture(2, "GIF"), wrong_png=picture(3, "JPEG")))
    assert [one.file for one in sets.pictures("x")] == ["a.png", "b.png", "wrong.jpg"]
    assert Image.open(sets.path("x", "a.png")).tobytes() == pattern(1, (64, 64)).tobytes()


def test_an_archive_in_another_layout(sets: Sets) -> None:
    kohya = {"img/10_sks fox/1.png": picture(1), "img/10_sks fox/2.png": picture(2), "img/10_sks fox/2.txt": "asleep"}
    added = sets.add("foxes", zipped(**kohya))
    assert [(one.file, one.caption) for one in sets.pictures("foxes")] == [
        ("1.png", "sks fox"),
        ("2.png", "sks, asleep"),
    ]
    assert any("repeats are not kept here" in note for note in added.notes)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in (("a/1.png", picture(3)), ("a/1-masklabel.png", picture(4)), ("b/1.png", picture(5))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    sets.add("two", [("data.tar.gz", io.BytesIO(buffer.getvalue()))])
    assert [one.file for one in sets.pictures("two")] == ["1-2.png", "1.png"]
    assert sum(example.mask is not None for example in find_examples(sets.folder("two")).examples) == 1


def blank(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_archive_leaves_nothing_behind(sets: Sets, tmp_path: Path) -> None:
    sets.add("foxes", zipped(**{"a.png": picture(1)}))
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a.png"]


def test_long_names(sets: Sets) -> None:
    """What they end with stays: the kind of the file."""
    long = "ä" * 200
    sets.add("foxes", [(f"{long}.PNG", io.BytesIO(picture(1))), (f"{long}.txt", io.BytesIO(b"a fox"))])
    (only,) = sets.pictures("foxes")
    assert only.file == "ä" * 90 + ".png"
    assert only.caption == "a fox"


def test_a_mask_of_16_bits(sets: Sets) -> None:
    mask = io.BytesIO()
    Image.fromarray(np.full((64, 64), 0x4000, np.uint16)).save(mask, "PNG")
    sets.add("foxes", zipped(**{"a.png": picture(1), "a.txt": "a fox", "a-masklabel.png": mask.getvalue()}))
    (example,) = find_examples(sets.folder("foxes")).examples
    assert example.mask
    with Image.open(example.mask) as kept:
        assert (kept.mode, kept.getextrema()) == ("L", (64, 64))


def test_a_cameras_largest_are_scaled_down(sets: Sets) -> None:
    buffer, turned = io.BytesIO(), Image.Exif()
    turned[0x0112] = 6  # a quarter
    Image.new("RGB", (5600, 4000), "orange").save(buffer, "JPEG", exif=turned)
    mask = Image.new("L", (4000, 5600), 255)
    mask.paste(0, (0, 0, 4000, 2800))
    masked = io.BytesIO()
    mask.save(masked, "PNG")
    sets.add("large", zipped(**{"a.jpg": buffer.getvalue(), "a-masklabel.png": masked.getvalue(), "a.txt": "a wall"}))
    (example,) = find_examples(sets.folder("large")).examples
    assert example.captions == ("a wall",)
    assert example.mask
    with Image.open(example.path) as picture, Image.open(example.mask) as kept:
        assert picture.format == "JPEG"
        assert picture.size == kept.size
        assert 0.99 * MAX_PIXELS < picture.width * picture.height <= MAX_PIXELS
        assert picture.width / picture.height == pytest.approx(4000 / 5600, rel=1e-3)
        assert (kept.getpixel((10, 10)), kept.getpixel((10, picture.height - 10))) == (0, 255)


BOMB = blank((15000, 12000))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (sent(a_png=picture(), b_png=b"<html>"), "b.png is not a picture, or damaged; save it again as PNG or JPEG"),
        (sent(a_png=picture()[:-60]), "a.png cannot be decoded"),
        (sent(a_png=BOMB), "a.png has more than 67 million pixels; scale it down"),
        (sent(a_exe=b"MZ"), "a.exe is not of a kind that is taken; send PNG, JPEG, WebP"),
        (sent(a_toml=b""), "a.toml is not of a kind that is taken"),
        (sent(a_txt="a fox"), "a.txt belongs to no picture; send a picture of the same name too"),
        (sent(a_png=picture(), a_txt=b"\xff\xfe\xff"), "is not text in UTF-8"),
        ([*sent(a_png=picture()), *zipped(b=b"")], "photos.zip is an archive; send it by itself"),
        ([*sent(a_png=picture()), ("x/a.png", io.BytesIO(picture()))], "a.png appears twice"),
        ([("photos.zip", io.BytesIO(b"PK"))], "photos.zip cannot be unpacked"),
        (zipped(**{"notes.md": "x"}), "no pictures, 1 .md found"),
        (zipped(**{"../a.png": picture()}), "photos.zip: the member ../a.png would leave the folder"),
        (zipped(**{"/etc/a.png": picture()}), "photos.zip: the member /etc/a.png would leave the folder"),
        ([], "there is no picture among the files"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_kept(sets: Sets, tmp_path: Path, files: Files, message: str) -> None:
    for _, content in files:
        content.seek(0)  # the parameters are made once
    with pytest.raises(DataError) as caught:
        sets.add("x", files)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert sets.names() == []
    assert os.listdir(tmp_path / "sets") == []


@pytest.mark.parametrize("where", ["{secret}", "../secret", "../gone"])
@pytest.mark.parametrize("key", ["image_dir", "conditioning_data_dir", "metadata_file"])
def test_a_list_names_nothing_outside_its_archive(sets: Sets, tmp_path: Path, where: str, key: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "private.png").write_bytes(picture(9))
    subset = {"image_dir": "a", key: where.format(secret=secret)}
    lines = "".join(f'{name} = "{value}"\n' for name, value in subset.items())
    with pytest.raises(DataError, match=r"d\.toml names .*, which is outside the data set"):
        sets.add("x", zipped(**{"d.toml": f"[[datasets]]\n[[datasets.subsets]]\n{lines}", "a/1.png": picture()}))
    sets.add("x", zipped(**{"d.toml": '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\n', "a/1.png": picture()}))
    assert [one.file for one in sets.pictures("x")] == ["1.png"]


HOSTILE = ["../x", "..", ".", "", "/etc", "a/b", "a\\b", ".bin", "C:x", "con", "a\0b", "x" * 300, "a\nb", "🦊/.."]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_set_is_a_path(sets: Sets, tmp_path: Path, name: str) -> None:
    three(sets)
    with pytest.raises(RequestError, match="cannot be a data set's name"):
        sets.add(name, sent(a_png=picture()))
    for ask in (sets.folder, sets.facts, sets.pictures, sets.dropped, sets.mosaic):
        with pytest.raises(RequestError, match="there is no data set"):
            ask(name)
    with pytest.raises(RequestError):
        sets.link(name, tmp_path / "linked")
    assert os.listdir(tmp_path / "sets") == ["foxes"]


@pytest.mark.parametrize("file", ["../foxes/a.png", "/etc/passwd", "a.txt", "", ".", "..", "A.PNG/", "nosuch.png", "a"])
def test_no_name_of_a_picture_is_a_path(sets: Sets, file: str) -> None:
    three(sets)
    for act in (sets.path, sets.drop, sets.restore):
        with pytest.raises(RequestError, match="has no picture"):
            act("foxes", file)
    with pytest.raises(RequestError, match="has no picture"):
        sets.set_caption("foxes", file, "x")


@pytest.mark.parametrize("theirs", ["../../evil.png", "/tmp/evil.png", "C:\\evil.png", "..\\evil.png", "evil.png.png"])
def test_no_name_of_a_file_is_a_path(sets: Sets, tmp_path: Path, theirs: str) -> None:
    sets.add("x", [(theirs, io.BytesIO(picture()))])
    (found,) = sets.pictures("x")
    assert found.file in ("evil.png", "evil_png.png")
    assert sorted(path.name for path in (tmp_path / "sets").rglob("*")) == [found.file, "x"]


def test_removed(sets: Sets, tmp_path: Path) -> None:
    three(sets)
    sets.drop("foxes", "a.png")
    sets.looked_at = ("foxes", "b.jpg")
    sets.remove("foxes")
    assert (sets.names(), sets.looked_at) == ([], None)
    with pytest.raises(RequestError, match="there is no data set 'foxes'; there are none yet"):
        sets.remove("foxes")
    three(sets)
    assert sets.dropped("foxes") == []
    assert {path.name for path in sets.folder("foxes").parent.iterdir()} <= {"foxes", ".bin"}


def test_links_are_not_followed(sets: Sets, tmp_path: Path) -> None:
    three(sets)
    (tmp_path / "secret.png").write_bytes(picture(9))
    (sets.folder("foxes") / "d.png").symlink_to(tmp_path / "secret.png")
    assert "d.png" not in [one.file for one in sets.pictures("foxes")]
    with pytest.raises(RequestError, match="has no picture"):
        sets.path("foxes", "d.png")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "e.png").write_bytes(picture(9))
    folder = sets.folder("foxes").parent
    (folder / "linked").symlink_to(tmp_path / "secrets")
    assert sets.names() == ["foxes"]
    with pytest.raises(RequestError, match="there is no data set 'linked'"):
        sets.path("linked", "e.png")
    with pytest.raises(RequestError, match="linked is a link"):
        sets.add("linked", sent(a_png=picture()))
    (folder / ".bin").mkdir(exist_ok=True)
    (folder / ".bin" / "foxes").symlink_to(tmp_path / "secrets")
    assert sets.dropped("foxes") == []


def test_captions(sets: Sets) -> None:
    three(sets)
    sets.set_caption("foxes", "b.jpg", "  a  red fox \n")
    assert sets.pictures("foxes")[1].caption == "a red fox"
    sets.set_caption("foxes", "b.jpg", "")
    assert sets.pictures("foxes")[1].caption == ""
    assert not sets.path("foxes", "b.jpg").with_suffix(".txt").exists()
    with pytest.raises(RequestError, match=r"b\.jpg: the caption has 20,001 characters; 20,000 at most"):
        sets.set_caption("foxes", "b.jpg", "x" * 20_001)


def test_dropped_and_brought_back(sets: Sets, tmp_path: Path) -> None:
    three(sets)
    before = sets.pictures("foxes")
    sets.drop("foxes", "c.webp")
    sets.drop("foxes", "a.png")
    assert [one.file for one in sets.pictures("foxes")] == ["b.jpg"]
    assert sets.dropped("foxes") == ["a.png", "c.webp"]  # the last drop first
    assert len(find_examples(sets.folder("foxes")).examples) == 1
    assert sets.add("foxes", sent(a_png=picture(7))).files == ("a-2.png",)  # a.png may come back
    sets.restore("foxes", "a.png")
    sets.restore("foxes", "c.webp")
    assert [one for one in sets.pictures("foxes") if one.file != "a-2.png"] == before
    assert sets.dropped("foxes") == []
    assert [path for path in (tmp_path / "sets" / ".bin").rglob("*") if path.is_file()] == []


def test_mosaic(sets: Sets) -> None:
    three(sets)
    assert sets.sheets("foxes") == 1
    sheet = Image.open(io.BytesIO(sets.mosaic("foxes")))
    assert sheet.format == "PNG"
    assert sheet.width > 3 * 176
    for number in (1, -1):
        with pytest.raises(RequestError, match=rf"the data set foxes has no sheet {number}"):
            sets.mosaic("foxes", number)
    sets.add("many", [(f"{n}.png", io.BytesIO(picture(n, size=(8, 8)))) for n in range(PER_SHEET + 1)])
    assert sets.sheets("many") == 2
    assert Image.open(io.BytesIO(sets.mosaic("many", 1))).width < sheet.width


def test_what_is_linked_stays_as_it_was(sets: Sets, tmp_path: Path) -> None:
    three(sets)
    sets.link("foxes", tmp_path / "run" / "foxes")
    sets.set_caption("foxes", "a.png", "something else")
    sets.drop("foxes", "b.jpg")
    found = find_examples(tmp_path / "run" / "foxes")
    assert [(example.path.name, example.captions) for example in found.examples] == [
        ("a.png", ("a fox",)),
        ("b.jpg", ()),
        ("c.webp", ("one", "other text")),
    ]


def test_what_a_killed_program_left_is_removed(sets: Sets, tmp_path: Path) -> None:
    three(sets)
    (tmp_path / "sets" / ".adding-x" / "data").mkdir(parents=True)
    assert Sets(tmp_path / "sets").names() == ["foxes"]
    assert os.listdir(tmp_path / "sets") == ["foxes"]


def test_archives_that_are_sent_have_limits(sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the disk's; nothing stays of what is refused."""
    files = {f"{number}.png": picture(number) for number in range(3)}
    monkeypatch.setattr("lorablend.app.work.sets._LIMITS", Limits(members=2))
    with pytest.raises(DataError, match=r"photos\.zip has more than 2 files and folders; give fewer"):
        sets.add("foxes", zipped(**files))
    assert sets.names() == []
    monkeypatch.setattr("lorablend.app.work.sets._LIMITS", Limits(members=3))
    assert len(sets.add("foxes", zipped(**files)).files) == 3


@pytest.mark.parametrize("name", ["a.txt", "metadata.csv", "all.json", "x.caption"])
def test_far_too_much_text(sets: Sets, name: str) -> None:
    """JSON takes forty times as much memory as its text, and an archive of a few kilobytes may hold gigabytes of it."""
    with pytest.raises(DataError) as caught:
        sets.add("foxes", zipped(**{"a.png": picture(), name: " " * (16 << 20) + "x"}))
    assert str(caught.value) == (
        "the texts among the files have 16.8 MB, 16.8 MB at most are read here; leave out what is no caption"
    )
    assert sets.names() == []


@pytest.mark.parametrize("files", [{"a.txt": "x" * 20_001}, {"a.txt": "x" * 10_000 + "\n" + "y" * 10_001}])
def test_a_caption_that_is_far_too_long(sets: Sets, files: dict[str, str]) -> None:
    text = r"a\.png: the caption has 20,00\d characters; 20,000 at most"
    with pytest.raises(RequestError, match=text):
        sets.add("foxes", zipped(**{"a.png": picture(), **files}))
    sets.add("foxes", sent(a_png=picture()))
    with pytest.raises(RequestError, match=text.replace("png", "txt")):
        sets.add("foxes", [(name, io.BytesIO(content.encode())) for name, content in files.items()])
    assert sets.pictures("foxes")[0].caption == ""


def test_large_copies_are_compared_in_parts(sets: Sets) -> None:
    """A picture may have gigabytes of anything behind its end, which hardly count in an archive."""
    padded = picture() + bytes(64 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, padded)
    del padded
    buffer.seek(0)
    tracemalloc.start()
    added = sets.add("foxes", [("photos.zip", buffer)])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "1 picture: b.png is a.png, byte for byte" in added.notes
    assert most < 32 << 20


def test_thousands_of_one_name_are_numbered(sets: Sets) -> None:
    content = picture(size=(8, 8))
    added = sets.add("foxes", zipped(**{f"{number}/a.png": content for number in range(300)}))
    assert added.files == ("a.png", *(f"a-{number}.png" for number in range(2, 301)))
    assert sets.add("foxes", sent(a_png=content)).files == ("a-301.png",)
