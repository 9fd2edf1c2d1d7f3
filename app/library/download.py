"""Download a file over HTTP so that nothing is fetched twice: what came before a cut stays, and the rest is asked for.

Resuming is safe only if the file on the server is still the same: the request says so with `If-Range` and the ETag or
date of the first answer (RFC 9110, section 13.1.5), and a server whose file has changed sends all of it again. A server
that gives neither is asked for everything.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from lorablend.adapters.errors import AdapterError, Cancelled, RequestError, ResourceError
from lorablend.adapters.wording import shown

if TYPE_CHECKING:
    import httpx

__all__ = ["OFFLINE", "Progress", "check_online", "download", "fetch_small", "shown_address"]

Progress = Callable[[int, "int | None"], object]  # (bytes so far, bytes in all or None); False stops

OFFLINE = "LORABLEND_OFFLINE"  # an environment variable: set by --offline, also for the processes of long jobs
_TIMEOUT = 30.0  # seconds without an answer, or without a byte
_TRIES = 3  # in a row without a new byte
_REDIRECTS = 10
_BUSY = {408, 425, 429, 500, 502, 503, 504}  # worth another try


@dataclass(frozen=True)
class _Source:
    """What the server said about the file of which `part` is the beginning."""

    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def condition(self) -> str:
        """For If-Range, which takes no weak ETag."""
        return self.modified if not self.etag or self.etag.startswith("W/") else self.etag


class _Again(Exception):  # noqa: N818 - a signal within this file
    """The attempt failed in a way that another one may mend; the text says how."""


def download(
    address: str,
    part: Path,
    check: Callable[[str], None],
    *,
    headers: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Download to `part`, going on from what it holds already, and return the name that the server gives the file.

    `check` is called with that name before any of the content is read, and may raise. `headers` go to this server and
    no other. Raises AdapterError, RequestError for an address that is none, ResourceError for a full disk, Cancelled;
    `part` stays for the next time.
    """
    where = shown_address(address)
    lock = FileLock(part.with_suffix(".lock"), timeout=0)
    try:
        with lock:
            return _until_done(address, where, part, check, headers or {}, progress)
    except Timeout:
        raise AdapterError(f"{where}: another program is downloading it; wait for that one") from None


def shown_address(address: str) -> str:
    """The address without user, password and query, which may hold a token. Raises RequestError if it is none."""
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname or not address.isprintable():
        raise RequestError(f"{shown(address.partition('?')[0])} is no address; give one that starts with https://")
    return shown(f"{parts.scheme}://{parts.hostname}{port}{parts.path}")


def fetch_small(address: str, limit: int, headers: Mapping[str, str]) -> bytes:
    """A file of at most `limit` bytes. Raises AdapterError."""
    import httpx

    where = shown_address(address)
    content = b""
    try:
        with _client() as client, client.stream("GET", address, headers=_headers(headers)) as response:
            _check_status(response, where)
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > limit:
                    raise AdapterError(f"{where}: longer than {limit} bytes")
    except (httpx.HTTPError, _Again) as error:
        raise AdapterError(f"{where}: the download stopped ({_reason(error)}); try again") from error
    return content


def _until_done(
    address: str,
    where: str,
    part: Path,
    check: Callable[[str], None],
    headers: Mapping[str, str],
    progress: Progress | None,
) -> str:
    import httpx

    futile = 0
    while True:
        before = _length(part)
        try:
            with _client() as client:
                return _attempt(client, address, where, part, check, headers, progress)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise AdapterError(f"{where}: leads to an address that cannot be used ({_reason(error)})") from error
        except (httpx.HTTPError, _Again) as error:
            futile = 0 if _length(part) > before else futile + 1
            if futile == _TRIES:
                so_far = f" after {_length(part)} bytes" if _length(part) else ""
                message = f"{where}: the download stopped{so_far} ({_reason(error)}); run it again to go on from there"
                raise AdapterError(message) from error
            time.sleep(futile)


