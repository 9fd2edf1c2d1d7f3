"""Adding an adapter to a library: copied from a file, or downloaded from an address or the Hugging Face Hub.

The content is first written to a part in a hidden folder, then checked, and gets its name last. So a file in the
library is always a complete safetensors file, never a pickle and never half of a file.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256 as _sha256
from pathlib import Path
from typing import TYPE_CHECKING

from lorablend.adapters.errors import AdapterError, Cancelled, RequestError, ResourceError
from lorablend.adapters.files.file import check_beginning, read_file
from lorablend.adapters.wording import shown
from lorablend.app.files import CONFIG, PEFT_NAME, SUFFIX, check_name, clean_name, drop_parts, move_in, place_of
from lorablend.app.library.download import download, fetch_small, forget, shown_address
from lorablend.app.library.scan import hash_whole
from lorablend.app.library.watch import Limits, Progress

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["fetch", "read_hub_name"]

_HUB = "hf:"
_CHUNK = 4 << 20  # bytes
_CONFIG_LIMIT = 10_000_000  # bytes
_PART_LIFE = 7 * 86_400  # seconds after which an interrupted download is dropped
_ANSWER = 30.0  # seconds in which the Hub answers
# Names that programs give to every adapter.
_GENERIC_NAMES = {"adapter_model", "pytorch_lora_weights", "model", "diffusion_pytorch_model", "lora"}


@dataclass(frozen=True)
class _Arrived:
    """A complete part.

    Attributes:
        part: The file.
        name: What to call the adapter.
        config: PEFT's adapter_config.json for it, or None.
        kept: Whether the part stays if only its name is refused, so that it need not be downloaded twice.
    """

    part: Path
    name: str
    config: bytes | None = None
    kept: bool = True


def fetch(
    source: str | os.PathLike[str],
    folder: Path,
    parts: Path,
    known: Callable[[str], str | None],
    *,
    name: str | None,
    sha256: str | None,
    limits: Limits,
    progress: Progress | None,
) -> str:
    """Add `source` to `folder` and return its path there. See `Library.add` for the details.

    `known` returns the path of a file in the library with the given SHA-256, or None.
    """
    name = None if name is None else check_name(name)
    expected = None if sha256 is None else _check_sha256(sha256)
    if expected and (file := known(expected)):
        return file
    parts.mkdir(exist_ok=True)
    _drop_old(parts, limits.size)
    drop_parts(folder)
    text = os.fspath(source)
    if text.startswith(_HUB):
        arrived, expected = _from_hub(text[len(_HUB) :], folder, parts, known, name, expected, limits, progress)
        if isinstance(arrived, str):
            return arrived
    elif "://" in text:
        arrived = _from_address(text, folder, parts, name, limits, progress)
    else:
        path = Path(text)
        if path.exists() and path.resolve().is_relative_to(folder):
            raise RequestError(f"{shown(path)} is in the library already")
        arrived = _from_file(path, parts, name, progress)
    return _settle(arrived, folder, known, expected)


def _settle(arrived: _Arrived, folder: Path, known: Callable[[str], str | None], expected: str | None) -> str:
    """Check a part and move it into the library; a bad one is deleted, so that the next attempt starts over."""
    part, name = arrived.part, arrived.name
    try:
        read_file(part)
        actual = hash_whole(part).sha256
        if expected and actual != expected:
            raise AdapterError(f"sha256 is {actual}, but {expected} was expected; this is another file")
    except AdapterError as error:
        forget(part)
        raise _bad(name, str(error).removeprefix(f"{shown(part.name)}: ")) from error.__cause__
    if file := known(actual):
        forget(part)
        return file
    file = place_of(name, with_config=arrived.config is not None)
    if not move_in(part, folder / file, arrived.config):
        if not arrived.kept:
            forget(part)
        raise _taken(name)
    forget(part)
    return file


def _from_file(path: Path, parts: Path, name: str | None, progress: Progress | None) -> _Arrived:
    config = path.with_name(CONFIG) if path.name == PEFT_NAME else None
    name = _named(name or _telling_name(path.name, path.absolute().parent.name))
    _check_suffix(path.name)
    part = parts / f"{uuid.uuid4().hex}.part"
    try:
        _copy(path, part, progress)
        settings = config.read_bytes() if config and config.is_file() else None
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AdapterError(f"{shown(path)}: cannot be read ({error.strerror or error})") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return _Arrived(part, name, settings, kept=False)


def _copy(path: Path, part: Path, progress: Progress | None) -> None:
    with path.open("rb") as source:
        total = os.fstat(source.fileno()).st_size
        if total > (free := shutil.disk_usage(part.parent).free):
            raise ResourceError(
                f"{shown(path)}: the copy needs {total / 1e9:.1f} GB, {part.parent} has {free / 1e9:.1f} GB free; "
                "make room"
            )
        with part.open("wb") as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
                if progress and progress(target.tell(), total) is False:
                    raise Cancelled(f"{shown(path)}: stopped")


def _from_address(
    address: str, folder: Path, parts: Path, name: str | None, limits: Limits, progress: Progress | None
) -> _Arrived:
    shown_address(address)  # raises if it is not a URL
    part = parts / f"{_key(address)}.part"
    given = name or ""

    def check(server_name: str) -> None:
        nonlocal given
        _check_suffix(server_name)
        given = _named(name or clean_name(server_name))
        _check_free(folder, place_of(given, with_config=False))

    download(address, part, check, lambda path, size: _look(path, size, given), limits=limits, progress=progress)
    return _Arrived(part, given)


def _look(part: Path, size: int | None, name: str) -> int:
    """Refuse a wrong file as soon as its header is there. See `download` for the arguments."""
    try:
        return check_beginning(part, size)
    except AdapterError as error:
        raise _bad(name, str(error)) from error.__cause__


def _from_hub(
    text: str,
    folder: Path,
    parts: Path,
    known: Callable[[str], str | None],
    name: str | None,
    expected: str | None,
    limits: Limits,
    progress: Progress | None,
) -> tuple[_Arrived | str, str | None]:
    """The part, or the path in the library if the file is there already; and the SHA-256 that it must have."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
    from huggingface_hub import constants, get_token, hf_hub_url

    repo, file = read_hub_name(f"{_HUB}{text}")
    info = _repository(repo)
    files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    file = _choose(repo, file, list(files))
    stored = files[file].lfs
    hub_sha256 = stored.sha256 if stored else None  # the Hub gives none for files outside LFS
    if expected and hub_sha256 and expected != hub_sha256:
        raise AdapterError(f"{shown(repo)}/{shown(file)}: sha256 is {hub_sha256}, but {expected} was expected")
    expected = expected or hub_sha256
    if expected and (here := known(expected)):
        return here, expected

    *folders, last = file.split("/")
    config = "/".join([*folders, CONFIG]) if last == PEFT_NAME and "/".join([*folders, CONFIG]) in files else None
    name = _named(name or _telling_name(last, folders[-1] if folders else repo))
    _check_free(folder, place_of(name, with_config=config is not None))
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()  # as in the rest of that library
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = hf_hub_url(repo, file, revision=info.sha)
    part = parts / f"{_key(address)}.part"
    download(
        address,
        part,
        lambda _: None,
        lambda path, size: _look(path, size, name),
        headers=headers,
        trusted=True,
        limits=limits,
        progress=progress,
    )
    settings = None
    if config:
        config_address = hf_hub_url(repo, config, revision=info.sha)
        settings = fetch_small(config_address, _CONFIG_LIMIT, headers, trusted=True, limits=limits)
    return _Arrived(part, name, settings), expected


