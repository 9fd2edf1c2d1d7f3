"""Archived data sets: unpacked once, and never outside their folder."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from lorablend.adapters.errors import DataError, ResourceError
from lorablend.train.data.archives import unpack
from lorablend.train.data.layouts import find_examples
from lorablend.train.data.members import OWN, Limits
from tests.adapter_files import message_of
from tests.train.data.data_files import captions, clean, pattern


def packed(kind: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{kind.partition('.')[2]}") as archive:  # pyright: ignore
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pattern(number, (32, 32)).save(buffer, "PNG")
    return buffer.getvalue()


KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


@pytest.mark.parametrize("kind", KINDS)
def test_archives(data: Path, tmp_path: Path, kind: str) -> None:
    table = b"image_file,captions\na.png,a fox\nb.png,a hare\n"
    members = {
        "./": b"",
        "set/": b"",
        "set/a.png": png(1),
        "set/b.png": png(2),
        "set/caption.csv": table,
        "__MACOSX/set/._a.png": b"x",
    }
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


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../", "a/../../b/", "/b/"])
def test_folders_that_would_be_outside(data: Path, kind: str, name: str) -> None:
    """Though nothing is in them."""
    file = data / f"pack.{kind}"
    file.write_bytes(packed(kind, {"a.png": png(1), name: b""}))
    with pytest.raises(DataError, match=f"the member {re.escape(name.rstrip('/'))}/? would leave the folder"):
        find_examples(file)


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


@pytest.mark.parametrize("kind", KINDS)
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


# limits

SMALL = Limits(members=20, size=100_000, memory=16 << 20, seconds=60)


def refusal_of(data: Path, kind: str, content: bytes, limits: Limits = SMALL) -> str:
    """Why an archive is not unpacked; nothing of it stays."""
    file, folder = data / f"pack.{kind}", data / "unpacked"
    file.write_bytes(content)
    message = message_of(DataError, lambda: unpack(file, folder, limits))
    assert [path.name for path in data.iterdir()] == [file.name]
    return message


def unpacked(data: Path, kind: str, limits: Limits) -> Path:
    return unpack(data / f"pack.{kind}", data / "u", limits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "members",
    [
        {f"{number}.png": b"x" for number in range(21)},
        {f"{number}/": b"" for number in range(21)},  # folders count too
        {f"{number}/a.png": b"x" for number in range(11)},  # also those that only names imply
        {"a/" * 20 + "a.png": b"x"},
        {f".{number}": b"x" for number in range(21)},  # and what is left out
    ],
    ids=["files", "folders", "implied folders", "nested folders", "hidden files"],
)
def test_every_member_counts(data: Path, kind: str, members: dict[str, bytes]) -> None:
    text = refusal_of(data, kind, packed(kind, members))
    assert text == f"pack.{kind} has more than 20 files and folders; give fewer"
    assert unpack(data / f"pack.{kind}", data / "unpacked").is_dir()  # one's own may have a million


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.png", ".hidden"])
def test_a_server_unpacks_so_much(data: Path, kind: str, name: str) -> None:
    """However large its disk is."""
    text = refusal_of(data, kind, packed(kind, {"b.png": b"0" * 50_000, name: b"0" * 50_001}))
    assert text == f"pack.{kind} holds more than the 0.0 GB that are unpacked here; give fewer files"
    assert unpack(data / f"pack.{kind}", data / "unpacked").is_dir()


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("limits", [SMALL, OWN])
def test_a_header_is_bounded(data: Path, kind: str, form: int, limits: Limits) -> None:
    """A name of 3,000 bytes is read, about the longest that a system takes; one of a megabyte is not."""
    buffers: list[io.BytesIO] = []
    for length in (1_000_000, 3000):
        buffers.append(io.BytesIO())
        with tarfile.open(fileobj=buffers[-1], mode=f"w:{kind.partition('.')[2]}", format=form) as archive:  # pyright: ignore
            info = tarfile.TarInfo("/".join(["n" * 199] * (length // 200)))
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    assert refusal_of(data, kind, buffers[0].getvalue(), limits) == (
        f"pack.{kind}: a member's header has more than 16,384 bytes; pack plain files without further attributes"
    )
    (data / f"pack.{kind}").write_bytes(buffers[1].getvalue())
    (written,) = (path for path in unpacked(data, kind, OWN).rglob("*") if path.is_file())
    assert written.read_bytes() == b"x"


def test_fields_for_all_members_are_bounded(data: Path) -> None:
    """git writes one; they would all be kept."""
    for count, refused in ((1, False), (101, True)):
        buffer = io.BytesIO()
        fields = {f"comment{number}": "x" for number in range(count)}
        with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT, pax_headers=fields) as archive:
            archive.addfile(tarfile.TarInfo("a.png"))
        if refused:
            assert refusal_of(data, "tar.gz", buffer.getvalue()) == (
                "pack.tar.gz has more than 100 fields for all members; pack it again"
            )
        else:
            (data / "pack.tar.gz").write_bytes(buffer.getvalue())
            shutil.rmtree(unpacked(data, "tar.gz", SMALL))


def test_the_table_of_a_zip_is_bounded(data: Path) -> None:
    """Here by the comment of one member; a megabyte is read at least."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(20):
            info = zipfile.ZipInfo(f"{number}.png")
            info.comment = b"c" * 60_000
            archive.writestr(info, b"x")
    text = refusal_of(data, "zip", buffer.getvalue())
    assert re.fullmatch(r"pack\.zip: the table of its members has 1,20\d,\d{3} bytes, 1,048,576 at most are read", text)
    assert unpack(data / "pack.zip", data / "unpacked").is_dir()


