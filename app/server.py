"""The server: REST for programs and the page for people, in one process over one service."""

from __future__ import annotations

import os

# Set before Gradio is imported: it reports nothing to other servers and looks up no version.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")

import atexit
import logging
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import platformdirs
import uvicorn
from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from filelock import FileLock, Timeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from lorablend.adapters.errors import RequestError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.app.auth import Credentials, cookie_secret, is_loopback, read_users
from lorablend.app.files import check_folder, private_folder
from lorablend.app.library.folder import adapter_files
from lorablend.app.library.library import Library
from lorablend.app.log import ShortLines
from lorablend.app.rest import (
    a1111,
    a1111_first,
    a1111_lists,
    adapters,
    gallery,
    grid,
    health,
    jobs,
    logout,
    models,
    openai,
    pictures,
    train,
)
from lorablend.app.rest.connections import Connection
from lorablend.app.rest.errors import handle_errors, refusals
from lorablend.app.rest.guard import Guard
from lorablend.app.rest.shared import reply
from lorablend.app.service import Service
from lorablend.shipped import adapters_dir

if TYPE_CHECKING:
    from gradio import Blocks

__all__ = [
    "check_login",
    "create_app",
    "default_data",
    "hold",
    "is_loopback",
    "listen",
    "own_adapters",
    "own_cache",
    "run_server",
    "server_config",
    "spooling_in",
]

FIRST_PORT = 7860
_PORTS = 100  # ports to try from the first one on
_WAITING = 200  # threads for waiting requests; each is occupied for at most a second at a time
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_SHORTEST = 16  # characters of a token
_PATIENCE = 5  # seconds for running requests when the server ends


def create_app(
    service: Service,
    *,
    token: str | None = None,
    users: Path | None = None,
    page: Blocks | None = None,
    page_options: Mapping[str, Any] | None = None,
    hosts: Iterable[str] | None = ("localhost",),
    offline: bool = False,
) -> FastAPI:
    """The app over a service, which the caller starts and closes.

    Args:
        service: The service.
        token: A token that lets clients in.
        users: A file of users, as `lorablend.app.auth` writes it.
        page: The page at /.
        page_options: Further arguments for mounting the page.
        hosts: Names that requests may come to, beside this machine's own; None for any.
        offline: Shown in /healthz.

    Raises:
        RequestError: The file of users cannot be read, or the token is empty.
    """
    _check_token(token)
    # Unlike FastAPI's own, its /docs loads no script from another server.
    app = FastAPIOffline(
        title="lorablend",
        summary="Draws with Stable Diffusion XL and LoRA adapters on OpenVINO.",
        version=version("lorablend"),
        redoc_url=None,
        responses=refusals(401, 403, 413, 421, 429, 500, 507),
    )
    secret = cookie_secret(service.data / "cookie.key") if token is not None or users else None
    credentials = Credentials(token, read_users(users) if users else None, secret=secret)
    app.state.service, app.state.offline, app.state.credentials = service, offline, credentials
    app.state.a1111 = a1111.A1111()
    app.state.waiting = CapacityLimiter(_WAITING)
    handle_errors(app)
    faces = (openai, a1111, a1111_first, a1111_lists, jobs, gallery, pictures, adapters, health, grid, models, train)
    for face in (*faces, logout):
        app.include_router(face.router)
    if page is None:
        app.add_api_route("/", _index, methods=["GET", "HEAD"], include_in_schema=False)
    else:
        import gradio

        for face in ("v1", "sdapi", "api"):  # otherwise the page would reply to unknown paths, in a form of its own
            app.add_api_route(f"/{face}/{{rest:path}}", _nothing, methods=_METHODS, include_in_schema=False)
        app = gradio.mount_gradio_app(app, page, path="/", **{"ssr_mode": False, **(page_options or {})})
    app.add_middleware(
        Guard,
        credentials=credentials,
        data=service.data,
        hosts=hosts,
    )
    return app


