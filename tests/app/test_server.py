"""The program that serves: it says where, ends in good order, and draws what it was asked for when it is back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from lorablend.app.library.library import Library
from lorablend.app.server import own_adapters
from lorablend.shipped import adapters_dir
from tests.app.file_server import serving

# A program that a shell started in the background has Ctrl-C switched off, and so have those that it starts.
_START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
PROGRAM = [sys.executable, "-u", "-c", f"{_START}; from lorablend.app.cli.commands import main; main()"]
LINE = r"open (http://{}:\d+)/ \(Ctrl-C ends it\)\n"


@contextmanager
def program(
    *arguments: str, host: str = "127.0.0.1", **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`lorablend serve`, and its address."""
    command = [*PROGRAM, *arguments]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        assert child.stdout
        line = child.stdout.readline()
        found = re.fullmatch(LINE.format(re.escape(host)), line)
        assert found, (line, child.communicate(timeout=30))
        yield child, found[1]
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(("end", "code", "said"), [(signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "stopped\n")])
def test_it_ends_in_good_order_and_goes_on(
    sdxl_model: Path, lora_dir: Path, tmp_path: Path, end: signal.Signals, code: int, said: str
) -> None:
    """A drawing ends after its step, a download in the middle of waiting for its server; both are queued again."""
    shutil.copytree(lora_dir, tmp_path / "library")
    arguments = ["serve", str(sdxl_model), "--lora-dir", str(tmp_path / "library"), "--data", str(tmp_path / "data")]
    asked = {"prompt": "a fox", "steps": 400, "width": 64, "height": 64, "count": 2, "seed": 5}
    held = threading.Event()
    files = {"/far.safetensors": (lora_dir / "ink.safetensors").read_bytes()}
    with serving(files=files, held=held, drop_after=1000) as server, program(*arguments) as (child, url):
        source = f"{server.url}/far.safetensors"
        download = httpx.post(f"{url}/api/adapters/download", timeout=60, json={"source": source}).json()
        job = httpx.post(f"{url}/api/jobs", timeout=60, json=asked).json()
        for one, sign in ((download, '"text":"0.0 of'), (job, '"preview"')):
            with httpx.stream("GET", f"{url}/api/jobs/{one['id']}/events", timeout=60) as stream:
                next(line for line in stream.iter_lines() if sign in line.replace(": ", ":"))
        child.send_signal(end)
        assert child.wait(timeout=10) == code  # what systems give a program to end before they kill it
        held.set()
        assert child.stderr
        lines = child.stderr.read().removesuffix(said).splitlines()
        line = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO (job \d \w+ queued) in \d+\.\d\d s"
        matches = [re.fullmatch(line, text) for text in lines]
        assert sorted(match[1] if match else "" for match in matches) == ["job 1 add queued", "job 2 draw queued"], (
            lines
        )
    with program(*arguments) as (child, url):
        for one in (job, download):
            again = httpx.get(f"{url}/api/jobs/{one['id']}", timeout=60).json()
            assert again["state"] in ("queued", "running", "done", "failed")
            assert httpx.delete(f"{url}/api/jobs/{one['id']}", timeout=60).status_code == 200


def test_without_options_the_library_takes_more(tmp_path: Path) -> None:
    """As "lorablend ui" alone: the folder begins as a copy, or is from before it was a library."""
    data = tmp_path / "data"
    (data / "gradio" / "of yesterday").mkdir(parents=True)
    with program("ui", "--data", str(data)) as (child, url):
        (copy,) = httpx.post(f"{url}/gradio_api/upload", timeout=60, files={"files": b"a picture"}).json()
        parts = httpx.get(f"{url}/config", timeout=60).json()["components"]
        card = httpx.get(f"{url}/api/adapters/comic/preview", timeout=60)
        # Gradio prints what it received instead of nine arguments.
        wrong = httpx.post(f"{url}/gradio_api/run/draw", timeout=60, json={"data": ["x" * 2_000_000]})
        child.kill()
        assert child.stderr
        log = child.stderr.read()
    assert wrong.status_code == 500
    assert "xxxx" in log
    assert len(log) < 20_000
    assert Path(copy).is_relative_to(data / "gradio")  # not where all users of the machine have theirs
    assert not (data / "gradio" / "of yesterday").exists()
    assert card.content == (adapters_dir() / "comic.jpg").read_bytes()
    words = [(part["props"].get("label"), part["props"].get("value"), part["props"].get("visible")) for part in parts]
    assert ("Add to the library", None, True) in words
    assert (None, "Favourite", True) in words
    shutil.rmtree(data / "adapters" / ".lorablend")
    assert Library.is_at(own_adapters(data))


