"""The members of zip and tar archives, one after another, with bounds for what their headers take.

The libraries read a header whole, however long it says it is, and keep those of all members.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from lorablend.adapters.errors import DataError
from lorablend.adapters.wording import shown

__all__ = ["OWN", "Limits", "Member", "members_of"]

_PER_MEMBER = 256  # bytes of a zip's table, as the mean of all members
_TAR_HEADER = 16 << 10  # bytes before a member's content; a name of 4,096 and its attributes take half
_TAR_BLOCK = 4 << 10  # bytes that tarfile reads at once, and so beyond what it needs
_MOST_EMPTY = 100  # tarfile goes on reading behind the end, as long as a header says there is more
_GLOBAL_FIELDS = 100  # that count for all members of a tar; git writes one
_XZ_CHUNK = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What unpacking may take, beside a part of the disk; None for no limit.

    Attributes:
        members: Members, and folders that their names imply.
        size: Bytes of all contents together.
        memory: Bytes for the window of a decompressor.
        seconds: For all of it.
    """

    members: int
    size: int | None = None
    memory: int | None = None
    seconds: float | None = None


OWN = Limits(members=1_000_000)
"""For archives of the user's own."""


@dataclass(frozen=True)
class Member:
    """One member; `open` reads the content of a file, before the next member is asked for. size: in bytes."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None  # None for a folder


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def members_of(archive: Path, limits: Limits, check_size: Callable[[int], None]) -> Iterator[Iterator[Member]]:
    """The members of a zip, or of a tar with any compression, which its first bytes tell.

    Args:
        archive: The file.
        limits: Of members and memory. The rest is left to the caller.
        check_size: Called with the bytes of all members, where a table tells them beforehand; may raise.

    Raises:
        DataError: A link, a device, a password, a header that is too long, or too many members.
    """
    if archive.suffix.lower() == ".zip":
        with _Bounded(archive, max(1 << 20, limits.members * _PER_MEMBER)) as stream, zipfile.ZipFile(stream) as file:
            check_size(sum(info.file_size for info in file.infolist()))
            yield _zip_members(file, archive.name, limits)
        return
    with archive.open("rb") as raw:
        counted = _Counted(_unpacked(raw, limits.memory), archive.name)
        with tarfile.open(fileobj=counted, mode="r|", bufsize=_TAR_BLOCK) as file:
            yield _tar_members(file, counted, archive.name)


def _zip_members(file: zipfile.ZipFile, name: str, limits: Limits) -> Iterator[Member]:
    infos = file.infolist()
    if len(infos) > limits.members:
        raise DataError(f"{name} has more than {limits.members:,} files and folders; give fewer")
    for info in infos:
        if info.flag_bits & 1:
            raise DataError(f"{name} is encrypted ({shown(info.filename)}); pack it without a password")
        if (info.external_attr >> 28) == 0o12:
            raise DataError(f"{name}: {shown(info.filename)} is a link; pack the files themselves")
        if info.compress_type == zipfile.ZIP_LZMA and limits.memory is not None:  # its window cannot be bounded
            raise DataError(f"{name}: {shown(info.filename)} is packed with LZMA; use deflate, as most programs do")
    for info in infos:
        yield Member(info.filename, info.file_size, None if info.is_dir() else lambda info=info: file.open(info))


def _tar_members(file: tarfile.TarFile, counted: "_Counted", name: str) -> Iterator[Member]:
    while True:
        with counted.header():
            info = file.next()
        if info is None:
            return
        file.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - it keeps them all
        if len(file.pax_headers) > _GLOBAL_FIELDS:
            raise DataError(f"{name} has more than {_GLOBAL_FIELDS} fields for all members; pack it again")
        if info.isdir():
            yield Member(info.name, 0, None)
            continue
        source = file.extractfile(info) if info.isreg() and info.size >= 0 else None
        if source is None:
            raise DataError(f"{name}: {shown(info.name)} is a link or a device; pack plain files")
        yield Member(info.name, info.size, lambda source=source: source)


class _Bounded(io.BufferedReader):
    """A file of which never more than so many bytes are read at once."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(io.FileIO(path))
        self._name, self._most = path.name, most

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._most:
            raise DataError(
                f"{self._name}: the table of its members has {size:,} bytes, {self._most:,} at most are read"
            )
        return super().read(size)


class _Counted:
    """A stream that gives no more than so many bytes between the contents of two members."""

    def __init__(self, stream: _Readable, name: str) -> None:
        self._stream, self._name = stream, name
        self._empty = 0  # reads behind the end, in a row
        self._left: int | None = _TAR_HEADER + _TAR_BLOCK  # the first header is read when the archive is opened

    @contextmanager
    def header(self) -> Iterator[None]:
        """While a header is read."""
        self._left = _TAR_HEADER + _TAR_BLOCK
        yield
        self._left = None

    def read(self, size: int, /) -> bytes:
        content = self._stream.read(size)
        self._empty = 0 if content else self._empty + 1
        if self._empty > _MOST_EMPTY:
            raise EOFError("the archive ends in the middle of a member")
        if self._left is not None:
            self._left -= len(content)
            if self._left < 0:
                raise DataError(
                    f"{self._name}: a member's header has more than {_TAR_HEADER:,} bytes; pack plain files without "
                    "further attributes"
                )
        return content


def _unpacked(raw: BinaryIO, memory: int | None) -> _Readable:
    """The stream of a tar, by its first bytes."""
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if start == b"\xfd7zXZ\0":
        return _Xz(raw, memory)
    return raw


class _Xz:
    """An xz stream; unlike `lzma.LZMAFile`, it takes no more memory than it may."""

    def __init__(self, raw: BinaryIO, memory: int | None) -> None:
        self._raw, self._memory = raw, memory
        self._decoder = lzma.LZMADecompressor(memlimit=memory)

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end. Raises EOFError if the stream is cut."""
        while True:
            packed = b""
            if self._decoder.eof:
                packed = self._decoder.unused_data.lstrip(b"\0") or self._raw.read(_XZ_CHUNK).lstrip(b"\0")
                if not packed:
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=self._memory)  # another stream follows
            elif self._decoder.needs_input and not (packed := self._raw.read(_XZ_CHUNK)):
                raise EOFError("the compressed file ended before its end marker")
            if content := self._decoder.decompress(packed, size):
                return content