def _attempt(
    client: "httpx.Client",
    address: str,
    where: str,
    part: Path,
    check: Callable[[str], None],
    headers: Mapping[str, str],
    progress: Progress | None,
) -> str:
    state = part.with_suffix(".json")
    source, begin = _read_state(state), _length(part)
    wanted = _headers(headers)
    if begin and source.condition:
        wanted |= {"Range": f"bytes={begin}-", "If-Range": source.condition}
    with client.stream("GET", address, headers=wanted) as response:
        if response.status_code == 416:  # nothing is left to send, or what we have is not of this file
            if _total(response) == begin == source.total:
                name = _name(response)
                check(name)
                return name
            part.unlink(missing_ok=True)
            raise _Again("the server has another file now")
        _check_status(response, where)
        name = _name(response)
        check(name)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise AdapterError(f"{where}: the server packs the file ({response.headers['Content-Encoding']}) unasked")
        if response.status_code == 206:
            if _first(response) != begin or _total(response) != source.total:
                part.unlink(missing_ok=True)
                raise _Again("the server sent another piece than it was asked for")
        else:
            source, begin = _Source(_header(response, "ETag"), _header(response, "Last-Modified"), _total(response)), 0
            part.unlink(missing_ok=True)  # before the state says that it is of the new file
            state.write_text(json.dumps(asdict(source)), "utf-8")
        _check_disk(part, where, source.total, begin)
        _receive(response, part, where, begin, source.total, progress)
    return name


def _receive(
    response: "httpx.Response", part: Path, where: str, begin: int, total: int | None, progress: Progress | None
) -> None:
    limit = total if total is not None else begin + shutil.disk_usage(part.parent).free // 2
    done = begin
    with part.open("ab") as stream:
        if progress and progress(done, total) is False:
            raise Cancelled(f"{where}: stopped")
        for chunk in response.iter_raw():  # as it comes: what httpx gathers would be lost with the connection
            done += len(chunk)
            if done > limit:
                raise AdapterError(f"{where}: the server sends more than the {limit} bytes it named, or than fit here")
            stream.write(chunk)
            if progress and progress(done, total) is False:
                raise Cancelled(f"{where}: stopped")
    if total is not None and done < total:
        raise _Again(f"{total - done} bytes are missing")


def check_online() -> None:
    """Raise RequestError where --offline forbids every download."""
    if os.environ.get(OFFLINE):
        raise RequestError("nothing is downloaded offline; start without --offline")


def _client() -> "httpx.Client":
    import httpx

    check_online()
    return httpx.Client(follow_redirects=True, max_redirects=_REDIRECTS, timeout=_TIMEOUT)


def _headers(more: Mapping[str, str]) -> dict[str, str]:
    # Packed content has other lengths and ranges than the file.
    return {"User-Agent": f"lorablend/{version('lorablend')}", "Accept-Encoding": "identity", **more}


def _check_status(response: "httpx.Response", where: str) -> None:
    code = response.status_code
    if code in (200, 206):
        return
    if code in _BUSY:
        raise _Again(f"status {code}")
    meaning = {401: "it wants a login", 403: "it is not for everybody", 404: "it is not there", 410: "it is gone"}
    raise AdapterError(f"{where}: the server refuses it, status {code}{_with(meaning.get(code))}")


def _with(meaning: str | None) -> str:
    return f": {meaning}" if meaning else ""


def _check_disk(part: Path, where: str, total: int | None, begin: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - begin > free:
        raise ResourceError(
            f"{where}: {(total - begin) / 1e9:.1f} GB to come, {part.parent} has {free / 1e9:.1f} GB free; make room"
        )


def _name(response: "httpx.Response") -> str:
    """From Content-Disposition (RFC 6266), else from the address that answered; never trusted as a path."""
    message = Message()
    message["Content-Disposition"] = _header(response, "Content-Disposition").replace("\r", "").replace("\n", "")
    return message.get_filename() or unquote(urlsplit(str(response.url)).path.rpartition("/")[2])


def _header(response: "httpx.Response", name: str) -> str:
    return response.headers.get(name, "")


def _first(response: "httpx.Response") -> int | None:
    """Where the piece begins, from "Content-Range: bytes 100-199/200"."""
    match = re.match(r"bytes (\d+)-", _header(response, "Content-Range"))
    return int(match[1]) if match else None


def _total(response: "httpx.Response") -> int | None:
    """Bytes of the whole file, if the server says."""
    if response.status_code == 200:
        text = _header(response, "Content-Length")
    else:
        text = _header(response, "Content-Range").rpartition("/")[2]
    return int(text) if text.isdecimal() else None


def _read_state(path: Path) -> _Source:
    try:
        return _Source(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return _Source()


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    return shown(str(error) or type(error).__name__)
