"""Names and places in a library's folder: what a file may be called, how it gets in, how it goes to the bin."""

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
    "without_folders",
]

SUFFIX = ".safetensors"
# PEFT's two files belong together under these very names: the scale of the first is in the second.
PEFT_NAME = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_LONGEST = 180  # bytes of UTF-8: a file system takes 255 with all suffixes
_FORBIDDEN = re.compile(r'[<>:"|?*/\\]')  # to Windows, or to the tag of a prompt
_WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")
_PART_LIFE = 86_400  # seconds; no copy takes a day
_REMOVED = ".removed"  # so that no program that looks for adapters finds one in the bin


def clean_name(text: str) -> str:
    """A file name that somebody else chose, as a name without a suffix; "" if nothing is left of it."""
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", text)[-1])
    name = _FORBIDDEN.sub("_", "".join(c if c.isprintable() else "_" for c in name))
    name = name.strip(" .")
    if name.lower().endswith(SUFFIX):
        name = name[: -len(SUFFIX)].strip(" .")
    name = name.encode()[:_LONGEST].decode(errors="ignore").strip(" .")
    return f"_{name}" if _WINDOWS_DEVICES.fullmatch(name) else name


def check_name(name: str) -> str:
    """A name that the user chose, without its suffix. Raises RequestError for one that cannot be a file's."""
    bare = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    if not bare or bare != clean_name(bare):
        raise RequestError(f"{shown(name)!r} cannot be an adapter's name; give one without any of / \\ : < > \" | ? *")
    return bare


def place_of(name: str, *, with_config: bool) -> str:
    """The path in the library of an adapter called `name`; PEFT's pair has a folder of its own."""
    return f"{name}/{PEFT_NAME}" if with_config else name + SUFFIX


def drop_parts(folder: Path) -> None:
    """Delete what killed programs left of `part_of` in a library's folder."""
    for path in folder.glob(".*.part"):
        with suppress(OSError):  # somebody else has just done it
            if _PART.fullmatch(path.name) and time.time() - path.stat().st_mtime > _PART_LIFE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def move_in(part: Path, target: Path, config: bytes | None = None) -> bool:
    """Give a finished file its place, with PEFT's settings beside it; False if something is there already.

    In one step: of two programs only one gets the name, nothing is ever replaced, and a kill leaves no half of it.
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
            os.replace(work / target.name, part)  # only the name is refused
            if not os.path.lexists(target.parent):
                raise
            return False
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def move_to_bin(path: Path, preview: str, folder: Path, bin_folder: Path) -> Path:
    """Move an adapter and what belongs to it to a new folder in the bin; returns that folder.

    Each name gets the ending ".removed"; without it, and moved back, the adapter is as it was.
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
    goes = [path]
    if preview:
        goes.append(folder / preview)
    if path.name == PEFT_NAME and path.with_name(CONFIG).is_file():
        goes.append(path.with_name(CONFIG))
    for file in goes:
        target = moved / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target.with_name(target.name + _REMOVED))
    if path.parent != folder and not any(path.parent.iterdir()):
        path.parent.rmdir()
    return moved


def without_folders(text: str, folders: tuple[Path, ...]) -> str:
    """The message without this machine's folders, which are no business of clients."""
    for folder in folders:
        for path in (folder.absolute(), folder.resolve()):
            if path.name:  # "/" is in every path
                text = text.replace(f"{path}{os.sep}", "").replace(str(path), path.name)
    return text


def check_folder(folder: Path) -> None:
    """Raise RequestError unless pictures can be written to `folder`, which need not exist. Ask before the work."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise RequestError(f"{existing} is a file; give a folder for the pictures")
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise RequestError(f"{existing} cannot be written to ({error.strerror}); give another folder") from error
