"""Who is let in: every route of the server, the page and its files included, by every way to say who one is."""

from __future__ import annotations

import base64
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import gradio as gr
import httpx
import pytest

from lorablend.adapters.errors import RequestError
from lorablend.app.auth import hash_password
from lorablend.app.rest import attempts, bodies, connections
from lorablend.app.server import create_app, spooling_in
from lorablend.app.service import Service
from tests.app.rest.rest_server import Running, running, serving

TOKEN = "a token of many letters"


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With a token, and a page."""
    with gr.Blocks() as page:
        gr.Textbox(label="Prompt")
    data = tmp_path_factory.mktemp("data")
    with running(data, sdxl_model, lora_dir, token=TOKEN, page=page) as server:
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
    lines = [hash_password("ann", "Ann's own"), hash_password("bob", "Bob's: ü")]
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
            if path == "/healthz":  # a probe needs no secret, and is told nothing more
                assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
                continue
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Basic ")
        for headers in WRONG:
            assert http.get("/metrics", headers=headers).status_code == 401, headers
        assert http.get("/healthz", headers=bearer("wrong")).status_code == 401
        for headers in (bearer(TOKEN), basic("anybody", TOKEN), basic("", TOKEN)):
            assert http.get("/metrics", headers=headers).status_code == 200, headers
            assert http.get("/healthz", headers=headers).json()["model"] == "small"


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
        first = browser.get("/metrics", params={"x": "1", "token": TOKEN})
        assert (first.status_code, first.headers["location"]) == (303, "/metrics?x=1")
        cookie = first.headers["set-cookie"]
        assert TOKEN not in cookie
        value, *parts = (part.strip() for part in cookie.split(";"))
        assert value.startswith(f"lorablend-{urlsplit(server.url).port}=")  # other ports have cookies of their own
        assert set(parts) == {"HttpOnly", "SameSite=Lax", "Path=/", f"Max-Age={30 * 86_400}"}
        assert browser.get("/metrics").status_code == 200
        for token in (TOKEN, "wrong", ""):  # it has the cookie; no token stays in its address bar
            again = browser.get("/metrics", params={"token": token, "x": "1"})
            assert (again.status_code, again.headers["location"]) == (303, "/metrics?x=1")
            assert ("set-cookie" in again.headers) == (token == TOKEN)
        odd = 'theme="dark; other:key={"a": 1}; '  # cookies of other programs of this machine come along
        own = {"Cookie": odd + cookie.partition(";")[0]}
        assert httpx.get(f"{server.url}/metrics", timeout=60, headers=own).status_code == 200
        assert "Log out" in browser.get("/logout").text
        assert browser.post("/logout", headers={"Origin": "http://evil.example"}).status_code == 403
        assert "Max-Age=0" in browser.post("/logout").headers["set-cookie"]
        assert browser.get("/metrics").status_code == 401
    assert httpx.get(f"{server.url}/metrics", timeout=60, params={"token": "wrong"}).status_code == 401
    assert (
        httpx.post(f"{server.url}/api/jobs", timeout=60, params={"token": TOKEN}, json={"prompt": "a"}).status_code
        == 401
    )
    for slashes in ("//", "/\\"):
        asked = httpx.URL(server.url).copy_with(raw_path=f"{slashes}evil.example/x?token={quote(TOKEN)}".encode())
        assert httpx.get(asked, timeout=60).headers["location"] == "/evil.example/x"


def test_users(users_server: str, server: Running) -> None:
    with httpx.Client(base_url=users_server, timeout=60) as http:
        assert http.get("/metrics").status_code == 401
        for headers in (basic("ann", "wrong"), basic("bob", "Ann's own"), basic("eve", "Ann's own"), bearer(TOKEN)):
            assert http.get("/metrics", headers=headers).status_code == 401, headers
        for headers in (basic("ann", "Ann's own"), basic("bob", "Bob's: ü"), bearer("ann:Ann's own")):
            assert http.get("/metrics", headers=headers).status_code == 200, headers
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
        cookie = http.get("/metrics", params={"token": "ann:Ann's own"}).headers["set-cookie"]
        assert http.post("/api/jobs", json=fast).json()["client"] == "ann"
        name, _, value = cookie.partition(";")[0].partition("=")
        for forged in (value.replace("ann", "bob"), value.replace("ann.", "ann.9"), value[:-1], ".", "ann..", "é.1.é"):
            headers = {"Cookie": f"{name}={forged}".encode()}
            assert httpx.get(f"{users_server}/metrics", timeout=60, headers=headers).status_code == 401, forged
    for job in server.service.jobs.find(limit=3):
        server.service.jobs.cancel(job.id)


ANN, BOB = ("ann", "Ann's own"), ("bob", "Bob's: ü")


def test_too_many_wrong_logins(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are logged, and an address that sends many is not listened to for a while; nobody else notices."""
    monkeypatch.setattr(attempts, "_DELAY", 0.0)
    with serving(server.service, token=TOKEN) as url:
        cookie = httpx.get(f"{url}/metrics", params={"token": TOKEN}, timeout=60).headers["set-cookie"]
        with httpx.Client(base_url=url, timeout=60) as http:
            for number in range(10):
                for _ in range(3):  # a program with an old token asks again and again
                    assert http.get("/metrics", headers=basic("eve\n", f"guess {number}")).status_code == 401
            for headers in (basic("eve", "guess 11"), bearer(TOKEN)):
                answer = http.get("/metrics", headers=headers)
                assert answer.status_code == 429
                assert 0 < int(answer.headers["retry-after"]) <= 300
                assert answer.json()["detail"].startswith("too many wrong logins from this address; try again in ")
            assert http.get("/v1/models", headers=bearer("x")).json()["error"]["type"] == "rate_limit_error"
            assert http.get("/metrics", params={"token": TOKEN}).status_code == 429
            assert http.get("/metrics", headers={"Cookie": cookie.partition(";")[0]}).status_code == 200
            assert http.get("/healthz").status_code == 200
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=url, timeout=60, transport=elsewhere) as other:
            assert other.get("/metrics", headers=bearer(TOKEN)).status_code == 200
    lines = [record.getMessage() for record in caplog.records]
    wrong = r'wrong login from 127.0.0.1 as "eve\n"'
    assert lines == [wrong] * 10 + ["no further logins from 127.0.0.1 for up to 300 s"]
    assert TOKEN not in caplog.text
    assert "guess" not in caplog.text