def _repository(repo: str) -> "ModelInfo":
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # from httpx; since huggingface_hub 2 from httpx2
        RepositoryNotFoundError,
    )

    from lorablend.app.library.public import NotPublicError

    try:
        return HfApi().model_info(repo, files_metadata=True, timeout=_ANSWER)
    except NotPublicError as error:
        raise RequestError(f"{shown(repo)}: {error}") from None
    except GatedRepoError:
        raise AdapterError(
            f"{shown(repo)} requires you to accept its terms on huggingface.co; do so, then run `hf auth login`"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise AdapterError(f"{shown(repo)} is not on huggingface.co; if it is private, run `hf auth login`") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise AdapterError(f"{shown(repo)}: huggingface.co answers with status {status}; try again later") from error
    except (HTTPError, OSError) as error:
        raise AdapterError(f"{shown(repo)}: huggingface.co cannot be reached; connect to the network") from error


def _choose(repo: str, file: str | None, files: list[str]) -> str:
    """The named file, or the only adapter of the repository."""
    choices = [name for name in files if name.lower().endswith(SUFFIX)]
    if file in choices:
        return file
    if file is None and len(choices) == 1:
        return choices[0]
    if file is not None and file in files:
        _check_suffix(file)
    listed = ", ".join(shown(name) for name in choices[:20]) + (", …" if len(choices) > 20 else "")
    if not choices:
        raise RequestError(f"{shown(repo)} has no {SUFFIX} file; choose another repository")
    if file is not None:
        raise RequestError(f"{shown(repo)} has no file {shown(file)}; it has {listed}")
    raise RequestError(f"{shown(repo)} has {len(choices)} adapters; choose one with {_HUB}{shown(repo)}/FILE: {listed}")


def read_hub_name(text: str) -> tuple[str, str | None]:
    """(owner/name, file) of "hf:owner/name/file"; the file is None if none is given. Raises RequestError."""
    match = re.fullmatch(rf"{_HUB}([^/\s]+/[^/\s]+)(?:/(.+))?", text)
    if not match:
        raise RequestError(f"{shown(text)} is not a repository; write {_HUB}owner/name or {_HUB}owner/name/file")
    return match[1], match[2]


def _check_suffix(name: str) -> None:
    """Refuse other kinds of files by their suffix; files with an unknown suffix are judged by their content."""
    suffix = Path(re.split(r"[/\\]", name)[-1]).suffix.lower()
    if suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".zip", ".gguf", ".onnx", ".html", ".json"):
        raise AdapterError(f"{shown(name)} is a {suffix} file; only {SUFFIX} files are accepted")


