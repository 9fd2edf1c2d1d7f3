"""Servers that others use download from the public internet only: no look-up, redirect or spelling leads elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lorablend.adapters.errors import AdapterError, RequestError
from lorablend.app.library import public
from lorablend.app.library.library import Library
from lorablend.app.library.public import PUBLIC_ONLY, is_public
from tests.adapter_files import message_of
from tests.app.file_server import FileServer, serving
from tests.app.library.library_files import adapters_in

CERTIFICATE = Path(__file__).with_name("files_example.pem")  # of files.example, made for these tests
REASON = (
    "this server downloads from the public internet only, and knows no such address there; "
    "give another address, or the file itself"
)

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",  # link-local, where providers tell machines their settings
    "100.64.0.1",  # between a provider and its customers
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.251",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%lo",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",  # IPv4 within IPv6: mapped, compatible, NAT64, 6to4, Teredo
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::1",
    "2001:0:808:808::1",
]


def test_addresses() -> None:
    assert [address for address in PUBLIC if not is_public(address)] == []
    assert [address for address in NOT_PUBLIC if is_public(address)] == []


def test_this_machines_own_addresses_are_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are global, as on rented machines: what listens there may be meant for the machine alone."""
    own = public.psutil.net_if_addrs()["lo"][0]._replace(family=socket.AF_INET, address="8.8.4.4")
    monkeypatch.setattr(public.psutil, "net_if_addrs", lambda: {"eth0": [own]})
    assert not is_public("8.8.4.4")
    assert not is_public("::ffff:8.8.4.4")
    assert is_public("8.8.8.8")


HOSTS = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST.",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "nobody@127.0.0.1",
    "name.invalid",  # unknown, for which there must not be another reason
]


@pytest.mark.parametrize("host", HOSTS)
def test_one_reason_for_all(host: str, empty: Library, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether something listens there or not."""
    monkeypatch.setenv(PUBLIC_ONLY, "1")
    for port in (urlsplit(server.url).port, 9):
        shown = f"http://{host.rpartition('@')[2].strip('[]').lower()}:{port}/ink.safetensors"
        message = message_of(RequestError, lambda port=port: empty.add(f"http://{host}:{port}/ink.safetensors"))
        assert message == f"{shown}: {REASON}"
    assert not server.asked
    assert not list((empty.folder / ".lorablend" / "parts").iterdir())


@pytest.mark.parametrize("host", ["0177.0.0.1", "１２７.0.0.1"])
def test_spellings_that_are_no_address(host: str, empty: Library, server: FileServer) -> None:
    """On any server."""
    with pytest.raises(AdapterError, match="an address that cannot be used"):
        empty.add(f"http://{host}:{urlsplit(server.url).port}/ink.safetensors")
    assert not server.asked


def test_ones_own_server_may_download_from_ones_own_network(empty: Library, server: FileServer) -> None:
    assert empty.add(f"{server.url}/ink.safetensors").name == "ink"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Name -> what its look-ups tell, one after another. 127.0.0.1 passes for public, so that it can be reached."""
    names: dict[str, list[list[str]]] = {}
    real: Callable[..., Any] = socket.getaddrinfo

    def look_up(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in names:
            return [answer for address in names[name].pop(0) for answer in real(address, port, *arguments, **named)]
        return real(host, port, *arguments, **named)

    checked = public.is_public
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(public, "is_public", lambda address: address == "127.0.0.1" or checked(address))
    monkeypatch.setenv(PUBLIC_ONLY, "1")
    return names


def test_the_connection_goes_to_the_address_that_was_checked(
    empty: Library, server: FileServer, names: dict[str, list[list[str]]]
) -> None:
    """A second look-up, which might tell another address, does not happen."""
    port = urlsplit(server.url).port
    names["files.example"] = [["127.0.0.1"]]
    assert empty.add(f"http://files.example:{port}/ink.safetensors").name == "ink"
    ((path, headers),) = server.asked
    assert (path, headers["host"]) == ("/ink.safetensors", f"files.example:{port}")
    assert names["files.example"] == []


def test_a_name_with_one_address_that_is_not_public(
    empty: Library, server: FileServer, names: dict[str, list[list[str]]]
) -> None:
    address = f"http://files.example:{urlsplit(server.url).port}/ink.safetensors"
    for answer in (["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], []):
        names["files.example"] = [answer]
        assert message_of(RequestError, lambda: empty.add(address)) == f"{address}: {REASON}"
    assert not server.asked


def test_every_redirect_is_checked(empty: Library, server: FileServer, names: dict[str, list[list[str]]]) -> None:
    """The reason names the address that was given, not where it leads."""
    with serving(files={"/secret.safetensors": server.files["/ink.safetensors"]}) as inside:
        port = urlsplit(inside.url).port
        server.redirects = {
            "/once": f"http://[::1]:{port}/secret.safetensors",
            "/twice": f"{server.url}/once",
            "/name": f"http://inside.example:{port}/secret.safetensors",
            "/ok": "/ink.safetensors",
        }
        names["inside.example"] = [["192.168.1.1"]]
        for path in ("/once", "/twice", "/name"):
            message = message_of(RequestError, lambda path=path: empty.add(server.url + path))
            assert message == f"{server.url}{path}: {REASON}"
        assert not inside.asked
    assert not adapters_in(empty)
    assert empty.add(f"{server.url}/ok").name == "ink"


def test_https_is_checked_against_the_name(
    empty: Library, adapter: Path, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the connection goes to an address."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    monkeypatch.setattr("lorablend.app.library.download.time.sleep", lambda _: None)
    with serving(CERTIFICATE, files={"/ink.safetensors": adapter.read_bytes()}) as server:
        port = urlsplit(server.url).port
        names["other.example"] = [["127.0.0.1"]] * 3
        with pytest.raises(AdapterError, match=r"Hostname mismatch, .* 'other\.example'"):
            empty.add(f"https://other.example:{port}/ink.safetensors")
        assert not server.asked
        names["files.example"] = [["127.0.0.1"]]
        assert empty.add(f"https://files.example:{port}/ink.safetensors").name == "ink"
