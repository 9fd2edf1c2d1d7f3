"""Resumable downloads over HTTP: after an interruption, only the rest of the file is requested.

Resuming is safe only if the file on the server is still the same. The request therefore has an `If-Range` header with
the ETag or date of the first response (RFC 9110, section 13.1.5), and a server whose file has changed sends all of it.
If the server gave neither, the whole file is requested again.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from lorablend.adapters.errors import AdapterError, RequestError, ResourceError
from lorablend.adapters.wording import shown
from lorablend.app.library.answer import first_byte, header, name_of, total_size
from lorablend.app.library.watch import UNLIMITED, Limits, Progress, Watch

if TYPE_CHECKING:
    import httpx

__all__ = ["OFFLINE", "check_online", "download", "fetch_small", "forget", "shown_address"]

Look = Callable[[Path, "int | None"], int]
"""Takes the file as far as it is there, and the bytes of all of it or None. Returns how many bytes there should be
before the next call, 0 for no further one; raises AdapterError for a file that is not worth downloading."""

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


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What `download` was asked for, and who watches it."""

    address: str
    where: str
    part: Path
    check: Callable[[str], None]
    look: Look
    headers: Mapping[str, str]
    trusted: bool
    limits: Limits
    watch: Watch


def download(
    address: str,
    part: Path,
    check: Callable[[str], None],
    look: Look,
    *,
    headers: Mapping[str, str] | None = None,
    trusted: bool = False,
    limits: Limits = UNLIMITED,
    progress: Progress | None = None,
) -> str:
    """Download to `part`, continuing after what it contains already, and return the server's name for the file.

    After an exception, `part` stays for the next attempt, unless the file is not wanted.

    Args:
        address: An http or https URL.
        part: The file to write.
        check: Called with the server's name for the file before any content is read; may raise.
        look: Called with the content as soon as there is some.
        headers: Added to the request. Authorization is not passed on when the server redirects to another one.
        trusted: Whether the server's owner chose the host, so that it may be in a private network.
        limits: What the download may take.
        progress: Called with the bytes so far and in all; returns False to stop. While nothing arrives, it is called
            by another thread.

    Raises:
        AdapterError: The file cannot be downloaded, or is not wanted.
        RequestError: The address is not a URL, or not public on a server that others use.
        ResourceError: The disk is full.
        Cancelled: `progress` returned False.
    """
    where = shown_address(address)
    lock = part.with_suffix(".lock")
    try:
        with FileLock(lock, timeout=0), Watch(where, limits, progress) as watch:
            try:
                return _until_done(
                    _Wanted(
                        address=address,
                        where=where,
                        part=part,
                        check=check,
                        look=look,
                        headers=headers or {},
                        trusted=trusted,
                        limits=limits,
                        watch=watch,
                    )
                )
            finally:
                if not _length(part):
                    forget(part)
                # While it is held: a program that has it open finds out that it is gone, and a later one makes another.
                with suppress(OSError):  # Windows keeps a file that is open
                    lock.unlink()
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


def fetch_small(
    address: str,
    limit: int,
    headers: Mapping[str, str],
    *,
    trusted: bool = False,
    limits: Limits = UNLIMITED,
) -> bytes:
    """Download a file of at most `limit` bytes into memory. Raises what `download` raises."""
    import httpx

    from lorablend.app.library.public import NotPublicError

    where = shown_address(address)
    content = b""
    with Watch(where, limits) as watch:
        try:
            with _client(address, trusted=trusted) as client, _get(client, address, headers, watch) as response:
                _check_status(response, where)
                _check_plain(response, where)
                for chunk in response.iter_raw():
                    content += chunk
                    watch.tell(len(content), None)
                    if len(content) > limit:
                        raise AdapterError(f"{where}: the file is longer than {limit} bytes")
        except NotPublicError as error:
            raise RequestError(f"{where}: {error}") from None
        except (httpx.HTTPError, _Again) as error:
            watch.check()
            raise AdapterError(f"{where}: the download failed ({_reason(error)}); try again") from error
        watch.check()
    return content


def _until_done(wanted: _Wanted) -> str:
    import httpx

    from lorablend.app.library.public import NotPublicError

    part, where = wanted.part, wanted.where
    failures = 0  # in a row, without a new byte
    while True:
        before = _length(part)
        try:
            with _client(wanted.address, trusted=wanted.trusted) as client:
                return _attempt(client, wanted)
        except NotPublicError as error:
            raise RequestError(f"{where}: {error}") from None
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise AdapterError(f"{where}: redirects to an address that cannot be used ({_reason(error)})") from error
        except (httpx.HTTPError, _Again) as error:
            wanted.watch.check()
            failures = 0 if _length(part) > before else failures + 1
            if failures == _TRIES:
                so_far = f" after {_length(part)} bytes" if _length(part) else ""
                message = f"{where}: the download failed{so_far} ({_reason(error)}); try again to continue from there"
                raise AdapterError(message) from error
            time.sleep(failures)