def test_two_of_them(sdxl_model: Path, tmp_path: Path) -> None:
    """The second takes the next port, and a data folder of its own."""
    with program("serve", str(sdxl_model), "--data", str(tmp_path / "one")) as (_, first):
        with program("serve", str(sdxl_model), "--data", str(tmp_path / "two")) as (_, second):
            assert first != second
            assert (
                httpx.get(f"{first}/healthz", timeout=60).json()["model"]
                == httpx.get(f"{second}/healthz", timeout=60).json()["model"]
            )
        third = subprocess.run(
            [*PROGRAM, "serve", str(sdxl_model), "--data", str(tmp_path / "one")], capture_output=True, text=True
        )
    assert third.returncode == 1
    assert third.stderr == (
        f"error: another lorablend serves from {tmp_path / 'one'}; give this one a folder of its own with --data\n"
    )


def test_the_token_of_the_environment(sdxl_model: Path, tmp_path: Path) -> None:
    """Others have it too, so downloads do not reach this machine or its network."""
    arguments = ["serve", str(sdxl_model), "--data", str(tmp_path), "--lora-dir", str(tmp_path)]
    with serving() as server, program(*arguments, LORABLEND_TOKEN="secret") as (_, url):
        assert httpx.get(f"{url}/metrics", timeout=60).status_code == 401
        assert tmp_path.stat().st_mode & 0o777 == 0o700
        with httpx.Client(base_url=url, timeout=60, headers={"Authorization": "Bearer secret"}) as http:
            health = http.get("/healthz").json()
            source = f"{server.url}/ink.safetensors"
            job = http.post("/api/adapters/download", json={"source": source}).json()
            with http.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
                *_, last = (line for line in stream.iter_lines() if line.startswith("data: "))
    assert health["status"] == "ok"
    ended = json.loads(last.removeprefix("data: "))
    assert ended["state"] == "failed"
    assert ended["reason"].startswith(f"{source}: this server downloads from the public internet only")
    assert not server.asked


def test_the_address_for_others(sdxl_model: Path, tmp_path: Path) -> None:
    """0.0.0.0 is no address that a browser could open."""
    arguments = ["serve", str(sdxl_model), "--data", str(tmp_path), "--listen", "--token", "0123456789abcdef"]
    with program(*arguments, host=socket.gethostname()) as (_, url):
        here = f"http://127.0.0.1:{urlsplit(url).port}/healthz"
        headers = {"Authorization": "Bearer 0123456789abcdef", "Host": urlsplit(url).netloc}
        assert httpx.get(here, timeout=60, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--listen"], "0.0.0.0 lets in the whole network; give --token, or --users with a file of passwords"),
        (
            ["--listen", "--token", "x"],
            "the token has 1 characters, and 0.0.0.0 lets in the whole network; give one of at least 16, such as 32 "
            "random letters",
        ),
        (
            ["--host", "192.0.2.1", "--token", "0123456789abcdef"],
            "cannot listen at 192.0.2.1: cannot assign requested address",
        ),
        (["--lora-dir", "nosuch"], "nosuch is not a folder; give an existing folder of adapters"),
        (["--users", "nosuch"], "nosuch cannot be read: no such file or directory; give a file of users"),
    ],
)
def test_what_is_wrong_is_said_at_once(sdxl_model: Path, tmp_path: Path, arguments: list[str], text: str) -> None:
    ended = subprocess.run(
        [*PROGRAM, "serve", str(sdxl_model), "--data", str(tmp_path / "data"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (1, f"error: {text}\n")
