"""How an adapter comes into a library: copied from a file, downloaded from an address, or from the Hugging Face Hub.

Whatever comes is written to a part in a hidden folder first, then checked, and gets its name last: a file in the
library is a whole safetensors file, never a pickle, never half of one.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256 as _sha256
from pathlib import Path
from typing import TYPE_CHECKING

from lorablend.adapters.errors import AdapterError, Cancelled, RequestError, ResourceError
from lorablend.adapters.files.file import read_file
from lorablend.adapters.wording import shown
from lorablend.app.files import CONFIG, PEFT_NAME, SUFFIX, check_name, clean_name, drop_parts, move_in, place_of
from lorablend.app.library.download import Progress, download, fetch_small, shown_address
from lorablend.app.library.scan import hash_whole

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["Progress", "fetch", "read_hub_name"]

_HUB = "hf:"
_CHUNK = 4 << 20  # bytes
_CONFIG_LIMIT = 10_000_000  # bytes
_PART_LIFE = 30 * 86_400  # seconds; after that nobody goes on with a download
# Names that say nothing: the program's, not the adapter's.
_NO_NAMES = {"adapter_model", "pytorch_lora_weights", "model", "diffusion_pytorch_model", "lora"}


@dataclass(frozen=True)
class _Arrived:
    """A part that is complete: how to call it, and PEFT's settings that belong to it.

    `kept`: it stays where only its name is refused, so that nobody downloads it twice for that.
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
    progress: Progress | None,
) -> str:
    """Bring `source` into `folder` and return its path in there; `Library.add` describes it all.

    `known` gives the path of a file in the library with this SHA-256, or None.
    """
    name = None if name is None else check_name(name)
    wanted = None if sha256 is None else _check_sha256(sha256)
    if wanted and (file := known(wanted)):
        return file
    parts.mkdir(exist_ok=True)
    _drop_old(parts)
    drop_parts(folder)
    text = os.fspath(source)
    if text.startswith(_HUB):
        arrived, wanted = _from_hub(text[len(_HUB) :], folder, parts, known, name, wanted, progress)
        if isinstance(arrived, str):
            return arrived
    elif "://" in text:
        arrived = _from_address(text, folder, parts, name, progress)
    else:
        path = Path(text)
        if path.exists() and path.resolve().is_relative_to(folder):
            raise RequestError(f"{shown(path)} is in the library already")
        arrived = _from_file(path, parts, name, progress)
    return _settle(arrived, folder, known, wanted)


def _settle(arrived: _Arrived, folder: Path, known: Callable[[str], str | None], wanted: str | None) -> str:
    """Check what has arrived and give it its place. What is wrong is deleted, so that the next try begins anew."""
    part, name = arrived.part, arrived.name
    try:
        read_file(part)
        found = hash_whole(part).sha256
        if wanted and found != wanted:
            raise AdapterError(f"sha256 is {found}, {wanted} was expected; it is not the file you want")
    except AdapterError as error:
        _forget(part)
        raise AdapterError(f"{shown(name)}: {str(error).removeprefix(f'{shown(part.name)}: ')}") from error.__cause__
    if file := known(found):
        _forget(part)
        return file
    file = place_of(name, with_config=arrived.config is not None)
    if not move_in(part, folder / file, arrived.config):
        if not arrived.kept:
            _forget(part)
        raise _taken(name)
    _forget(part)
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
                f"{shown(path)}: {total / 1e9:.1f} GB are to be copied, {part.parent} has {free / 1e9:.1f} GB free"
            )
        with part.open("wb") as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
                if progress and progress(target.tell(), total) is False:
                    raise Cancelled(f"{shown(path)}: stopped")


def _from_address(address: str, folder: Path, parts: Path, name: str | None, progress: Progress | None) -> _Arrived:
    shown_address(address)  # is it one?
    part = parts / f"{_key(address)}.part"

    def check(theirs: str) -> None:
        _check_suffix(theirs)
        _check_free(folder, place_of(_named(name or clean_name(theirs)), with_config=False))

    theirs = download(address, part, check, progress=progress)
    return _Arrived(part, _named(name or clean_name(theirs)))