def _check_free(folder: Path, file: str) -> None:
    if os.path.lexists(folder / file) or ("/" in file and os.path.lexists((folder / file).parent)):
        raise _taken(file.partition("/")[0].removesuffix(SUFFIX))


def _bad(name: str, reason: str) -> AdapterError:
    return AdapterError(f"{shown(name)}: {reason}")


def _taken(name: str) -> RequestError:
    return RequestError(f"{shown(name)}: the library has an adapter of that name; choose another name")


def _telling_name(file: str, folder: str) -> str:
    """A file's name without its suffix, or its folder's name if the file's is a generic one."""
    name = clean_name(file)
    return clean_name(folder) if name.lower() in _GENERIC_NAMES else name


def _named(name: str) -> str:
    if not name:
        raise RequestError("the source does not name the adapter; choose a name")
    return name


def _check_sha256(text: str) -> str:
    """The hash in lower case and without the 0x that kohya's files put before it."""
    value = text.lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise RequestError(f"sha256 is {shown(repr(text))}; give 64 hex digits")
    return value


def _key(source: str) -> str:
    return _sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _drop_old(parts: Path, most: int | None) -> None:
    """Delete what interrupted downloads left: what is old, and then the oldest until `most` bytes are left."""
    left = 0
    for path in sorted(parts.iterdir(), key=_changed, reverse=True):
        with suppress(OSError):  # another process has just deleted it
            left += path.stat().st_size
            if time.time() - _changed(path) > _PART_LIFE or (most is not None and left > most):
                path.unlink()


def _changed(path: Path) -> float:
    """When a file was changed last; now, if it is just being deleted."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
