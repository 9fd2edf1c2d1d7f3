"""Archived data sets: unpacked once, and never outside their folder."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from lorablend.adapters.errors import DataError, ResourceError
from lorablend.train.data.layouts import find_examples
from tests.train.data.data_files import captions, clean, pattern


def packed(kind: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pattern(number, (32, 32)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives(data: Path, tmp_path: Path, kind: str) -> None:
    table = b"image_file,captions\na.png,a fox\nb.png,a hare\n"
    members = {"set/a.png": png(1), "set/b.png": png(2), "set/caption.csv": table, "__MACOSX/set/._a.png": b"x"}
    file = data / f"pack.{kind}"
    file.write_bytes(packed(kind, members))
    dataset = clean(find_examples(file))
    assert captions(dataset) == {"set/a.png": ("a fox",), "set/b.png": ("a hare",)}
    assert dataset.layout.startswith(f"archive pack.{kind} and the table set/caption.csv of 2 pictures; 2 pictures;")
    assert dataset.notes == ()
    assert find_examples(file) == dataset  # from the cache
    assert {path.parts[0] for path in (e.path.relative_to(tmp_path) for e in dataset.examples)} == {"cache"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
def test_members_that_would_leave(data: Path, tmp_path: Path, kind: str, name: str) -> None:
    file = data / f"pack.{kind}"
    file.write_bytes(packed(kind, {"a.png": png(1), name: png(2)}))
    with pytest.raises(DataError) as caught:
        find_examples(file)
    assert str(caught.value) == f"pack.{kind}: the member {name} would leave the folder; nothing is unpacked"
    assert not list(tmp_path.rglob("*.png"))


def test_links_in_archives(data: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (data / "pack.tar").write_bytes(buffer.getvalue())
    with zipfile.ZipFile(data / "pack.zip", "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    for name, reason in (("tar", "a link or a device; pack plain files"), ("zip", "a link; pack the files themselves")):
        with pytest.raises(DataError) as caught:
            find_examples(data / f"pack.{name}")
        assert str(caught.value) == f"pack.{name}: a.png is {reason}"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_damaged_archives(data: Path, tmp_path: Path, kind: str) -> None:
    whole = packed(kind, {"a.png": png(1), "b.png": png(2)})
    file = data / f"pack.{kind}"
    for content in (whole[: len(whole) // 2], b"no archive at all", b""):
        file.write_bytes(content)
        with pytest.raises(DataError) as caught:
            find_examples(file)
        assert str(caught.value).startswith(f"pack.{kind} cannot be unpacked (")
        assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_archive_larger_than_the_disk(data: Path) -> None:
    """A zip bomb is refused by its own table, before a byte is unpacked; here 240 TB in 3 MB."""
    with zipfile.ZipFile(data / "pack.zip", "w") as archive:
        archive.writestr("a.png", b"x")
    content = (data / "pack.zip").read_bytes()
    start = content.index(b"PK\x01\x02")
    entry = bytearray(content[start : content.index(b"PK\x05\x06")])
    entry[24:28] = (0xFFFFFFF0).to_bytes(4, "little")
    count, entries = 60_000, bytes(entry) * 60_000
    end = b"PK\x05\x06" + bytes(4) + count.to_bytes(2, "little") * 2 + len(entries).to_bytes(4, "little")
    (data / "pack.zip").write_bytes(content[:start] + entries + end + start.to_bytes(4, "little") + bytes(2))
    with pytest.raises(ResourceError) as caught:
        find_examples(data / "pack.zip")
    text = re.sub(r"for \d+\.\d GB", "for 7.0 GB", str(caught.value))
    assert text == (
        "pack.zip holds 257698.0 GB or more, the disk has room for 7.0 GB; free up space, or unpack it on another "
        "disk and give the folder"
    )


def test_encrypted_archive(data: Path) -> None:
    content = bytearray(packed("zip", {"a.png": png(1)}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (data / "pack.zip").write_bytes(content)
    with pytest.raises(DataError) as caught:
        find_examples(data / "pack.zip")
    assert str(caught.value) == "pack.zip is encrypted (a.png); pack it without a password"