def test_forwarded_headers_are_believed_of_named_proxies_only(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    forwarded = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", **bearer(TOKEN)}
    for named in (False, True):
        if named:
            monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")
        with (
            serving(server.service, token=TOKEN) as url,
            httpx.Client(base_url=url, headers=forwarded, timeout=60) as http,
        ):
            cookie = http.get("/metrics", params={"token": TOKEN}).headers["set-cookie"]
            assert ("Secure" in cookie) == named
            job = http.post("/api/jobs", json={"prompt": "a fox", "steps": 1, "width": 64, "height": 64}).json()
            assert job["client"] == ("192.0.2.7" if named else "127.0.0.1")
            http.delete(f"/api/jobs/{job['id']}")


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


@pytest.mark.parametrize("path", ["/v1/models", "/api/adapters/ink/preview", "/theme.css", "/openapi.json"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_embed_nothing(server: Running, path: str, site: str) -> None:
    """Whether a picture is there would tell them which adapters are; a page of another port is another site too."""
    with httpx.Client(base_url=server.url, headers=bearer(TOKEN), timeout=60) as http:
        for mode, destination in (
            ("no-cors", "image"),
            ("cors", "empty"),
            ("navigate", "iframe"),
            ("no-cors", "script"),
        ):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": destination}
            assert http.get(path, headers=headers).status_code == 403, headers
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        for headers in (link, own, {}):
            assert http.get(path, headers=headers).status_code != 403, headers


def test_other_sites_try_no_passwords(
    server: Running, users_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From the address of a visitor, who would be locked out; nor do their links make a visitor another user."""
    monkeypatch.setattr(attempts, "_DELAY", 0.0)
    picture = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for number in range(20):
        answer = httpx.get(f"{server.url}/metrics", params={"token": f"guess {number}"}, headers=picture, timeout=60)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "wrong login" not in caplog.text
    ann, bob = {"token": "ann:Ann's own"}, {"token": "bob:Bob's: ü"}
    with httpx.Client(base_url=users_server, timeout=60) as browser:
        assert "bob." in browser.get("/metrics", params=bob, headers=link).headers["set-cookie"]
        again = browser.get("/metrics", params=ann, headers=link)
        assert (again.status_code, "set-cookie" in again.headers) == (303, False)
        assert "ann." in browser.get("/metrics", params=ann).headers["set-cookie"]  # typed by bob himself


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
        assert headers["cross-origin-resource-policy"] == "same-origin"
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["object-src"], policy["frame-ancestors"]) == (
            "'self'",
            "'none'",
            "'self'",
        )
        assert not any("http" in sources or "*" in sources for sources in policy.values())


MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/jobs", MEGABYTE),
        ("/v1/images/generations", MEGABYTE),
        ("/sdapi/v1/txt2img", MEGABYTE),
        ("/api/train", MEGABYTE),
        ("/gradio_api/call/x", 4 * MEGABYTE),
        ("/gradio_api/queue/join", 4 * MEGABYTE),
        ("/gradio_api/mcp/", 4 * MEGABYTE),
        ("/sdapi/v1/img2img", 64 * MEGABYTE),
        ("/sdapi/v1/png-info", 64 * MEGABYTE),
        ("/v1/images/edits", 64 * MEGABYTE),
        ("/api/uploads", 64 * MEGABYTE),
        ("/api/adapters", 8192 * MEGABYTE),
        ("/api/train/sets", 8192 * MEGABYTE),
        ("/gradio_api/upload", 8192 * MEGABYTE),
    ],
)
def test_large_bodies(server: Running, path: str, limit: int) -> None:
    """Bodies may be large where pictures and files travel, and only there."""
    assert begin(server, path, limit + 1, patience=10) == 413
    assert begin(server, path, limit, patience=0.05) != 413


def begin(server: Running, path: str, length: int, patience: float) -> int | None:
    """The status of the answer to a request whose body does not come; None if the server waits for it."""
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=patience) as line:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        line.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        try:
            return int(line.recv(12).split()[1])
        except TimeoutError:
            return None


def test_a_body_of_unknown_length(server: Running) -> None:
    with httpx.Client(base_url=server.url, headers=bearer(TOKEN), timeout=60) as http:
        body = b'{"prompt": "' + b"a" * MEGABYTE + b'"}'
        for content in (body, iter([body[:50_000], body[50_000:]])):
            answer = http.post("/api/jobs", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 413
            assert answer.json() == {"detail": "the body is larger than 1,048,576 bytes; send less"}
        adapter = http.post("/api/adapters", files={"file": ("x.safetensors", b"\0" * 2 * MEGABYTE)})
        assert adapter.status_code == 400
        assert "x" in adapter.json()["detail"]


def test_an_upload_for_which_there_is_no_room(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_SPARE", 1 << 60)
    monkeypatch.setattr(bodies, "_LOOK", 1000)
    text = r"the upload needs 0\.0 GB, and the server's disk has 0\.0 GB free; make room on it"
    with httpx.Client(base_url=server.url, headers=bearer(TOKEN), timeout=60) as http:
        for path in ("/api/adapters", "/api/train/sets", "/gradio_api/upload"):
            answer = http.post(path, files={"file": ("x.safetensors", b"\0" * 2000)})
            assert answer.status_code == 507
            assert re.fullmatch(text, answer.json()["detail"])
        form = (part for part in (b"--x\r\n", b"Content-Disposition: form-data; name=a\r\n\r\n", b"a" * 2000))
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        assert http.post("/api/adapters", content=form, headers=headers).status_code == 507


def test_uploads_arrive_in_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "of a killed process").write_text("")
    with spooling_in(tmp_path / "spool"):
        assert list((tmp_path / "spool").iterdir()) == []
        assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == tmp_path / "spool"
    assert Path(tempfile.gettempdir()) != tmp_path / "spool"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/api/adapters", "/api/train/sets", "/api/uploads", "/gradio_api/upload"])
def test_a_client_that_breaks_off(server: Running, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is not the server's error, and does not fill the log."""
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as line:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000\r\n\r\n"
        line.sendall(f"{head}--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nabc".encode())
        time.sleep(0.1)
    time.sleep(0.3)
    assert caplog.text == ""


def test_a_connection_that_sends_nothing_is_closed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEADER_TIME", 0.2)
    monkeypatch.setattr(connections, "_BODY_TIME", 0.2)
    monkeypatch.setattr(connections, "_BODY_BYTES", 100)
    address = urlsplit(server.url)
    head = f"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 20000\r\n"
    for sent in ("", "GET / HTTP/1.1\r\nHost: a", f"{head}\r\n", f"{head}\r\n{{"):
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as line:
            line.sendall(sent.encode())
            assert line.recv(1000) == b"", sent
    slow = [b'{"prompt": "', *[b"a" * 4000 + b" "] * 5, b'"']  # slow, but it comes

    def body() -> Iterator[bytes]:
        for part in slow:
            time.sleep(0.05)
            yield part

    answer = httpx.post(f"{server.url}/api/jobs", content=body(), headers=bearer(TOKEN), timeout=60)
    assert answer.status_code == 422


def test_connections_of_one_address_are_limited(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    address = urlsplit(server.url)
    place = (str(address.hostname), int(address.port or 0))
    before = connections.Connection._open["127.0.0.1"]
    monkeypatch.setattr(connections, "_MOST", before + 2)
    with socket.create_connection(place), socket.create_connection(place):
        time.sleep(0.1)
        with socket.create_connection(place, timeout=10) as line:
            assert line.recv(12) == b"HTTP/1.1 429"
        with socket.create_connection(place, timeout=10, source_address=("127.0.0.2", 0)) as other:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert other.recv(12) == b"HTTP/1.1 200"
    time.sleep(0.1)
    assert httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200


def test_a_header_that_lies_about_the_length(server: Running) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as line:
        head = f"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        line.sendall(f"{head}Content-Length: {10**18}\r\n\r\n".encode())
        assert line.recv(12) == b"HTTP/1.1 413"


def test_an_empty_token(server: Running) -> None:
    service: Any = server.service
    assert isinstance(service, Service)
    with pytest.raises(RequestError):
        create_app(service, token=" ")
