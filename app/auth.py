"""Who may use the server: one check in front of every route, of the page and of all files.

On the loopback no login is needed, but a browser must come with a Host of this machine, so that no web page can reach
the server under a name of its own (DNS rebinding). With a token, or with users, every request needs one: as
`Authorization: Bearer TOKEN`, as the password of HTTP Basic, or once as `?token=TOKEN`, for which a browser gets a
cookie. A request from a page of another site that would change something is refused.

A users file has one `name:salt:hash` per line, written by `python -m lorablend.app.auth NAME`.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import hmac
import ipaddress
import os
import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.requests import cookie_parser

from lorablend.adapters.errors import RequestError

__all__ = ["Credentials", "cookie_secret", "hash_password", "is_loopback", "login_of", "read_users"]

_COOKIE_LIFE = 30 * 86_400  # seconds
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
_KNOWN = 1000  # checked passwords that are remembered by their hash
_SHORTEST, _LONGEST = 8, 1000  # characters of a password


@dataclass(frozen=True)
class _User:
    salt: bytes
    hash: bytes


# Used for an unknown name, so that the time of a reply does not tell which names are known.
_UNKNOWN = _User(secrets.token_bytes(16), b"")


class Credentials:
    """The token, the users, both or neither.

    Args:
        token: The token.
        users: The users by their names.
        secret: Signs cookies, with a key that changes with token and users. None for one of this process alone.
    """

    def __init__(
        self, token: str | None = None, users: Mapping[str, _User] | None = None, *, secret: bytes | None = None
    ) -> None:
        self._token = token
        self._users = dict(users or {})
        known = "\n".join([token or "", *(f"{name}:{user.hash.hex()}" for name, user in self._users.items())])
        # A token that can be guessed must not be found by trying signatures: the secret is in no cookie.
        self._key = hmac.new(secret or secrets.token_bytes(32), known.encode(), hashlib.sha256).digest()
        self._known: dict[bytes, str] = {}
        self._hashing: CapacityLimiter | None = None

    @property
    def needed(self) -> bool:
        """Whether requests need a login."""
        return self._token is not None or bool(self._users)

    async def check(self, name: str, password: str) -> str | None:
        """The user with this password; "" if it is the token, whatever the name; None if it is neither."""
        if self._token is not None and hmac.compare_digest(password.encode(), self._token.encode()):
            return ""
        if not name:  # as a bearer token, or in an address
            name, _, password = password.partition(":")
        if not self._users or not 0 < len(password) <= _LONGEST:
            return None
        user = self._users.get(name, _UNKNOWN)
        key = hashlib.sha256(f"{name}\n{password}".encode()).digest()
        if self._known.get(key) == name:
            return name
        self._hashing = self._hashing or CapacityLimiter(1)  # guessing passwords takes one core at most
        hashed = await to_thread.run_sync(_scrypt, password, user.salt, limiter=self._hashing)
        if not hmac.compare_digest(hashed, user.hash):
            return None
        if len(self._known) < _KNOWN:
            self._known[key] = name
        return name

    def cookie(self, user: str, port: int, *, secure: bool) -> str:
        """The cookie of a user who has logged in; it holds no password.

        It is Lax, so that a browser sends it when a link to the page is followed; the guard refuses changes by other
        sites. Its name contains the server's port, for a browser sends the cookies of one port to all others too.
        """
        ends = str(int(time.time()) + _COOKIE_LIFE)
        value = f"{quote(user, safe='')}.{ends}.{self._sign(user, ends)}"
        return _set_cookie(port, value, _COOKIE_LIFE, secure=secure)

    def no_cookie(self, port: int, *, secure: bool) -> str:
        """What makes a browser forget the cookie."""
        return _set_cookie(port, "", 0, secure=secure)

    def of_cookie(self, header: str, port: int) -> str | None:
        """The user of the cookie in a request's header; None if there is none that is valid."""
        rest, _, signature = cookie_parser(header).get(_cookie_name(port), "").rpartition(".")
        name, _, ends = rest.rpartition(".")  # a name may have dots in it
        for user in ("", *self._users):
            if name == quote(user, safe="") and hmac.compare_digest(
                signature.encode(), self._sign(user, ends).encode()
            ):
                return user if time.time() < int(ends) else None
        return None

    def _sign(self, user: str, ends: str) -> str:
        return hmac.new(self._key, f"{user}\n{ends}".encode(), hashlib.sha256).hexdigest()


def cookie_secret(path: Path) -> bytes:
    """The secret in a file, which is made if needed and readable by its owner only. Without the file, cookies end."""
    with suppress(FileExistsError), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    secret = path.read_bytes()
    if len(secret) < 32:  # the disk was full
        raise RequestError(f"{path} is damaged; delete it, and everybody has to log in again")
    return secret


def _set_cookie(port: int, value: str, age: int, *, secure: bool) -> str:
    ends = "; Secure" if secure else ""
    return f"{_cookie_name(port)}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{ends}"


def _cookie_name(port: int) -> str:
    return f"lorablend-{port}"


def read_users(path: Path) -> dict[str, _User]:
    """The users in a file. Raises RequestError for a line that is not `name:salt:hash`, or for no users."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = str(error.strerror).lower() if isinstance(error, OSError) else "not text in UTF-8"
        raise RequestError(f"{path} cannot be read: {reason}; give a file of users") from error
    users: dict[str, _User] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, salt, hashed = line.strip().split(":")
            users[name] = _User(bytes.fromhex(salt), bytes.fromhex(hashed))
        except ValueError:
            raise RequestError(
                f'{path}, line {number}: not name:salt:hash; write it with "python -m lorablend.app.auth NAME"'
            ) from None
        if not name or len(users[name].hash) != _SCRYPT["dklen"]:
            raise RequestError(f'{path}, line {number}: no hash; write it with "python -m lorablend.app.auth NAME"')
    if not users:
        raise RequestError(f'{path} names no user; add one with "python -m lorablend.app.auth NAME >> {path.name}"')
    return users


def hash_password(name: str, password: str) -> str:
    """A line for a users file. Raises RequestError for a name or a password that cannot be used."""
    if not name or not name.isprintable() or ":" in name:
        raise RequestError(f"the name {name!r} cannot be used; give one without a colon")
    if not _SHORTEST <= len(password) <= _LONGEST:
        raise RequestError(f"the password has {len(password)} characters; give {_SHORTEST} to {_LONGEST}")
    salt = secrets.token_bytes(16)
    return f"{name}:{salt.hex()}:{_scrypt(password, salt).hex()}"


def is_loopback(host: str) -> bool:
    """Whether this name or address reaches only this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_of(header: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def without_token(query: str) -> tuple[str | None, str]:
    """The token in a query, None if it has none, and the rest of the query."""
    pairs = parse_qsl(query, keep_blank_values=True)
    token = next((value for name, value in pairs if name == "token"), None)
    return token, urlencode([pair for pair in pairs if pair[0] != "token"])


def login_of(header: str) -> tuple[str, str]:
    """Name and password in a header `Authorization`; the name is "" for a bearer, the password if there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return "", value.strip()
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return name, password
    return "", ""


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lorablend.app.auth NAME >> users")
    try:
        print(hash_password(sys.argv[1], getpass.getpass(f"password of {sys.argv[1]}: ")))  # noqa: T201
    except RequestError as error:
        sys.exit(f"error: {error}")