def _from_hub(
    text: str,
    folder: Path,
    parts: Path,
    known: Callable[[str], str | None],
    name: str | None,
    wanted: str | None,
    progress: Progress | None,
) -> tuple[_Arrived | str, str | None]:
    """The part and the SHA-256 that it must have; or the file of the library that it is already."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
    from huggingface_hub import get_token, hf_hub_url

    repo, file = read_hub_name(f"{_HUB}{text}")
    info = _repository(repo)
    files = {one.rfilename: one for one in info.siblings or ()}
    file = _choose(repo, file, list(files))
    stored = files[file].lfs
    theirs = stored.sha256 if stored else None  # of a file that is not in LFS the Hub tells no SHA-256
    if wanted and theirs and wanted != theirs:
        raise AdapterError(f"{shown(repo)}/{shown(file)}: sha256 is {theirs}, {wanted} was expected")
    wanted = wanted or theirs
    if wanted and (here := known(wanted)):
        return here, wanted

    *inside, last = file.split("/")
    config = "/".join([*inside, CONFIG]) if last == PEFT_NAME and "/".join([*inside, CONFIG]) in files else None
    name = _named(name or _telling_name(last, inside[-1] if inside else repo))
    _check_free(folder, place_of(name, with_config=config is not None))
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = hf_hub_url(repo, file, revision=info.sha)
    part = parts / f"{_key(address)}.part"
    download(address, part, lambda _: None, headers=headers, progress=progress)
    settings = fetch_small(hf_hub_url(repo, config, revision=info.sha), _CONFIG_LIMIT, headers) if config else None
    return _Arrived(part, name, settings), wanted


def _repository(repo: str) -> "ModelInfo":
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # of httpx, or from huggingface_hub 2 on of httpx2
        RepositoryNotFoundError,
    )

    try:
        return HfApi().model_info(repo, files_metadata=True)
    except GatedRepoError:
        raise AdapterError(
            f"{shown(repo)} asks you to accept its terms on huggingface.co; do so, then run `hf auth login`"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise AdapterError(f"{shown(repo)} is not on huggingface.co; if it is private, run `hf auth login`") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise AdapterError(f"{shown(repo)}: huggingface.co answers with status {status}; try again later") from error
    except (HTTPError, OSError) as error:
        raise AdapterError(f"{shown(repo)}: huggingface.co cannot be reached; connect to the network") from error


def _choose(repo: str, file: str | None, files: list[str]) -> str:
    """The file that is meant: the one that is named, or the repository's only one."""
    choices = [name for name in files if name.lower().endswith(SUFFIX)]
    if file in choices:
        return file
    if file is None and len(choices) == 1:
        return choices[0]
    if file is not None and file in files:
        _check_suffix(file)
    listed = ", ".join(shown(name) for name in choices[:20]) + (", …" if len(choices) > 20 else "")
    there = f"there is: {listed}" if choices else f"there is no {SUFFIX} file in it"
    if file is not None:
        raise RequestError(f"{shown(repo)} has no file {shown(file)}; {there}")
    if not choices:
        raise RequestError(f"{shown(repo)}: {there}")
    raise RequestError(f"{shown(repo)} has {len(choices)} adapters; give one as {_HUB}{shown(repo)}/FILE: {listed}")


def read_hub_name(text: str) -> tuple[str, str | None]:
    """(owner/name, file) of "hf:owner/name/file"; the file is None where none is given. Raises RequestError."""
    match = re.fullmatch(rf"{_HUB}([^/\s]+/[^/\s]+)(?:/(.+))?", text)
    if not match:
        raise RequestError(f"{shown(text)} is no repository; write {_HUB}owner/name or {_HUB}owner/name/file")
    return match[1], match[2]


def _check_suffix(name: str) -> None:
    """Refuse by its name what is no safetensors file; a name without a known suffix is seen by its content."""
    suffix = Path(re.split(r"[/\\]", name)[-1]).suffix.lower()
    if suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".zip", ".gguf", ".onnx", ".html", ".json"):
        raise AdapterError(f"{shown(name)} is a {suffix} file; only {SUFFIX} is taken")


def _check_free(folder: Path, file: str) -> None:
    if os.path.lexists(folder / file) or ("/" in file and os.path.lexists((folder / file).parent)):
        raise _taken(file.partition("/")[0].removesuffix(SUFFIX))


def _taken(name: str) -> RequestError:
    return RequestError(f"{shown(name)}: an adapter of that name is in the library; choose a name of your own")


def _telling_name(file: str, folder: str) -> str:
    """A file's name without its suffix; the folder's where the file is called what its program calls all of them."""
    name = clean_name(file)
    return clean_name(folder) if name.lower() in _NO_NAMES else name


def _named(name: str) -> str:
    if not name:
        raise RequestError("the source gives the adapter no name; choose one")
    return name


def _check_sha256(text: str) -> str:
    """In lower case; kohya's files write 0x before it."""
    value = text.lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise RequestError(f"sha256 is {shown(repr(text))}; give 64 hex digits")
    return value


def _key(source: str) -> str:
    return _sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _forget(part: Path) -> None:
    """Delete a part and what is noted about it; its lock stays, for somebody may hold it."""
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def _drop_old(parts: Path) -> None:
    for path in parts.iterdir():
        try:
            if time.time() - path.stat().st_mtime > _PART_LIFE:
                path.unlink()
        except OSError:  # somebody else has just done it
            pass