def test_the_memory_of_a_decompressor_is_bounded(data: Path) -> None:
    """LZMA's is as large as the archive says; xz tells beforehand, a zip does not."""
    strong = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 32 << 20}]
    content = lzma.compress(packed("tar", {"a.png": b"x"}), filters=strong)
    assert refusal_of(data, "tar.xz", content) == (
        "pack.tar.xz cannot be unpacked (Memory usage limit exceeded); create it again"
    )
    assert unpacked(data, "tar.xz", OWN).is_dir()
    shutil.rmtree(data / "u")
    (data / "pack.tar.xz").unlink()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"x")
    assert refusal_of(data, "zip", buffer.getvalue()) == (
        "pack.zip: a.png is packed with LZMA; use deflate, as most programs do"
    )
    assert unpacked(data, "zip", OWN).is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_unpacking_takes_so_long(data: Path, kind: str) -> None:
    text = refusal_of(data, kind, packed(kind, {"a.png": b"x"}), Limits(members=9, seconds=0))
    assert text == f"pack.{kind} takes more than 0 seconds to unpack; give fewer files"


def test_streams_that_follow_each_other(data: Path) -> None:
    """As programs write them that pack on all cores."""
    content = packed("tar", {"a.png": b"x" * 3000})
    for kind, pack in (("tar.gz", gzip.compress), ("tar.bz2", bz2.compress), ("tar.xz", lzma.compress)):
        (data / f"pack.{kind}").write_bytes(pack(content[:2000]) + pack(content[2000:]))
        assert (unpacked(data, kind, SMALL) / "a.png").read_bytes() == b"x" * 3000
        shutil.rmtree(data / "u")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a/" * 64 + "a.png", "x" * 252 + ".png", "é" * 126 + ".png"])
def test_names_that_no_folder_takes(data: Path, kind: str, name: str) -> None:
    """Before anything is made of them: of a name of a thousand folders, each takes memory with all those above it."""
    text = refusal_of(data, kind, packed(kind, {"b.png": png(1), name: png(2)}), OWN)
    assert text.startswith(f"pack.{kind}: the name {name[:40]}")
    assert text.endswith("is too long, or too deep; give it a shorter one")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_inside_a_file(data: Path, kind: str) -> None:
    text = refusal_of(data, kind, packed(kind, {"a.png": png(1), "a.png/b.png": png(2)}))
    assert text == f"pack.{kind}: a.png/b.png is inside another file; rename one of them"


def sparse(sizes: str, stored: int) -> bytes:
    """A tar of one sparse file, whose own size of 1 is beside that of what is stored, which is skipped."""
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {"GNU.sparse.size": "1", "GNU.sparse.numblocks": "1", "GNU.sparse.map": sizes}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    content = bytearray(buffer.getvalue())
    start = content.rindex(b"a.txt")
    content[start + 124 : start + 136] = b"%011o\0" % stored
    content[start + 148 : start + 156] = b" " * 8
    content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    return bytes(content)


def test_a_member_that_goes_on_behind_the_end(data: Path) -> None:
    """Its header says a megabyte, and the archive has a few kilobytes."""
    text = refusal_of(data, "tar", sparse("0,1", 1 << 20))
    assert text == "pack.tar cannot be unpacked (the archive ends in the middle of a member); create it again"


NAMED = packed("zip", {"é.png": png(1)})


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("tar", sparse("0,x", 0), "invalid literal for int()"),
        ("zip", NAMED.replace("é".encode(), b"\xff\xff", 1), "'utf-8' codec can't decode byte 0xff"),
        ("zip", packed("zip", {"?": b""}).replace(b"?", b"\0"), "string index out of range"),
    ],
)
def test_values_that_make_no_sense(data: Path, kind: str, content: bytes, reason: str) -> None:
    """For some, the libraries raise errors that are not theirs."""
    assert refusal_of(data, kind, content).startswith(f"pack.{kind} cannot be unpacked ({reason}")
