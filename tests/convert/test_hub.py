"""The Hub's protocol against a small local server, and the cache without any network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.convert.sources import WHERE, write_folder, write_tensors

REVISION = "0123456789abcdef0123456789abcdef01234567"
UNREACHABLE = "http://127.0.0.1:9"
SCRIPT = """
import sys
from lorablend.adapters.errors import LorablendError
from lorablend.convert import hub
repo, half, weights, free = sys.argv[1], sys.argv[2] == "True", sys.argv[3] == "True", sys.argv[4]
if free:
    hub.psutil.disk_usage = lambda path: type("Usage", (), {"free": int(free)})
try:
    print(*hub.download(repo, half=half, weights=weights))
except LorablendError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class Hub:
    """A server for one repository, "owner/name"; `asked` are the files that were fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._file(with_content=False)

            def do_GET(self) -> None:
                if self.path.startswith("/api/models/owner/name"):
                    siblings = [
                        {"rfilename": file.relative_to(folder).as_posix(), "size": file.stat().st_size}
                        for file in sorted(folder.rglob("*"))
                        if file.is_file()
                    ]
                    self._reply(json.dumps({"id": "owner/name", "sha": REVISION, "siblings": siblings}).encode())
                elif self.path.startswith("/api/"):
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RepoNotFound")
                    self.end_headers()
                else:
                    self._file(with_content=True)

            def _file(self, *, with_content: bool) -> None:
                name = self.path.split("/", 5)[-1]  # /owner/name/resolve/<revision>/<name>
                if with_content:
                    hub.asked.append(name)
                self._reply((folder / name).read_bytes(), with_content=with_content)

            def _reply(self, content: bytes, *, with_content: bool = True) -> None:
                self.send_response(200)
                self.send_header("X-Repo-Commit", REVISION)
                self.send_header("ETag", f'"{hash(self.path):x}"')
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if with_content:
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = write_folder(tmp_path / "repository")
    write_tensors(folder / f"{WHERE['unet']}.fp16.safetensors")
    (folder / "README.md").write_text("not needed")
    served = Hub(folder)
    yield served
    served.server.shutdown()


def download(
    cache: Path, url: str, repo: str = "owner/name", *, half: bool = True, weights: bool = True, free: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run in a separate process, for huggingface_hub reads its settings when it is imported."""
    env = {**os.environ, "HF_HOME": str(cache), "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    arguments = [sys.executable, "-c", SCRIPT, repo, str(half), str(weights), free]
    return subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=60)


def test_download_then_cache(tmp_path: Path, hub: Hub) -> None:
    first = download(tmp_path / "cache", hub.url)
    folder, revision = first.stdout.split()
    assert revision == REVISION
    assert sorted(hub.asked) == sorted(
        [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "text_encoder_2/config.json",
            "text_encoder_2/model.safetensors",
            "tokenizer/tokenizer.json",
            "tokenizer_2/tokenizer.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ]
    )
    assert (Path(folder) / "model_index.json").exists()
    again = download(tmp_path / "cache", UNREACHABLE)
    assert again.stdout == first.stdout


def test_configurations_only(tmp_path: Path, hub: Hub) -> None:
    assert download(tmp_path / "cache", hub.url, weights=False).returncode == 0
    assert not [file for file in hub.asked if file.endswith(".safetensors")]


def test_no_network_and_no_cache(tmp_path: Path) -> None:
    assert download(tmp_path / "cache", UNREACHABLE).stderr.splitlines()[-1] == (
        "ModelError: owner/name is not in the local cache and huggingface.co cannot be reached; "
        "connect to the network, or give a local folder"
    )


def test_unknown_repository(tmp_path: Path, hub: Hub) -> None:
    assert download(tmp_path / "cache", hub.url, "owner/other").stderr.splitlines()[-1] == (
        "ModelError: owner/other is not on huggingface.co; if it is private, run `hf auth login`"
    )


def test_repository_without_index(tmp_path: Path, hub: Hub) -> None:
    (hub.folder / "model_index.json").unlink()
    assert download(tmp_path / "cache", hub.url).stderr.splitlines()[-1] == (
        "ModelError: owner/name has no model_index.json; give a diffusers model or a .safetensors checkpoint"
    )


def test_an_index_that_is_too_large(tmp_path: Path, hub: Hub) -> None:
    with (hub.folder / "model_index.json").open("a") as file:
        file.truncate(1_000_001)
    assert download(tmp_path / "cache", hub.url).stderr.splitlines()[-1] == (
        "ModelError: owner/name: model_index.json has 1000001 bytes; give a diffusers model"
    )
    assert not hub.asked


def test_weights_that_are_too_large(tmp_path: Path, hub: Hub) -> None:
    """The file takes no room: it is a hole."""
    with (hub.folder / "vae" / "diffusion_pytorch_model.safetensors").open("a") as file:
        file.truncate(41 * 10**9)
    assert download(tmp_path / "cache", hub.url).stderr.splitlines()[-1] == (
        "ModelError: owner/name: its files have 41.0 GB, no model that can be converted has more than 40 GB; "
        "give another repository"
    )
    assert hub.asked == ["model_index.json"]


def test_full_disk(tmp_path: Path, hub: Hub) -> None:
    assert download(tmp_path / "cache", hub.url, free="5").stderr.splitlines()[-1] == (
        f"ResourceError: owner/name: the download needs 0.0 GB of disk, {tmp_path / 'cache' / 'hub'} has 0.0 GB free; "
        "free up space, or set HF_HOME to a folder on another disk"
    )
    assert hub.asked == ["model_index.json"]
