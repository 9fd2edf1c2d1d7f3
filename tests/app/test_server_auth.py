"""Who is let in: every route of the server, the page and its files included, by every way to say who one is."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
import gradio as gr
import httpx
import pytest

from lorablend.adapters.errors import RequestError
from lorablend.app import auth
from lorablend.app.auth import hash_password, is_loopback, read_users
from lorablend.app.server import check_login, create_app
from lorablend.app.service import Service
from tests.app.rest.rest_server import Running, running, serving

TOKEN = "a token of many letters"


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With a token, and a page."""
    with gr.Blocks() as page:
        gr.Textbox(label="Prompt")
    data = tmp_path_factory.mktemp("data")
    with running(data, sdxl_model, lora_dir, token=TOKEN, page=page, body_limit=100_000) as server:
        yield server


@pytest.fixture(scope="module")
def open_server(server: Running) -> Iterator[str]:
    """The same service without a token."""
    with serving(server.service) as url:
        yield url


@pytest.fixture(scope="module")
def users_server(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same service for Ann and Bob."""
    users = tmp_path_factory.mktemp("users") / "users"
    lines = [hash_password("ann", "Ann's own"), hash_password("bob", "Bob: ü")]
    users.write_text("# who may draw\n" + "\n".join(lines) + "\n")
    with serving(server.service, users=users) as url:
        yield url


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def routes(server: Running) -> list[tuple[str, str]]:
    """Every operation of the app, and those of the page."""
    paths = httpx.get(f"{server.url}/openapi.json", timeout=60, headers=bearer(TOKEN)).json()["paths"]
    found = [(method.upper(), path.replace("{", "").replace("}", "")) for path in paths for method in paths[path]]
    assert len(found) > 50
    page = ["/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/queue/data", "/assets/x.js", "/openapi.json"]
    page += [
        "/gradio_api/file=/etc/passwd",
        "/docs",
        "/static-offline-docs/swagger-ui.css",
        "/nosuch",
        "//",
        "/api/gallery/../../x",
    ]
    return [
        *found,
        *(("GET", path) for path in page),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/queue/join"),
    ]


WRONG: list[dict[str, Any]] = [
    {},
    bearer("wrong"),
    {"Authorization": "Bearer"},
    bearer(TOKEN[:-1]),
    basic("x", "wrong"),
    {"Authorization": "Basic ???"},
    {"Authorization": TOKEN},
    {"Cookie": f"lorablend={TOKEN}"},
    {"Cookie": "lorablend=.0000"},
    {"Cookie": "lorablend=.é".encode("latin-1")},
]


def test_no_route_without_the_token(server: Running) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for method, path in routes(server):
            answer = http.request(method, path)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Basic ")
        for headers in WRONG:
            assert http.get("/healthz", headers=headers).status_code == 401, headers
        for headers in (bearer(TOKEN), basic("anybody", TOKEN), basic("", TOKEN)):
            assert http.get("/healthz", headers=headers).status_code == 200, headers


def test_refusals_have_the_form_of_their_face(server: Running) -> None:
    text = "no valid token; send it as Authorization: Bearer TOKEN, or as the password"
    assert httpx.get(f"{server.url}/api/jobs", timeout=60).json() == {"detail": text}
    error = httpx.get(f"{server.url}/v1/models", timeout=60).json()["error"]
    assert (error["type"], error["message"]) == ("authentication_error", text)


def test_the_page_is_there_with_the_token(server: Running) -> None:
    page = httpx.get(f"{server.url}/", timeout=60, headers=bearer(TOKEN))
    assert page.status_code == 200
    assert "gradio" in page.text
    docs = httpx.get(f"{server.url}/docs", timeout=60, headers=bearer(TOKEN)).text
    assert "/static-offline-docs/swagger-ui-bundle.js" in docs
    assert "https://" not in docs


def test_a_browser_comes_with_the_token_once(server: Running) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as browser:
        first = browser.get("/healthz", params={"x": "1", "token": TOKEN})
        assert (first.status_code, first.headers["location"]) == (303, "/healthz?x=1")
        cookie = first.headers["set-cookie"]
        assert TOKEN not in cookie
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        assert browser.get("/healthz").status_code == 200
        for token in (TOKEN, "wrong", ""):  # it has the cookie; no token stays in its address bar
            again = browser.get("/healthz", params={"token": token, "x": "1"})
            assert (again.status_code, again.headers["location"]) == (303, "/healthz?x=1")
            assert ("set-cookie" in again.headers) == (token == TOKEN)
        odd = 'theme="dark; other:key={"a": 1}; '  # cookies of other programs of this machine come along
        own = {"Cookie": odd + cookie.partition(";")[0]}
        assert httpx.get(f"{server.url}/healthz", timeout=60, headers=own).status_code == 200
    assert httpx.get(f"{server.url}/healthz", timeout=60, params={"token": "wrong"}).status_code == 401
    assert (
        httpx.post(f"{server.url}/api/jobs", timeout=60, params={"token": TOKEN}, json={"prompt": "a"}).status_code
        == 401
    )
    for slashes in ("//", "/\\"):
        asked = httpx.URL(server.url).copy_with(raw_path=f"{slashes}evil.example/x?token={quote(TOKEN)}".encode())
        assert httpx.get(asked, timeout=60).headers["location"] == "/evil.example/x"


def test_users(users_server: str, server: Running) -> None:
    with httpx.Client(base_url=users_server, timeout=60) as http:
        assert http.get("/healthz").status_code == 401
        for headers in (basic("ann", "wrong"), basic("bob", "Ann's own"), basic("eve", "Ann's own"), bearer(TOKEN)):
            assert http.get("/healthz", headers=headers).status_code == 401, headers
        for headers in (basic("ann", "Ann's own"), basic("bob", "Bob: ü"), bearer("ann:Ann's own")):
            assert http.get("/healthz", headers=headers).status_code == 200, headers
        fast = {"prompt": "a fox", "steps": 1, "width": 64, "height": 64}
        jobs = [http.post("/api/jobs", json=fast, headers=basic(*who)).json() for who in (ANN, BOB)]
        assert [job["client"] for job in jobs] == ["ann", "bob"]
        for job, other, own in ((jobs[0], BOB, ANN), (jobs[1], ANN, BOB)):  # each stops their own alone
            for method, path in (("DELETE", ""), ("POST", "/cancel")):
                answer = http.request(method, f"/api/jobs/{job['id']}{path}", headers=basic(*other))
                assert answer.status_code == 403
                text = f"job {job['number']} is not {other[0]}'s; ask who submitted it to stop it"
                assert answer.json() == {"detail": text}
            assert http.delete(f"/api/jobs/{job['id']}", headers=basic(*own)).status_code == 200
        cookie = http.get("/healthz", params={"token": "ann:Ann's own"}).headers["set-cookie"]
        assert http.post("/api/jobs", json=fast).json()["client"] == "ann"
        value = cookie.partition(";")[0].partition("=")[2]
        forged = {"Cookie": f"lorablend=bob.{value.rpartition('.')[2]}"}
        assert httpx.get(f"{users_server}/healthz", timeout=60, headers=forged).status_code == 401
    for job in server.service.jobs.find(limit=3):
        server.service.jobs.cancel(job.id)


ANN, BOB = ("ann", "Ann's own"), ("bob", "Bob: ü")


def test_an_unknown_user_is_as_slow_as_a_wrong_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hashed: list[str] = []
    real = auth._scrypt
    monkeypatch.setattr(auth, "_scrypt", lambda password, salt: hashed.append(password) or real(password, salt))
    (tmp_path / "users").write_text(hash_password("ann", "Ann's own"))
    credentials = auth.Credentials(users=read_users(tmp_path / "users"))
    hashed.clear()
    for name in ("ann", "nobody"):
        assert anyio.run(credentials.check, name, "wrong") is None
    assert hashed == ["wrong", "wrong"]


def test_other_sites_change_nothing(open_server: str) -> None:
    host = urlsplit(open_server).netloc
    with httpx.Client(base_url=open_server, timeout=60) as http:
        for origin in ("http://evil.example", "null", f"http://{host}.evil.example", "http://127.0.0.1:1", "http://["):
            answer = http.post("/api/gallery/scan", headers={"Origin": origin})
            assert answer.status_code == 403, origin
            assert not [name for name in answer.headers if name.startswith("access-control-")]
        for method, path in (("POST", "/api/jobs"), ("DELETE", "/api/gallery/x.png"), ("POST", "/sdapi/v1/interrupt")):
            assert http.request(method, path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert http.post("/api/gallery/scan", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        answer = http.options("/api/gallery/scan", headers=preflight)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert http.post("/api/gallery/scan", headers={"Origin": open_server}).status_code == 200
        assert http.post("/api/gallery/scan").status_code == 200


def test_no_foreign_name_for_this_machine(open_server: str) -> None:
    port = urlsplit(open_server).port
    with httpx.Client(base_url=open_server, timeout=60) as http:
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", ""):
            assert http.get("/healthz", headers={"Host": host}).status_code in (400, 421), host
        for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "LOCALHOST"):
            assert http.get("/healthz", headers={"Host": host}).status_code == 200, host


def test_every_answer_is_safe_for_browsers(open_server: str) -> None:
    for path in ("/healthz", "/nosuch", "/v1/models"):
        headers = httpx.get(f"{open_server}{path}", timeout=60).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-request-id"]


def test_large_bodies(server: Running) -> None:
    """Told by the header, or found out while it is read; adapters may be larger."""
    with httpx.Client(base_url=server.url, headers=bearer(TOKEN), timeout=60) as http:
        body = b'{"prompt": "' + b"a" * 100_000 + b'"}'
        headers = {"Content-Type": "application/json"}
        for content in (body, iter([body[:50_000], body[50_000:]])):
            answer = http.post("/api/jobs", content=content, headers=headers)
            assert answer.status_code == 413
            assert answer.json() == {"detail": "the body is larger than 100,000 bytes; send less"}
        adapter = http.post("/api/adapters", files={"file": ("x.safetensors", b"\0" * 200_000)})
        assert adapter.status_code == 400
        assert "x" in adapter.json()["detail"]


def test_a_header_that_lies_about_the_length(server: Running) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as line:
        head = f"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        line.sendall(f"{head}Content-Length: {10**18}\r\n\r\n".encode())
        assert line.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'users names no user; add one with "python -m lorablend.app.auth NAME >> users"'),
        ("ann", 'users, line 1: not name:salt:hash; write it with "python -m lorablend.app.auth NAME"'),
        ("ann:00:zz", 'users, line 1: not name:salt:hash; write it with "python -m lorablend.app.auth NAME"'),
        ("#\nann:00:00", 'users, line 2: no hash; write it with "python -m lorablend.app.auth NAME"'),
    ],
)
def test_broken_users_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("users").write_text(text)
    with pytest.raises(RequestError) as caught:
        read_users(Path("users"))
    assert str(caught.value) == message


def test_names_and_passwords_that_cannot_be_used() -> None:
    for name, password in (("a:b", "x"), ("", "x"), ("a\nb", "x"), ("ann", ""), ("ann", "x" * 1001)):
        with pytest.raises(RequestError):
            hash_password(name, password)
    command = [sys.executable, "-m", "lorablend.app.auth", "a:b"]  # in a session without a terminal to ask at
    ended = subprocess.run(command, input="x\n", capture_output=True, text=True, start_new_session=True)
    assert ended.returncode == 1
    assert ended.stderr.endswith("error: the name 'a:b' cannot be used; give one without a colon\n")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_the_network_is_let_in_only_with_a_login(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(RequestError) as caught:
        check_login(host, None, None)
    assert str(caught.value) == f"{host} lets in the whole network; give --token, or --users with a file of passwords"
    check_login(host, "token", None)
    with pytest.raises(RequestError) as caught:
        check_login(host, "", None)
    assert str(caught.value) == "the token is empty; give one, such as 32 random letters"


def test_an_empty_token(server: Running) -> None:
    service: Any = server.service
    assert isinstance(service, Service)
    with pytest.raises(RequestError):
        create_app(service, token=" ")
