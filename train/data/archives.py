"""Data sets as zip and tar archives, unpacked once into the cache or elsewhere; no member ever leaves its folder."""

import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import platformdirs

from lorablend.adapters.errors import DataError, ResourceError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.wording import shown

__all__ = ["ARCHIVES", "cache_folder", "unpack"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_MOST_MEMBERS = 1_000_000
_PART_OF_FREE = 0.9  # fraction of the free disk space that an archive may take
_CHUNK = 1 << 20  # bytes
_IGNORED = {"__MACOSX", "Thumbs.db", "desktop.ini"}  # added by operating systems

Open = Callable[[], IO[bytes]]


def cache_folder() -> Path:
    """The folder `train` in $LORABLEND_CACHE, or in the user's own cache folder: what training keeps between runs."""
    return Path(os.environ.get("LORABLEND_CACHE") or platformdirs.user_cache_dir("lorablend")) / "train"


def unpack(archive: Path, folder: Path | None = None) -> Path:
    """Unpack an archive, unless its folder exists already, and return the folder.

    Args:
        folder: None for one in the cache, named by the hash of the archive's bytes.

    Raises:
        DataError: The archive is damaged or encrypted, or has links or names that lead out of it.
        ResourceError: The disk has no room for the contents.
    """
    folder = folder or _place_of(archive)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(folder) as part:
            part.mkdir()
            _unpack_to(archive, part)
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


def _unpack_to(archive: Path, folder: Path) -> None:
    name, total, room = archive.name, 0, int(_PART_OF_FREE * shutil.disk_usage(folder).free)
    read = _zip_members if archive.suffix.lower() == ".zip" else _tar_members
    with _readable(name), read(archive, room) as members:
        for count, (member, size, opened) in enumerate(members):
            path = _inside(member, name)
            total += size
            if count >= _MOST_MEMBERS:
                raise DataError(f"{name} has more than {_MOST_MEMBERS:,} members; give a folder")
            _check_room(name, total, room)
            if is_ignored(path):
                continue
            target = folder / path
            if target.exists():
                raise DataError(f"{name}: {shown(member)} appears twice; rename one of them")
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, _CHUNK)


def _check_room(name: str, size: int, room: int) -> None:
    if size > room:
        raise ResourceError(
            f"{name} holds {size / 1e9:.1f} GB or more, the disk has room for {room / 1e9:.1f} GB; free up space, or "
            "unpack it on another disk and give the folder"
        )


def _inside(member: str, name: str) -> PurePosixPath:
    """The member's path in the folder. Raises DataError if it would be outside."""
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member or "\0" in member or not path.parts:
        raise DataError(f"{name}: the member {shown(member)} would leave the folder; nothing is unpacked")
    return path


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    # the last two are zipfile's for an unsupported compression and for a password
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{name} cannot be unpacked ({' '.join(str(error).split())}); create it again") from error
    except OSError as error:
        if error.errno is not None:  # of the disk; the decoders' OSErrors have no number
            raise ResourceError(f"{name} could not be unpacked: {error.strerror}") from error
        raise DataError(f"{name} cannot be unpacked ({error}); create it again") from error


@contextmanager
def _zip_members(archive: Path, room: int) -> Iterator[Iterator[tuple[str, int, Open]]]:
    with zipfile.ZipFile(archive) as file:
        if locked := [info.filename for info in file.infolist() if info.flag_bits & 1]:
            raise DataError(f"{archive.name} is encrypted ({shown(locked[0])}); pack it without a password")
        links = [info.filename for info in file.infolist() if (info.external_attr >> 28) == 0o12]
        if links:
            raise DataError(f"{archive.name}: {shown(links[0])} is a link; pack the files themselves")
        infos = [info for info in file.infolist() if not info.is_dir()]
        _check_room(archive.name, sum(info.file_size for info in infos), room)
        yield ((info.filename, info.file_size, lambda info=info: file.open(info)) for info in infos)


@contextmanager
def _tar_members(archive: Path, _: int) -> Iterator[Iterator[tuple[str, int, Open]]]:
    with tarfile.open(archive) as file:

        def members() -> Iterator[tuple[str, int, Open]]:
            for info in file:
                if info.isdir():
                    continue
                source = file.extractfile(info) if info.isreg() else None
                if source is None:
                    raise DataError(f"{archive.name}: {shown(info.name)} is a link or a device; pack plain files")
                yield info.name, info.size, lambda source=source: source

        yield members()
