"""Gradio's own client and an MCP client against the server."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from gradio_client import Client
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent
from PIL import Image

from lorablend.app.auth import hash_password
from lorablend.app.page.page import build_page, mount_options
from lorablend.app.service import Service
from lorablend.engine import Pipeline
from lorablend.shipped import adapters_dir
from tests.app.rest.rest_server import FAST, serving

TOKEN = "a token for the test"
ASKED = {"prompt": "a fox", "adapters": {"ink": 0.8}, "seed": 7, **FAST}


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    with serving(service, page=build_page(service), page_options=mount_options()) as url:
        yield url


@pytest.fixture(scope="module")
def expected(sdxl_model: Path, lora_dir: Path) -> Image.Image:
    pipe = Pipeline(sdxl_model, lora_dir=lora_dir)
    return pipe.generate("a fox", blend=[("ink", 0.8)], seed=7, **FAST).images[0]


def test_gradio_client_draws(url: str, expected: Image.Image, tmp_path: Path) -> None:
    client = Client(url, verbose=False, analytics_enabled=False, download_files=tmp_path)
    picture, settings = client.predict(api_name="/draw", **ASKED)
    path = Path(picture if isinstance(picture, str) else picture["path"])
    with Image.open(path) as drawn:
        assert drawn.convert("RGB").tobytes() == expected.tobytes()
    assert "Seed: 7" in settings
    names = [adapter["name"] for adapter in client.predict(api_name="/list_adapters")]
    assert names == ["ink", "neon glow"]
    (model,) = client.predict(api_name="/list_models")
    assert model["name"] == "small"


def test_the_page_stops_nobody_elses_job(service: Service, tmp_path: Path) -> None:
    """With logins, jobs belong to the user who began them, in any tab or program."""
    who = {"ann": ("ann", "Ann's own"), "bob": ("bob", "Bob's own")}
    (tmp_path / "users").write_text("\n".join(hash_password(*one) for one in who.values()))
    page = build_page(service)
    with serving(service, users=tmp_path / "users", page=page, page_options=mount_options()) as url:
        asked = {**FAST, "prompt": "a fox", "steps": 400, "count": 20}
        job = httpx.post(f"{url}/api/jobs", json=asked, auth=who["ann"], timeout=60).json()["id"]
        waits = ""  # bob's job, after ann's
        for user, stoppable in (("bob", False), ("bob", True), ("ann", True)):
            if user == "bob" and stoppable:
                waits = httpx.post(f"{url}/api/jobs", json=asked, auth=who["bob"], timeout=60).json()["id"]
            with httpx.Client(base_url=url, auth=who[user], timeout=60) as http:
                config = http.get("/config").json()
                stop = next(one["id"] for one in config["components"] if one["props"].get("value") == "Stop")
                looks = [one for one in config["dependencies"] if stop in one["outputs"] and len(one["outputs"]) > 9]
                said = dict(zip(looks[0]["outputs"], called(http, looks[0], [None]), strict=True))
                assert said[stop]["interactive"] == stoppable
                pressed = next(
                    one for one in config["dependencies"] if [stop, "click"] in one["targets"] and one["backend_fn"]
                )
                called(http, pressed, [])
            if waits:
                assert service.jobs.get(waits).state == "cancelled"
            if user == "ann":
                assert service.wait(service.jobs.get(job)).state == "cancelled"
            else:
                drawn = next(seen.progress.step for seen in service.jobs.watch(job) if seen.progress)
                assert any(seen.progress and seen.progress.step > drawn + 5 for seen in service.jobs.watch(job))


def called(http: httpx.Client, listener: dict[str, Any], values: list[Any]) -> list[Any]:
    """Gradio's answer, as for a browser tab."""
    body = {"data": values, "fn_index": listener["id"], "session_hash": str(id(http))}
    answer = http.post("/gradio_api/run/predict", json=body)
    assert answer.is_success, answer.text
    return answer.json()["data"]


def test_gradio_client_is_told_what_is_wrong(url: str) -> None:
    client = Client(url, verbose=False, analytics_enabled=False)
    with pytest.raises(Exception, match="inkk"):
        client.predict(api_name="/draw", **{**ASKED, "adapters": {"inkk": 1.0}})


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [(2, "x", "blend."), (3, "x", "width: "), (6, "x", "guidance_scale: "), (7, "x", "seed: "), (8, "x", "no model")],
)
def test_an_argument_of_the_wrong_kind_is_the_callers_mistake(url: str, place: int, value: Any, text: str) -> None:
    arguments: list[Any] = ["a fox", "", {}, 0, 0, 0, 5, -1, ""]
    for long in (value, value * 100_000):
        arguments[place] = long
        answer = httpx.post(f"{url}/gradio_api/run/draw", json={"data": arguments}, timeout=60)
        assert text in answer.json()["error"]
        assert len(answer.text) < 1000


def test_the_pages_own_events_are_private(url: str) -> None:
    info = Client(url, verbose=False, analytics_enabled=False).view_api(return_format="dict", print_info=False)
    assert sorted(info["named_endpoints"]) == ["/draw", "/list_adapters", "/list_models"]  # type: ignore[index]


