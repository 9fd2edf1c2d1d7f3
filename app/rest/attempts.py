"""Logins by token or password: wrong ones are logged, answered late, and limited for each address."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from lorablend.adapters.wording import shown
from lorablend.app.auth import Credentials

__all__ = ["Attempts", "TooManyError"]

_LOG = logging.getLogger(__name__)
_MOST = 10  # different wrong logins of one address
_MEMORY = 300.0  # seconds after which a wrong login is forgotten
_DELAY = 0.1  # seconds by which the answer to each further one is later
_ADDRESSES = 10_000


class TooManyError(Exception):
    """There were too many wrong logins from an address.

    Attributes:
        retry_after: Seconds until another one is looked at.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many wrong logins from this address; try again in {retry_after} seconds")
        self.retry_after = retry_after


@dataclass
class _Address:
    """wrong: hashes of wrong logins, the oldest first, with the times of their first attempt."""

    wrong: dict[bytes, float] = field(default_factory=dict)
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Attempts:
    """Checks logins. Addresses have nothing to do with each other: wrong logins of one never hold up another.

    A wrong login that is repeated counts once, for it gains nothing: a program with an old token does not lock out the
    others on its machine.
    """

    def __init__(self, credentials: Credentials, clock: Callable[[], float] = time.monotonic) -> None:
        self._credentials, self._clock = credentials, clock
        self._addresses: dict[str, _Address] = {}

    async def check(self, address: str, name: str, password: str) -> str | None:
        """As `Credentials.check`, for a login from an address. Raises TooManyError."""
        place = _network(address)
        known = self._addresses[place] = self._addresses.pop(place, None) or _Address()
        while len(self._addresses) > _ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        digest = hashlib.sha256(f"{name}\n{password}".encode()).digest()
        async with known.lock:  # one at a time, so that no address fills the queue of passwords to hash
            now = self._clock()
            for old in [old for old, since in known.wrong.items() if now - since > _MEMORY]:
                del known.wrong[old]
            if digest not in known.wrong:
                if len(known.wrong) >= _MOST:
                    raise TooManyError(math.ceil(_MEMORY - (now - next(iter(known.wrong.values())))))
                user = await self._credentials.check(name, password)
                if user is not None:
                    return user
                known.wrong[digest] = now
                _LOG.warning("wrong login from %s%s", address, f' as "{shown(name)}"' if name else "")
                if len(known.wrong) == _MOST:
                    _LOG.warning("no further logins from %s for up to %.0f s", address, _MEMORY)
        await anyio.sleep(_DELAY * len(known.wrong))
        return None


def _network(address: str) -> str:
    """What one attacker has: an address, of IPv6 the whole network of 64 bits."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
