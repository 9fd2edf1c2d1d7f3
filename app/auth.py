"""Who may use the server: one check in front of every route, of the page and of all files.

On the loopback no login is needed, but a browser must come with a Host of this machine, so that no web page can reach
the server under a name of its own (DNS rebinding). With a token, or with users, every request needs one: as
`Authorization: Bearer TOKEN`, as the password of HTTP Basic, or once as `?token=TOKEN`, which a browser keeps as a
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
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.requests import cookie_parser

from lorablend.adapters.errors import RequestError

__all__ = ["Credentials", "hash_password", "is_loopback", "read_users"]

COOKIE = "lorablend"
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
_KNOWN = 1000  # checked passwords that are remembered by their hash
_LONGEST = 1000  # characters of a password


@dataclass(frozen=True)
class _User:
    salt: bytes
    hash: bytes


# Used for an unknown name, so that the time of a reply does not tell which names are known.
_UNKNOWN = _User(secrets.token_bytes(16), b"")


class Credentials:
    """The token, the users, both or neither. Cookies are signed with a key that changes with them."""

    def __init__(self, token: str | None = None, users: Mapping[str, _User] | None = None) -> None:
        self._token = token
        self._users = dict(users or {})
        secret = "\n".join([token or "", *(f"{name}:{user.hash.hex()}" for name, user in self._users.items())])
        self._key = hashlib.sha256(f"lorablend cookie\n{secret}".encode()).digest()
        self._known: dict[bytes, str] = {}
        self._hashing: CapacityLimiter | None = None

    @property
    def needed(self) -> bool:
        """Whether requests need a login."""
        return self._token is not None or bool(self._users)

    async def user(self, headers: Mapping[str, str]) -> str | None:
        """The user who sends a request with these headers, "" if it has the token, None if it has neither."""
        name, password = _authorization(headers.get("authorization", ""))
        if password and (user := await self.check(name, password)) is not None:
            return user
        return self._of_cookie(headers.get("cookie", ""))

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

    def cookie(self, user: str) -> str:
        """The cookie of a user who has logged in; it holds no password.

        It is Lax, so that a browser sends it when a link to the page is followed; the guard refuses changes by other
        sites.
        """
        return f"{COOKIE}={quote(user, safe='')}.{self._sign(user)}; Path=/; HttpOnly; SameSite=Lax"

    def _of_cookie(self, header: str) -> str | None:
        name, dot, signature = cookie_parser(header).get(COOKIE, "").encode().rpartition(b".")
        for user in ("", *self._users):
            own = quote(user, safe="").encode()
            if dot and name == own and hmac.compare_digest(signature, self._sign(user).encode()):
                return user
        return None

    def _sign(self, user: str) -> str:
        return hmac.new(self._key, user.encode(), hashlib.sha256).hexdigest()


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
    if not 0 < len(password) <= _LONGEST:
        raise RequestError(f"the password has {len(password)} characters; give 1 to {_LONGEST}")
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


def _authorization(header: str) -> tuple[str, str]:
    """Name and password; the name is "" for a bearer."""
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
