"""Connections to public internet addresses alone, for servers that others use.

Otherwise their users could reach what the server can: itself, its network, its provider's settings. Every connection is
checked, also that of a redirect, and is made to the address that was checked, without looking the name up again.
"""

import ipaddress
import socket

import httpx
import psutil

from lorablend.adapters.errors import RequestError

__all__ = ["PUBLIC_ONLY", "NotPublicError", "PublicTransport", "guard_hub", "is_public"]

PUBLIC_ONLY = "LORABLEND_PUBLIC_ONLY"  # environment variable of servers that others use; child processes inherit it

# What ipaddress has no name for: IPv4 addresses within IPv6 (RFC 6052, section 2.1), and the only part of IPv6 that is
# given to the public (RFC 4291, section 2.4).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV6 = ipaddress.IPv6Network("2000::/3")


class NotPublicError(RequestError):
    """The only reason that is told, so that it does not tell what there is in the server's network."""

    def __init__(self) -> None:
        super().__init__(
            "this server downloads from the public internet only, and knows no such address there; "
            "give another address, or the file itself"
        )


class PublicTransport(httpx.HTTPTransport):
    """Connects to public addresses only; anything else raises `NotPublicError`.

    No connection is kept, because one that was made for a name must not be used for another name at the same address.
    Proxies are not used: they would look up the names themselves.

    Args:
        trusted: An address that the server's owner chose. What has its scheme, host and port is not checked.
    """

    def __init__(self, trusted: str | None = None) -> None:
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))
        self._trusted = None if trusted is None else _origin(httpx.URL(trusted))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. It keeps its Host header and its name for TLS; only the connection goes to an address."""
        url = request.url
        if _origin(url) == self._trusted:
            return super().handle_request(request)
        name = url.raw_host.decode("ascii")
        *others, last = _public_addresses(name)
        for address in others:
            try:
                return super().handle_request(_at(request, address, name))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # such as an IPv6 address without a way there
        return super().handle_request(_at(request, last, name))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and not of this machine."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _IPV6 or ip.sixtofour or ip.teredo:  # the last two are tunnels to IPv4 addresses
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved) and ip not in _own_addresses()


def guard_hub() -> None:
    """Make huggingface_hub in this process use `PublicTransport`; the server that it is set up for is trusted.

    Set HF_HUB_DISABLE_XET too, before it is imported: Xet makes connections of its own.
    """
    from huggingface_hub import constants, set_client_factory

    def client() -> httpx.Client:
        return httpx.Client(transport=PublicTransport(constants.ENDPOINT), follow_redirects=True, timeout=None)

    if not constants.is_offline_mode():  # then its own client refuses everything
        set_client_factory(client)


def _public_addresses(name: str) -> list[str]:
    """The addresses of a name, at least one. Raises NotPublicError if one of them is not public, or there is none."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # the same reason: it must not tell which names a private network has
        raise NotPublicError from None
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not addresses or not all(is_public(address) for address in addresses):
        raise NotPublicError
    return addresses


def _own_addresses() -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    families = (socket.AF_INET, socket.AF_INET6)
    cards = psutil.net_if_addrs().values()
    return {ipaddress.ip_address(one.address) for card in cards for one in card if one.family in families}


def _at(request: httpx.Request, address: str, name: str) -> httpx.Request:
    """The same request, to be sent to an address of its host."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": name},
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, port