def run_server(
    app: FastAPI, service: Service, socket_: socket.socket, *, host: str, say: Callable[[str], object]
) -> None:
    """Start the service, serve until SIGTERM or Ctrl-C, which is raised as KeyboardInterrupt, and close the service."""
    config = server_config(app)
    # A browser cannot open 0.0.0.0.
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{name}]" if ":" in name else name
    server = _Server(config, lambda: say(f"open http://{shown}:{socket_.getsockname()[1]}/ (Ctrl-C ends it)"))
    # uvicorn raises the signal again after a clean shutdown, when the service is still to be closed.
    before = signal.signal(signal.SIGTERM, _ignore)
    try:
        with redirect_stderr(ShortLines(sys.stderr)), spooling_in(service.data / "spool"):
            logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", force=True)
            logging.getLogger("lorablend").setLevel(logging.INFO)  # a line for each job
            service.start()
            server.run(sockets=[socket_])
    finally:
        signal.signal(signal.SIGTERM, before)
        all_ended = service.close()
        socket_.close()
        if not all_ended:
            # A thread that comes back from a long call, while the interpreter ends, would crash it.
            code = 130 if isinstance(sys.exc_info()[1], KeyboardInterrupt) else 0
            atexit.register(_leave, code)


def server_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the app. Forwarded addresses are believed only if FORWARDED_ALLOW_IPS names the proxy."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,  # an address may hold the token
        server_header=False,
        proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
        timeout_graceful_shutdown=_PATIENCE,
        lifespan="on",
    )


@contextmanager
def spooling_in(folder: Path) -> Iterator[None]:
    """Let this process keep uploads that arrive in a folder of its own, not where all users of the machine have theirs.

    They are on the same disk as the rest of the data, at whose free space the guard looks.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    private_folder(folder)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def check_login(host: str, token: str | None, users: Path | None) -> None:
    """Raise RequestError for an empty token, a broken file of users, or an address open to others.

    Others need a login, and a token that cannot be guessed.
    """
    _check_token(token)
    if users is not None:
        read_users(users)
    if token is None and users is None and not is_loopback(host):
        raise RequestError(f"{host} lets in the whole network; give --token, or --users with a file of passwords")
    if token is not None and len(token) < _SHORTEST and not is_loopback(host):
        text = f"the token has {len(token)} characters, and {host} lets in the whole network"
        raise RequestError(f"{text}; give one of at least {_SHORTEST}, such as 32 random letters")


def listen(host: str, port: int | None) -> socket.socket:
    """A socket at that address; without a port, at the first free one from 7860 on.

    Raises RequestError if the port is taken, or the address is not this machine's.
    """
    ports = range(FIRST_PORT, FIRST_PORT + _PORTS) if port is None else [port]
    problem = "no free port"
    for number in ports:
        listener: socket.socket | None = None
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind, protocol)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
            return listener
        except OSError as error:
            problem = str(error.strerror).lower()
            if listener:
                listener.close()
    where = host if port is None else f"{host}, port {port}"
    raise RequestError(f"cannot listen at {where}: {problem}")


def hold(data: Path) -> FileLock:
    """Reserve the data folder for this process, as long as the lock is held; two servers would draw every job twice.

    Raises RequestError if another lorablend uses it, or if it cannot be written to.
    """
    check_folder(data)
    private_folder(data)
    lock = FileLock(data / "server.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RequestError(
            f"another lorablend serves from {data}; give this one a folder of its own with --data"
        ) from None
    return lock


def default_data() -> Path:
    """The default data folder: $LORABLEND_DATA, or a folder in the user's own data."""
    return Path(os.environ.get("LORABLEND_DATA") or Path(platformdirs.user_data_dir("lorablend")) / "server")


def own_adapters(data: Path) -> Path:
    """The library in the data folder; at first it holds a copy of the demo's adapters."""
    folder = data / "adapters"
    if not folder.exists():
        data.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder) as part:
            part.mkdir()
            for adapter in adapter_files(adapters_dir()):
                for path in (adapter, adapter.with_suffix(".jpg")):  # the picture on its card
                    shutil.copyfile(path, part / path.name)
    Library(folder)  # makes a library of it, so that the page offers all that a library can do
    return folder


def own_cache(data: Path) -> None:
    """Make Gradio keep its copies of pictures in the data folder; call this before Gradio is imported.

    In /tmp/gradio, its default, every user of the machine could read them, and only the first could write. Copies of
    an earlier process are deleted.
    """
    folder = data.absolute() / "gradio"
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.setdefault("GRADIO_TEMP_DIR", str(folder))


def _check_token(token: str | None) -> None:
    if token is not None and not token.strip():
        raise RequestError("the token is empty; give one, such as 32 random letters")


class _Server(uvicorn.Server):
    """Calls back when it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], object]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


def _leave(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    pass


def _nothing(request: Request) -> None:
    others = [route for route in request.app.routes if route.matches(request.scope)[0] is Match.PARTIAL]
    raise HTTPException(405 if others else 404)


def _index() -> Any:
    return reply({"name": "lorablend", "version": version("lorablend"), "interface": "/docs"})
