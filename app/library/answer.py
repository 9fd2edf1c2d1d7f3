"""What a server says about the file that it sends."""

import re
from email.message import Message
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import httpx

__all__ = ["first_byte", "header", "name_of", "total_size"]

_LONGEST = 2000  # characters
_SIZE = re.compile(r"[0-9]{1,18}")  # bytes; Python refuses to read a number of thousands of digits


def name_of(response: "httpx.Response") -> str:
    """The file name from Content-Disposition (RFC 6266), else from the final URL; never trusted as a path."""
    message = Message()
    told = header(response, "Content-Disposition").replace("\r", "").replace("\n", "")
    message["Content-Disposition"] = told if len(told) <= _LONGEST else ""
    return message.get_filename() or unquote(urlsplit(str(response.url)).path.rpartition("/")[2])


def header(response: "httpx.Response", name: str) -> str:
    return response.headers.get(name, "")


def first_byte(response: "httpx.Response") -> int | None:
    """The first byte of the range, 100 for "Content-Range: bytes 100-199/200"."""
    match = re.match(rf"bytes ({_SIZE.pattern})-", header(response, "Content-Range"))
    return int(match[1]) if match else None


def total_size(response: "httpx.Response") -> int | None:
    """Size of the whole file in bytes, or None if the server does not tell."""
    if response.status_code == 200:
        text = header(response, "Content-Length")
    else:
        text = header(response, "Content-Range").rpartition("/")[2]
    return int(text) if _SIZE.fullmatch(text) else None
