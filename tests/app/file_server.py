"""A real HTTP server for downloads: ranges, conditions, redirects, and the faults that servers have."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """Files by path ("/ink.safetensors"), and how they are served; `asked` are the requests, (path, headers).

    drop_after: the connection breaks after so many bytes of a body, for the first `drops` requests. etag, disposition,
    status: for all files. error_code: of what is not there, as the Hub has them. lengths: whether the length is said.
    ranges: whether Range is understood. redirects: path -> address. held: where it is given, a body stops after
    `drop_after` bytes until it is set; with `silent`, so does the answer before its first byte.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"first"'
    modified: str = ""
    disposition: str = ""
    encoding: str = ""
    status: int = 200
    error_code: str = ""
    lengths: bool = True
    ranges: bool = True
    drop_after: int = 0
    drops: int = 0
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    held: threading.Event | None = None
    silent: bool = False

    @property
    def ranges_asked(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.asked]

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        path = path.partition("?")[0]
        if path in self.redirects:
            return 302, {"Location": self.redirects[path]}, b""
        if path not in self.files or self.status != 200:
            said = {"X-Error-Code": self.error_code} if self.error_code else {}
            return self.status if self.status != 200 else 404, said, b""
        content = self.files[path]
        said = {
            "ETag": self.etag,
            "Last-Modified": self.modified,
            "Content-Disposition": self.disposition,
            "Content-Encoding": self.encoding,
        }
        said = {name: value for name, value in said.items() if value}
        wanted = headers.get("range", "").removeprefix("bytes=").partition("-")[0]
        if wanted and self.ranges and headers.get("if-range", self.etag) in (self.etag, self.modified):
            begin = int(wanted)
            if begin >= len(content):
                return 416, {"Content-Range": f"bytes */{len(content)}"}, b""
            piece = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            return 206, said | {"Content-Range": piece}, content[begin:]
        return 200, said, content


@contextmanager
def serving(certificate: Path | None = None, **settings: object) -> Iterator[FileServer]:
    """A server on a free port of this machine, until the end of the block. certificate: a PEM for https."""
    files = FileServer(**settings)  # pyright: ignore[reportArgumentType]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            files.asked.append((self.path, headers))
            if files.held and files.silent:
                files.held.wait(timeout=60)
            status, said, content = files.answer(self.path, headers)
            self.send_response(status)
            for name, value in said.items():
                self.send_header(name, value)
            if files.lengths:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if content and files.drops > 0:
                files.drops -= 1
                self.wfile.write(content[: files.drop_after])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            with suppress(OSError):  # the client has heard enough
                if files.held:
                    self.wfile.write(content[: files.drop_after])
                    files.held.wait(timeout=60)
                    content = content[files.drop_after :]
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    files.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