def _attempt(client: "httpx.Client", wanted: _Wanted) -> str:
    part, where = wanted.part, wanted.where
    state = part.with_suffix(".json")
    source, begin = _read_state(state), _length(part)
    headers = dict(wanted.headers)
    if begin and source.condition:
        headers |= {"Range": f"bytes={begin}-", "If-Range": source.condition}
    with _get(client, wanted.address, headers, wanted.watch) as response:
        if response.status_code == 416:  # nothing is left to send, or the part is not of this file
            if total_size(response) == begin == source.total:
                name = name_of(response)
                wanted.check(name)
                return name
            part.unlink(missing_ok=True)
            raise _Again("the file on the server has changed")
        _check_status(response, where)
        name = name_of(response)
        wanted.check(name)
        _check_plain(response, where)
        if response.status_code == 206:
            if first_byte(response) != begin or total_size(response) != source.total:
                part.unlink(missing_ok=True)
                raise _Again("the server sent another range than the one requested")
        else:
            source = _Source(header(response, "ETag"), header(response, "Last-Modified"), total_size(response))
            begin = 0
            part.unlink(missing_ok=True)  # before the state describes the new file
            state.write_text(json.dumps(asdict(source)), "utf-8")
        _check_size(wanted, source.total, begin)
        _receive(response, wanted, begin, source.total)
    return name


def _receive(response: "httpx.Response", wanted: _Wanted, begin: int, total: int | None) -> None:
    where, part = wanted.where, wanted.part
    limit = total if total is not None else begin + shutil.disk_usage(part.parent).free // 2
    if wanted.limits.size is not None:
        limit = min(limit, wanted.limits.size)
    done, needed = begin, 1  # needed: bytes for the next look
    with part.open("ab") as stream:
        wanted.watch.tell(done, total)
        for chunk in response.iter_raw():  # unbuffered: what httpx holds back would be lost with the connection
            done += len(chunk)
            if done > limit:
                forget(part)
                raise AdapterError(
                    f"{where}: the server sends more than the {limit} bytes that it announced, or that fit here"
                )
            stream.write(chunk)
            while 0 < needed <= done:
                stream.flush()
                needed = _look(wanted, total)
            wanted.watch.tell(done, total)
    wanted.watch.check()  # it may have ended the connection, which looks like the end of a file without a length
    if total is not None and done < total:
        raise _Again(f"{total - done} bytes are missing")


def _look(wanted: _Wanted, total: int | None) -> int:
    try:
        return wanted.look(wanted.part, total)
    except AdapterError:
        forget(wanted.part)
        raise


def _get(
    client: "httpx.Client", address: str, headers: Mapping[str, str], watch: Watch
) -> AbstractContextManager["httpx.Response"]:
    # The lengths and ranges of compressed content are not those of the file.
    own = {"User-Agent": f"lorablend/{version('lorablend')}", "Accept-Encoding": "identity"}
    return client.stream("GET", address, headers={**own, **headers}, extensions={"trace": watch.trace})


def check_online() -> None:
    """Raise RequestError if --offline forbids downloads."""
    if os.environ.get(OFFLINE):
        raise RequestError("downloads are turned off; start without --offline")


def _client(address: str, *, trusted: bool) -> "httpx.Client":
    import httpx

    from lorablend.app.library.public import PUBLIC_ONLY, PublicTransport

    check_online()
    transport = PublicTransport(address if trusted else None) if os.environ.get(PUBLIC_ONLY) else None
    return httpx.Client(follow_redirects=True, max_redirects=_REDIRECTS, timeout=_TIMEOUT, transport=transport)


def _check_status(response: "httpx.Response", where: str) -> None:
    code = response.status_code
    if code in (200, 206):
        return
    if code in _BUSY:
        raise _Again(f"status {code}")
    meaning = {401: "a login is needed", 403: "access is denied", 404: "it does not exist", 410: "it was removed"}
    raise AdapterError(f"{where}: the server answers with status {code}{_with(meaning.get(code))}")


def _check_plain(response: "httpx.Response", where: str) -> None:
    if (encoding := header(response, "Content-Encoding") or "identity") != "identity":
        raise AdapterError(f"{where}: the server sends the file compressed ({encoding}), which was not requested")


def _with(meaning: str | None) -> str:
    return f": {meaning}" if meaning else ""


def _check_size(wanted: _Wanted, total: int | None, begin: int) -> None:
    if total is None:
        return
    if wanted.limits.size is not None and total > wanted.limits.size:
        forget(wanted.part)
        raise AdapterError(
            f"{wanted.where}: the file has {total / 1e9:.1f} GB, but at most {wanted.limits.size / 1e9:.1f} GB are "
            "downloaded here; give the file itself"
        )
    free = shutil.disk_usage(wanted.part.parent).free
    if total - begin > free:
        raise ResourceError(
            f"{wanted.where}: {(total - begin) / 1e9:.1f} GB are needed, {wanted.part.parent} has {free / 1e9:.1f} GB "
            "free; make room"
        )


def _read_state(path: Path) -> _Source:
    try:
        return _Source(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return _Source()


def forget(part: Path) -> None:
    """Delete a part and its state."""
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    return shown(str(error) or type(error).__name__)
