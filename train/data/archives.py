"""Data sets as zip and tar archives, unpacked once into the cache or elsewhere; no member ever leaves its folder."""

import hashlib
import lzma
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import platformdirs

from lorablend.adapters.errors import DataError, ResourceError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.wording import shown
from lorablend.train.data.members import OWN, Limits, Member, members_of

__all__ = ["ARCHIVES", "cache_folder", "unpack"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_PART_OF_FREE = 0.9  # fraction of the free disk space that an archive may take
_CHUNK = 1 << 20  # bytes
_LONGEST_NAME, _DEEPEST = 255, 64  # bytes of a folder's or file's name, as file systems allow; folders in one another
# The last four are zipfile's for an unsupported compression and for a password, and for values that make no sense.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
)
_IGNORED = {"__MACOSX", "Thumbs.db", "desktop.ini"}  # added by operating systems


def cache_folder() -> Path:
    """The folder `train` in $LORABLEND_CACHE, or in the user's own cache folder: what training keeps between runs."""
    return Path(os.environ.get("LORABLEND_CACHE") or platformdirs.user_cache_dir("lorablend")) / "train"


def unpack(archive: Path, folder: Path | None = None, limits: Limits = OWN) -> Path:
    """Unpack an archive, unless its folder exists already, and return the folder.

    Args:
        archive: A zip, or a tar with any compression.
        folder: None for one in the cache, named by the hash of the archive's bytes.
        limits: What it may take, beside nine tenths of the free disk space.

    Raises:
        DataError: The archive is damaged, encrypted or beyond the limits, or has links or names that lead out of it.
        ResourceError: The disk has no room for the contents.
    """
    folder = folder or _place_of(archive)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(folder) as part:
            part.mkdir()
            _unpack_to(archive, part, limits)
    except OSError:
        if not folder.is_dir():  # else another program was faster
            raise
    return folder


def _place_of(archive: Path) -> Path:
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return cache_folder() / "archives" / digest.hexdigest()[:32]


def is_ignored(path: PurePosixPath) -> bool:
    """Whether a file is hidden, or was added by an operating system."""
    return any(part.startswith(".") or part in _IGNORED for part in path.parts)


def _unpack_to(archive: Path, folder: Path, limits: Limits) -> None:
    name, total, count = archive.name, 0, 0
    room = int(_PART_OF_FREE * shutil.disk_usage(folder).free)
    folders: set[PurePosixPath] = set()
    end = None if limits.seconds is None else time.monotonic() + limits.seconds

    def check_size(size: int) -> None:
        _check_size(name, size, room, limits.size)

    def check_time() -> None:
        if end is not None and time.monotonic() > end:
            raise DataError(f"{name} takes more than {limits.seconds:g} seconds to unpack; give fewer files")

    with _readable(name), members_of(archive, limits, check_size) as members:
        for member in members:
            check_time()
            path = _inside(member, name)
            count, total = count + 1, total + member.size
            folders.update(path.parents[:-1])  # the last one is the archive's own
            if count + len(folders) > limits.members:
                raise DataError(f"{name} has more than {limits.members:,} files and folders; give fewer")
            check_size(total)
            if member.open is None:
                continue
            target = Path(os.devnull) if is_ignored(path) else folder / path
            if target.is_relative_to(folder):
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                except (FileExistsError, NotADirectoryError):
                    raise DataError(
                        f"{name}: {shown(member.name)} is inside another file; rename one of them"
                    ) from None
                if target.exists():
                    raise DataError(f"{name}: {shown(member.name)} appears twice; rename one of them")
            with member.open() as source, target.open("wb") as file:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
                    check_time()


def _check_size(name: str, size: int, room: int, most: int | None) -> None:
    if most is not None and size > most:
        raise DataError(f"{name} holds more than the {most / 1e9:.1f} GB that are unpacked here; give fewer files")
    if size > room:
        raise ResourceError(
            f"{name} holds {size / 1e9:.1f} GB or more, the disk has room for {room / 1e9:.1f} GB; free up space, or "
            "unpack it on another disk and give the folder"
        )


def _inside(member: Member, name: str) -> PurePosixPath:
    """The member's path in the folder. Raises DataError if it would be outside."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    is_itself = not path.parts and member.open  # a file cannot be; a folder is, as in "tar c ."
    if path.is_absolute() or ".." in path.parts or ":" in member.name or "\0" in member.name or is_itself:
        raise DataError(f"{name}: the member {shown(member.name)} would leave the folder; nothing is unpacked")
    if len(path.parts) > _DEEPEST or any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        raise DataError(f"{name}: the name {shown(member.name)} is too long, or too deep; give it a shorter one")
    return path


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise DataError(f"{name} cannot be unpacked ({' '.join(str(error).split())}); create it again") from error
    except OSError as error:
        if error.errno is not None:  # of the disk; the decoders' OSErrors have no number
            raise ResourceError(f"{name} could not be unpacked: {error.strerror}") from error
        raise DataError(f"{name} cannot be unpacked ({error}); create it again") from error