def test_what_is_not_there_is_said_in_the_form_of_its_face(url: str) -> None:
    """Although the page handles all other addresses."""
    (unknown, wrong) = (httpx.post(f"{url}/v1/chat/completions"), httpx.get(f"{url}/v1/images/generations"))
    assert (unknown.status_code, wrong.status_code) == (404, 405)
    assert unknown.json()["error"]["message"] == "/v1/chat/completions does not exist; /openapi.json lists all paths"
    assert wrong.json()["error"]["message"] == "/v1/images/generations does not take GET; /openapi.json lists all paths"
    assert httpx.get(f"{url}/sdapi/v1/nothing").json() == {
        "detail": "/sdapi/v1/nothing does not exist; /openapi.json lists all paths"
    }


def test_mcp_client_draws(url: str, expected: Image.Image) -> None:
    async def ask(session: ClientSession) -> None:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert sorted(tools) == ["draw", "list_adapters", "list_models"]
        properties = tools["draw"].inputSchema["properties"]
        assert "full strength" in properties["adapters"]["description"]
        assert all(text.get("description") for text in properties.values())
        result = await session.call_tool("draw", ASKED)
        assert not result.isError, result
        (picture,) = (part for part in result.content if isinstance(part, ImageContent))
        with Image.open(io.BytesIO(base64.b64decode(picture.data))) as drawn:
            assert drawn.convert("RGB").tobytes() == expected.tobytes()
        assert any("Seed: 7" in part.text for part in result.content if isinstance(part, TextContent))
        assert "neon glow" in text_of(await session.call_tool("list_adapters", {}))

    _with_session(url, ask)


def test_mcp_client_is_told_what_is_wrong(url: str) -> None:
    async def ask(session: ClientSession) -> None:
        result = await session.call_tool("draw", {**ASKED, "adapters": {"../ink": 1.0}})
        assert result.isError
        assert "../ink" in text_of(result)

    _with_session(url, ask)


def test_mcp_needs_the_token_too(service: Service, expected: Image.Image) -> None:
    with serving(service, token=TOKEN, page=build_page(service), page_options=mount_options()) as url:

        async def ask(session: ClientSession) -> None:
            result = await session.call_tool("draw", ASKED)
            assert not result.isError, result

        _with_session(url, ask, {"Authorization": f"Bearer {TOKEN}"})
        assert httpx.post(f"{url}/gradio_api/mcp/", json={}).status_code == 401


def text_of(result: CallToolResult) -> str:
    return " ".join(part.text for part in result.content if isinstance(part, TextContent))


def _with_session(url: str, ask: Callable[[ClientSession], Any], headers: dict[str, str] | None = None) -> None:
    async def run() -> None:
        with anyio.fail_after(120):
            async with _session(url, headers) as session:
                await ask(session)

    anyio.run(run)


@asynccontextmanager
async def _session(url: str, headers: dict[str, str] | None) -> AsyncIterator[ClientSession]:
    async with (
        httpx.AsyncClient(headers=headers, timeout=120) as http,
        streamable_http_client(f"{url}/gradio_api/mcp/", http_client=http) as (reading, writing, _),
        ClientSession(reading, writing) as session,
    ):
        await session.initialize()
        yield session


@pytest.mark.parametrize("kind", ["file", "imageeditor"])
def test_the_page_takes_what_was_uploaded_and_no_other_file(url: str, tmp_path: Path, kind: str) -> None:
    """Wherever a box expects a file, a request could name any path of the machine."""
    Image.new("RGB", (64, 64)).save(tmp_path / "own.png")
    shutil.copy(adapters_dir() / "neon.safetensors", tmp_path / "own.safetensors")
    with httpx.Client(base_url=url, timeout=60) as http:
        config = http.get("/config").json()
        kinds = {one["id"]: one["type"] for one in config["components"]}
        values = {one["id"]: one["props"].get("value") for one in config["components"]}
        several = {one["id"] for one in config["components"] if one["props"].get("file_count") == "multiple"}
        listeners = [
            one for one in config["dependencies"] if one["backend_fn"] and kind in map(kinds.get, one["inputs"])
        ]
        assert len(listeners) >= 3

        def answer(listener: dict[str, Any], path: str) -> dict[str, Any]:
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            picture = {"background": file, "layers": [], "composite": file, "id": None}
            data = [
                (picture if kind == "imageeditor" else [file] if box in several else file)
                if kinds[box] == kind
                else values[box]
                for box in listener["inputs"]
            ]
            body = {"data": data, "fn_index": listener["id"], "session_hash": "one"}
            return http.post("/gradio_api/run/predict", json=body).json()

        for listener in listeners:
            for path in (tmp_path / "own.png", tmp_path / "own.safetensors"):
                assert answer(listener, str(path)) == {"error": None}, listener["api_name"]
        with (tmp_path / "own.png").open("rb") as file:
            (uploaded,) = http.post("/gradio_api/upload", files={"files": file}).json()
        outside = f"{Path(uploaded).parents[1]}/../../{tmp_path.name}/own.png"
        read = next(one for one in listeners if one["api_name"] in ("read", "whole"))
        assert answer(read, outside) == {"error": None}
        assert answer(read, uploaded) != {"error": None}  # it has been read: what is in it is told
