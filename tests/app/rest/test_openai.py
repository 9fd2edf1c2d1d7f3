"""OpenAI's own client against the real server."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from lorablend.app.pictures.png import encode, texts_of
from lorablend.app.pictures.record import Record
from lorablend.app.rest import shared
from tests.app.rest.rest_server import Running, running

FAST = {"num_inference_steps": 2}


@pytest.fixture(scope="module")
def server(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data"), sdxl_model, lora_dir, limit=3) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def draw(client: openai.OpenAI, prompt: str = "a fox", **extra: Any) -> Any:
    own = {name: extra.pop(name) for name in ("n", "response_format", "output_format", "model") if name in extra}
    return client.images.generate(prompt=prompt, size="64x64", extra_body={**FAST, **extra}, **own)


def record(content: bytes) -> Record:
    found = texts_of(Image.open(io.BytesIO(content)), "the picture").record
    assert found is not None
    return found


def contents(answer: Any) -> list[bytes]:
    return [base64.b64decode(one.b64_json) for one in answer.data]


def picture(colour: tuple[int, ...], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.full((size[1], size[0], len(colour)), colour, np.uint8))


def png(picture: Image.Image) -> bytes:
    return encode(picture, "png", {})


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object, model.owned_by) == ("small", "model", "lorablend")
    assert client.models.retrieve("small") == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("dall-e-3")
    assert caught.value.code == "model_not_found"


def test_pictures_with_adapters_and_settings(client: openai.OpenAI) -> None:
    answer = draw(
        client,
        "a fox <lora:ink:0.5>",
        n=2,
        model="small",
        negative_prompt="blurry",
        guidance_scale=3.5,
        seed=7,
        scheduler="dpmpp_2m",
        loras=[{"name": "neon glow", "weight": -0.25}],
    )
    assert (answer.size, answer.output_format, answer.background) == ("64x64", "png", "opaque")
    first, second = (record(content) for content in contents(answer))
    assert (first.seed, second.seed) == (7, 8)
    assert {adapter.name: adapter.weight for adapter in first.adapters} == {"ink": 0.5, "neon glow": -0.25}
    request = first.request
    assert (request.negative_prompt, request.guidance_scale, request.scheduler) == ("blurry", 3.5, "dpmpp_2m")
    assert (request.steps, request.width, request.height) == (2, 64, 64)


def test_an_adapter_changes_the_picture_and_all_ways_to_name_it_are_one(client: openai.OpenAI) -> None:
    ways: list[tuple[str, dict[str, Any]]] = [
        ("a fox", {}),
        ("a fox <lora:ink:0.8>", {}),
        ("a fox", {"loras": [{"name": "ink", "weight": 0.8}]}),
        ("a fox", {"loras": {"ink": 0.8}}),
        ("a fox", {"loras": ["<lora:ink:0.8>"]}),
        ("a fox", {"lora_alphas": {"ink": 0.8}}),
    ]
    drawn = [contents(draw(client, prompt, seed=3, **extra))[0] for prompt, extra in ways]
    pixels = [Image.open(io.BytesIO(content)).tobytes() for content in drawn]
    assert pixels[0] != pixels[1]
    assert len(set(pixels[1:])) == 1


def test_an_address_in_place_of_the_picture(client: openai.OpenAI) -> None:
    (one,) = draw(client, "", response_format="url", output_format="webp", seed=1).data  # and no words are words too
    found = httpx.get(one.url)
    assert found.headers["content-type"] == "image/webp"
    assert record(found.content).seed == one.seed == 1


def test_the_formats(client: openai.OpenAI) -> None:
    for kind in ("jpeg", "webp"):
        (content,) = contents(draw(client, output_format=kind, seed=4))
        assert Image.open(io.BytesIO(content)).format == kind.upper()
        assert record(content).seed == 4


def test_an_edit_redraws_what_is_transparent(client: openai.OpenAI) -> None:
    start, mask = picture((200, 200, 200)), np.full((64, 64, 4), 255, np.uint8)
    mask[:, 32:, 3] = 0
    sent = {"image": png(start), "mask": png(Image.fromarray(mask))}
    answer = client.images.edit(prompt="a fox", extra_body={**FAST, "seed": 1}, **sent)
    (content,) = contents(answer)
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert (pixels[:, :32] == 200).all()
    assert not (pixels[:, 40:] == 200).all()
    assert record(content).request.strength == 1.0


def test_an_edit_with_a_white_mask_or_holes_in_the_picture(client: openai.OpenAI) -> None:
    white = np.zeros((64, 64, 3), np.uint8)
    white[:, 32:] = 255
    holes = np.full((64, 64, 4), 200, np.uint8)
    holes[:, :32, 3], holes[:, 32:, 3] = 255, 0
    by_mask = {"image": png(picture((200, 200, 200))), "mask": png(Image.fromarray(white))}
    for sent in (by_mask, {"image": png(Image.fromarray(holes))}):
        answer = client.images.edit(prompt="a fox", extra_body={**FAST, "seed": 1}, **sent)
        pixels = np.asarray(Image.open(io.BytesIO(contents(answer)[0])))
        assert (pixels[:, :32] == 200).all()
        assert not (pixels[:, 40:] == 200).all()


def test_an_edit_without_a_mask_starts_from_the_picture(client: openai.OpenAI) -> None:
    extra = {**FAST, "seed": 1, "strength": 0.5, "loras": json.dumps({"ink": 0.5})}
    answer = client.images.edit(prompt="a fox", image=[png(picture((9, 99, 199), (128, 64)))], extra_body=extra)
    found = record(contents(answer)[0])
    assert (found.request.width, found.request.height, found.request.strength) == (128, 64, 0.5)
    assert [adapter.name for adapter in found.adapters] == ["ink"]


def test_an_edit_with_what_the_client_spells_with_brackets(client: openai.OpenAI) -> None:
    """Lists and dicts in a multipart form: loras[][name]=ink, loras[ink]=0.8, timesteps[]=999."""
    both = {"ink": 0.5, "neon glow": 0.0}
    for extra, used in (
        ({"loras": [{"name": name, "weight": weight} for name, weight in both.items()]}, both),
        ({"loras": {"ink": 0.5}, "lora_alphas": {"neon glow": 0.0}}, both),
        ({"loras": ["<lora:ink:0.5>", "<lora:neon glow:0>"]}, both),
        ({"loras": [{"name": "ink", "weight": 0.5}]}, {"ink": 0.5}),
    ):
        sent = {"timesteps": [999, 499], "scheduler": "lcm", **extra}
        answer = client.images.edit(prompt="a fox", image=png(picture((9, 99, 199))), extra_body=sent)
        found = record(contents(answer)[0])
        assert {adapter.name: adapter.weight for adapter in found.adapters} == used, extra
        assert found.request.timesteps == (999, 499)
    for loras in ([["ink", 0.8]], [{"name": "ink", "weight": 1}, {"name": "neon glow"}], {"ink": {"weight": 1}}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(prompt="a fox", image=png(picture((9, 99, 199))), extra_body={**FAST, "loras": loras})
        assert "loras cannot be read from the fields of this form; write loras as JSON text" in caught.value.message


def test_the_fields_of_openvino_model_server(server: Running) -> None:
    asked = {"prompt": "a fox", "width": 128, "height": 64, "num_images_per_prompt": 2, **FAST, "size": "auto"}
    answer = server.http.post("/v1/images/generations", json=asked).json()
    assert (answer["size"], len(answer["data"])) == ("128x64", 2)
    for more, text in (
        ({"size": "64x64"}, "width is 128, but size is 64x64; give one of the two"),
        ({"n": 1}, "num_images_per_prompt is 2, but n is 1; give one of the two"),
    ):
        error = server.http.post("/v1/images/generations", json=asked | more)
        assert (error.status_code, error.json()["error"]["message"]) == (400, text)


def test_a_drawing_that_was_stopped_is_not_asked_for_again(server: Running) -> None:
    last = server.service.jobs.find(limit=1)[0].number
    stopper = threading.Thread(target=_stop_next, args=(server, last))
    stopper.start()
    patient = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2)
    with patient, pytest.raises(openai.ConflictError):
        draw(patient, num_inference_steps=400, n=10)
    stopper.join(60)
    assert server.service.jobs.find(limit=1)[0].number == last + 1


def _stop_next(server: Running, last: int) -> None:
    changed = server.service.jobs._changed
    with changed:
        assert changed.wait_for(lambda: server.service.jobs.find(limit=1)[0].number > last, 30)
    server.service.jobs.cancel(server.service.jobs.find(limit=1)[0].id)


def test_a_stream_that_waits_says_that_it_lives(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "KEEP_ALIVE", 0.0)
    job = server.long_job()
    asked = {"prompt": "a fox", "stream": True, **FAST}
    try:
        with server.http.stream("POST", "/v1/images/generations", json=asked) as answer:
            assert next(answer.iter_lines()) == ": still here"
    finally:
        server.service.jobs.cancel(job.id)
        server.service.wait(job)


def test_partial_pictures(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"prompt": "a fox", "size": "64x64", "stream": True, "partial_images": 2}
    events = list(client.images.generate(extra_body={"num_inference_steps": 30, "seed": 5}, **asked))
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed"
    assert 1 <= kinds.count("image_generation.partial_image") == len(kinds) - 1 <= 2
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1))
    assert all(base64.b64decode(event.b64_json).startswith(b"\x89PNG") for event in events)
    assert record(base64.b64decode(events[-1].b64_json)).seed == 5


def test_a_client_that_leaves_a_stream_cancels_its_job(client: openai.OpenAI, server: Running) -> None:
    asked: dict[str, Any] = {"prompt": "a fox", "size": "64x64", "stream": True, "partial_images": 3, "n": 2}
    with client.images.generate(extra_body={"num_inference_steps": 400}, **asked) as stream:
        assert next(iter(stream)).type == "image_generation.partial_image"
        (job,) = server.service.jobs.find(state="running")
    assert server.service.wait(job).state == "cancelled"


@pytest.mark.parametrize(
    ("fields", "param", "text"),
    [
        ({"size": "70x64"}, None, "width is 70; give a multiple of 8 from 64 to 4096, such as 72"),
        ({"size": "big"}, "size", "size is 'big'; write WIDTHxHEIGHT, such as 1024x1024, or auto"),
        ({"n": 11}, "n", "n: Input should be less than or equal to 10, not '11'"),
        ({"loras": ["../ink"]}, None, '"../ink" is more than tags; write <lora:ink:0.8>, one after the other'),
        ({"loras": ["<lora:ink> a fox"]}, None, '"<lora:ink> a fox" is more than tags'),
        ({"prompt": "a <lora:inc>"}, None, "inc: no adapter with that name"),
        ({"loras": {"/etc/passwd": 1}}, None, "is a path"),
        ({"loras": [{"name": "ink", "weight": "much"}]}, None, "ink"),
        ({"background": "transparent"}, "background", "transparent backgrounds cannot be drawn"),
        ({"scheduler": "best"}, None, "best"),
        ({"guidance_scale": -1}, None, "guidance_scale is -1.0; give a number of 0 or more"),
        ({"seed": -1}, "seed", "seed: Input should be greater than or equal to 0, not '-1'"),
        ({"prompt": None}, "prompt", "prompt: Input should be a valid string, not 'None'"),
    ],
)
def test_what_is_wrong(client: openai.OpenAI, fields: dict[str, Any], param: str | None, text: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a fox", extra_body={**FAST, "size": "64x64", **fields})
    body: Any = caught.value.body
    assert text in body["message"]
    assert "\n" not in body["message"]
    assert (body["type"], body["param"]) == ("invalid_request_error", param)
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("files", "param", "text"),
    [
        ({"image": b"<html>"}, "image", "image: not a picture that can be read"),
        ({"image": [png(picture((1, 2, 3)))] * 2}, "image", "image was sent 2 times; send one picture"),
        ({"image": png(picture((1, 2, 3))), "mask": b""}, "mask", "mask: not a picture that can be read"),
    ],
)
def test_what_is_wrong_with_an_edit(client: openai.OpenAI, files: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(prompt="a fox", **files)
    assert caught.value.param == param
    assert text in caught.value.message


def test_bodies_that_are_no_request(server: Running) -> None:
    for body in (b"{", b"[" * 100_000, b"null", b"\xff", b'{"prompt": "a", "n": 1e400}', b'{"prompt": "\\ud800"}'):
        answer = server.http.post("/v1/images/generations", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, body[:40]
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl -d says
    answer = server.http.post("/v1/images/generations", content=b'{"prompt": "a"}', headers=form)
    text = "the body is not declared as JSON; send the header Content-Type: application/json too"
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, text)


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        draw(client, model="dall-e-3")
    assert caught.value.code == "model_not_found"
    assert "there is no model 'dall-e-3'; there are small" in caught.value.message


def test_a_full_queue(client: openai.OpenAI, server: Running) -> None:
    jobs = [server.long_job()]
    jobs += [server.http.post("/api/jobs", json={"prompt": "a fox", "steps": 1}).json()["id"] for _ in range(3)]
    try:
        with pytest.raises(openai.RateLimitError) as caught:
            draw(client)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert "3 of your draw jobs are waiting, which is the limit" in caught.value.message
    finally:
        for job in jobs[1:]:
            server.service.jobs.cancel(job)
        server.service.jobs.cancel(jobs[0].id)
        server.service.wait(jobs[0])
