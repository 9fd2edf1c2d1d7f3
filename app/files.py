"""Files of a library and of pictures: valid names, moving files into a folder and to a bin, checking folders."""

import os
import re
import shutil
import tempfile
import time
import unicodedata
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from lorablend.adapters.errors import RequestError
from lorablend.adapters.files.atomic import part_of
from lorablend.adapters.wording import shown

__all__ = [
    "CONFIG",
    "PEFT_NAME",
    "SUFFIX",
    "check_folder",
    "check_name",
    "clean_name",
    "drop_parts",
    "move_in",
    "move_to_bin",
    "place_of",
    "private_folder",
    "without_folders",
]

SUFFIX = ".safetensors"
# PEFT's two files belong together and must keep these names: the second contains the scale of the first.
PEFT_NAME = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_LONGEST = 180  # bytes of UTF-8; file systems allow 255, suffixes included
_FORBIDDEN = re.compile(r'[<>:"|?*/\\]')  # by Windows, or within a tag of a prompt
_WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")
_PART_LIFE = 86_400  # seconds; no copy takes a day
_REMOVED = ".removed"  # suffix that keeps other programs from finding adapters in the bin


def clean_name(text: str) -> str:
    """Turn a file name from elsewhere into a valid name without the suffix, "" if nothing is left of it."""
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", text)[-1])
    name = _FORBIDDEN.sub("_", "".join(c if c.isprintable() else "_" for c in name))
    name = name.strip(" .")
    if name.lower().endswith(SUFFIX):
        name = name[: -len(SUFFIX)].strip(" .")
    name = name.encode()[:_LONGEST].decode(errors="ignore").strip(" .")
    return f"_{name}" if _WINDOWS_DEVICES.fullmatch(name) else name


def check_name(name: str) -> str:
    """Check a name that the user chose and return it without the suffix. Raises RequestError if it is invalid."""
    bare = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    if not bare or bare != clean_name(bare):
        raise RequestError(f"{shown(name)!r} cannot be an adapter's name; give one without any of / \\ : < > \" | ? *")
    return bare


def place_of(name: str, *, with_config: bool) -> str:
    """The path of an adapter in the library; PEFT's pair of files gets a folder of its own."""
    return f"{name}/{PEFT_NAME}" if with_config else name + SUFFIX


def drop_parts(folder: Path) -> None:
    """Delete parts (see `part_of`) that killed programs left in a library's folder."""
    for path in folder.glob(".*.part"):
        with suppress(OSError):  # another process has just done it
            if _PART.fullmatch(path.name) and time.time() - path.stat().st_mtime > _PART_LIFE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def move_in(part: Path, target: Path, config: bytes | None = None) -> bool:
    """Move a finished file to its place, with PEFT's settings next to it; return False if the name is taken.

    This happens in one step: of two programs only one gets the name, nothing is ever replaced, and killing the program
    leaves no incomplete file.
    """
    if config is not None:
        return _move_in_pair(part, target, config)
    try:
        os.link(part, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, such as a memory card's
        return _claim(part, target)
    part.unlink()
    return True


def _claim(part: Path, target: Path) -> bool:
    try:
        target.open("xb").close()
    except FileExistsError:
        return False
    try:
        os.replace(part, target)
    except BaseException:
        target.unlink()
        raise
    return True


def _move_in_pair(part: Path, target: Path, config: bytes) -> bool:
    if os.path.lexists(target.parent):
        return False
    work = part_of(target.parent)
    work.mkdir()
    try:
        (work / CONFIG).write_bytes(config)
        os.replace(part, work / target.name)
        try:
            os.rename(work, target.parent)
        except OSError:
            os.replace(work / target.name, part)  # only the name is taken
            if not os.path.lexists(target.parent):
                raise
            return False
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def move_to_bin(path: Path, preview: str, folder: Path, bin_folder: Path) -> Path:
    """Move an adapter, its picture and its settings to a new folder in the bin, and return that folder.

    Each file gets the suffix ".removed". To restore the adapter, remove the suffix and move the files back.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    bin_folder.mkdir(exist_ok=True)
    for number in range(1, 10_000):
        moved = bin_folder / f"{stamp}-{number}"
        try:
            moved.mkdir()
        except FileExistsError:
            continue
        break
    else:
        raise RequestError(f"{bin_folder} is full; empty it")
    files = [path]
    if preview:
        files.append(folder / preview)
    if path.name == PEFT_NAME and path.with_name(CONFIG).is_file():
        files.append(path.with_name(CONFIG))
    for file in files:
        target = moved / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target.with_name(target.name + _REMOVED))
    if path.parent != folder and not any(path.parent.iterdir()):
        path.parent.rmdir()
    return moved


def without_folders(text: str, folders: tuple[Path, ...]) -> str:
    """Remove this machine's folders from a message, because clients must not see them."""
    for folder in folders:
        for path in (folder.absolute(), folder.resolve()):
            if path.name:  # "/" occurs in every path
                text = text.replace(f"{path}{os.sep}", "").replace(str(path), path.name)
    return text


def private_folder(folder: Path) -> None:
    """Make a folder that other accounts of the machine cannot look into; close one that they can."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        with suppress(PermissionError):  # another account's, which has its reasons
            folder.chmod(0o700)


def check_folder(folder: Path) -> None:
    """Raise RequestError unless pictures can be written to `folder`, which need not exist yet. Call before drawing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise RequestError(f"{existing} is a file; give a folder for the pictures")
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise RequestError(f"{existing} cannot be written to ({error.strerror}); give another folder") from error
