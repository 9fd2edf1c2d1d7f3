"""Resumable downloads over HTTP: after an interruption, only the rest of the file is requested.

Resuming is safe only if the file on the server is still the same. The request therefore has an `If-Range` header with
the ETag or date of the first response (RFC 9110, section 13.1.5), and a server whose file has changed sends all of it.
If the server gave neither, the whole file is requested again.
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

Progress = Callable[[int, "int | None"], object]  # (bytes so far, bytes in all or None); returns False to stop

OFFLINE = "LORABLEND_OFFLINE"  # environment variable, set by --offline; child processes inherit it
_TIMEOUT = 30.0  # seconds without an answer, or without a byte
_TRIES = 3  # in a row without a new byte
_REDIRECTS = 10
_BUSY = {408, 425, 429, 500, 502, 503, 504}  # statuses after which a retry may help


@dataclass(frozen=True)
class _Source:
    """What the server told about the file of which `part` is the beginning."""

    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def condition(self) -> str:
        """The value for If-Range, which must not be a weak ETag."""
        return self.modified if not self.etag or self.etag.startswith("W/") else self.etag


class _Again(Exception):  # noqa: N818 - a signal within this file
    """The attempt failed, but another one may succeed; the text gives the reason."""


def download(
    address: str,
    part: Path,
    check: Callable[[str], None],
    *,
    headers: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Download to `part`, continuing after what it contains already, and return the server's name for the file.

    After any exception, `part` stays for the next attempt.

    Args:
        address: An http or https URL.
        part: The file to write.
        check: Called with the server's name for the file before any content is read; may raise.
        headers: Added to the request. Authorization is not passed on when the server redirects to another one.
        progress: Called with the bytes so far and in all; returns False to stop.

    Raises:
        AdapterError: The file cannot be downloaded.
        RequestError: The address is not a URL.
        ResourceError: The disk is full.
        Cancelled: `progress` returned False.
    """
    where = shown_address(address)
    lock = FileLock(part.with_suffix(".lock"), timeout=0)
    try:
        with lock:
            return _until_done(address, where, part, check, headers or {}, progress)
    except Timeout:
        raise AdapterError(f"{where}: another program is downloading it; wait until it is done") from None


def shown_address(address: str) -> str:
    """The address without user, password and query, which may contain a token.

    Raises:
        RequestError: The address is not an http or https URL.
    """
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname or not address.isprintable():
        raise RequestError(
            f"{shown(address.partition('?')[0])} is not a web address; give one that starts with https://"
        )
    return shown(f"{parts.scheme}://{parts.hostname}{port}{parts.path}")


def fetch_small(address: str, limit: int, headers: Mapping[str, str]) -> bytes:
    """Download a file of at most `limit` bytes into memory. Raises AdapterError."""
    import httpx

    where = shown_address(address)
    content = b""
    try:
        with _client() as client, client.stream("GET", address, headers=_headers(headers)) as response:
            _check_status(response, where)
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > limit:
                    raise AdapterError(f"{where}: the file is longer than {limit} bytes")
    except (httpx.HTTPError, _Again) as error:
        raise AdapterError(f"{where}: the download failed ({_reason(error)}); try again") from error
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

    failures = 0  # in a row, without a new byte
    while True:
        before = _length(part)
        try:
            with _client() as client:
                return _attempt(client, address, where, part, check, headers, progress)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise AdapterError(f"{where}: redirects to an address that cannot be used ({_reason(error)})") from error
        except (httpx.HTTPError, _Again) as error:
            failures = 0 if _length(part) > before else failures + 1
            if failures == _TRIES:
                so_far = f" after {_length(part)} bytes" if _length(part) else ""
                message = f"{where}: the download failed{so_far} ({_reason(error)}); try again to continue from there"
                raise AdapterError(message) from error
            time.sleep(failures)


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
    request_headers = _headers(headers)
    if begin and source.condition:
        request_headers |= {"Range": f"bytes={begin}-", "If-Range": source.condition}
    with client.stream("GET", address, headers=request_headers) as response:
        if response.status_code == 416:  # nothing is left to send, or the part is not of this file
            if _total(response) == begin == source.total:
                name = _name(response)
                check(name)
                return name
            part.unlink(missing_ok=True)
            raise _Again("the file on the server has changed")
        _check_status(response, where)
        name = _name(response)
        check(name)
        if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
            raise AdapterError(f"{where}: the server sends the file compressed ({encoding}), which was not requested")
        if response.status_code == 206:
            if _first(response) != begin or _total(response) != source.total:
                part.unlink(missing_ok=True)
                raise _Again("the server sent another range than the one requested")
        else:
            source, begin = _Source(_header(response, "ETag"), _header(response, "Last-Modified"), _total(response)), 0
            part.unlink(missing_ok=True)  # before the state describes the new file
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
        for chunk in response.iter_raw():  # unbuffered: what httpx holds back would be lost with the connection
            done += len(chunk)
            if done > limit:
                raise AdapterError(
                    f"{where}: the server sends more than the {limit} bytes that it announced, or that fit here"
                )
            stream.write(chunk)
            if progress and progress(done, total) is False:
                raise Cancelled(f"{where}: stopped")
    if total is not None and done < total:
        raise _Again(f"{total - done} bytes are missing")


def check_online() -> None:
    """Raise RequestError if --offline forbids downloads."""
    if os.environ.get(OFFLINE):
        raise RequestError("downloads are turned off; start without --offline")


def _client() -> "httpx.Client":
    import httpx

    check_online()
    return httpx.Client(follow_redirects=True, max_redirects=_REDIRECTS, timeout=_TIMEOUT)


def _headers(more: Mapping[str, str]) -> dict[str, str]:
    # The lengths and ranges of compressed content are not those of the file.
    return {"User-Agent": f"lorablend/{version('lorablend')}", "Accept-Encoding": "identity", **more}


def _check_status(response: "httpx.Response", where: str) -> None:
    code = response.status_code
    if code in (200, 206):
        return
    if code in _BUSY:
        raise _Again(f"status {code}")
    meaning = {401: "a login is needed", 403: "access is denied", 404: "it does not exist", 410: "it was removed"}
    raise AdapterError(f"{where}: the server answers with status {code}{_with(meaning.get(code))}")


def _with(meaning: str | None) -> str:
    return f": {meaning}" if meaning else ""


def _check_disk(part: Path, where: str, total: int | None, begin: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - begin > free:
        raise ResourceError(
            f"{where}: {(total - begin) / 1e9:.1f} GB are needed, {part.parent} has {free / 1e9:.1f} GB free; make room"
        )


def _name(response: "httpx.Response") -> str:
    """The file name from Content-Disposition (RFC 6266), else from the final URL; never trusted as a path."""
    message = Message()
    message["Content-Disposition"] = _header(response, "Content-Disposition").replace("\r", "").replace("\n", "")
    return message.get_filename() or unquote(urlsplit(str(response.url)).path.rpartition("/")[2])


def _header(response: "httpx.Response", name: str) -> str:
    return response.headers.get(name, "")


def _first(response: "httpx.Response") -> int | None:
    """The first byte of the range, 100 for "Content-Range: bytes 100-199/200"."""
    match = re.match(r"bytes (\d+)-", _header(response, "Content-Range"))
    return int(match[1]) if match else None


def _total(response: "httpx.Response") -> int | None:
    """Size of the whole file in bytes, or None if the server does not tell."""
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
