"""Adding adapters from the Hub, for which a small server has the routes that huggingface_hub uses."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorablend.adapters import load_adapter
from lorablend.app.library.library import Library
from lorablend.app.library.public import PUBLIC_ONLY
from tests.adapter_files import SDXL_SHAPES, random_factors, write_peft
from tests.app.file_server import FileServer, serving
from tests.app.library.library_files import adapters_in, parts_of

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A small Hub whose repositories are folders of files; .safetensors files are in LFS."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        server.error_code = "RepoNotFound"
        self.lfs: dict[str, str] = {}

    def put(self, repo: str, files: dict[str, bytes]) -> None:
        siblings: list[dict[str, object]] = []
        for name, content in files.items():
            self.server.files[f"/{repo}/resolve/{REVISION}/{name}"] = content
            sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
            if name.endswith(".safetensors"):
                sha256 = self.lfs.get(name) or hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        info = {"id": repo, "sha": REVISION, "siblings": siblings}
        self.server.files[f"/api/models/{repo}"] = json.dumps(info).encode()


@pytest.fixture
def hub(server: FileServer) -> Hub:
    return Hub(server)


SCRIPT = """
import sys
from lorablend.adapters.errors import LorablendError
from lorablend.app.library.library import Library
from lorablend.app.library.public import guard_hub
if sys.argv.pop(1):
    guard_hub()
try:
    for source in sys.argv[2:]:
        print(Library(sys.argv[1]).add(source).name)
except LorablendError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def add_from_hub(empty: Library, url: str, *sources: str, token: str = "", public: bool = False) -> str:
    """Add adapters in a separate process, because huggingface_hub reads its settings on import.

    public: as on a server that others use. Returns the names, or the last line of the error.
    """
    env = {**os.environ, "HF_HOME": str(empty.folder.parent / "hf"), "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"}
    env.pop("HF_TOKEN", None)
    env |= {"HF_TOKEN": token} if token else {}
    env |= {PUBLIC_ONLY: "1"} if public else {}
    command = [sys.executable, "-c", SCRIPT, "1" if public else "", str(empty.folder), *sources]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_from_the_hub(empty: Library, hub: Hub, adapter: Path) -> None:
    """The only adapter of a repository is downloaded once, with the token, and resumed after interruptions."""
    hub.put("owner/ink-lora", {"pytorch_lora_weights.safetensors": adapter.read_bytes(), "README.md": b"hello"})
    hub.server.drop_after, hub.server.drops = 5000, 2  # the first one is used up by the description, which is shorter
    source = "hf:owner/ink-lora"
    assert add_from_hub(empty, hub.server.url, source, source, token="hf_secret") == "ink-lora\nink-lora"
    assert (empty.folder / "ink-lora.safetensors").read_bytes() == adapter.read_bytes()
    assert {path.partition("?")[0] for path, _ in hub.server.asked} == {
        "/api/models/owner/ink-lora",
        f"/owner/ink-lora/resolve/{REVISION}/pytorch_lora_weights.safetensors",
    }  # and nothing else is sent
    fetched = [headers for path, headers in hub.server.asked if "/resolve/" in path]
    assert [headers.get("range") for headers in fetched] == [None, "bytes=5000-"]
    assert {headers["authorization"] for headers in fetched} == {"Bearer hf_secret"}
    assert not parts_of(empty)


def test_where_the_owners_token_is_not_for_all(
    empty: Library, hub: Hub, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server with users: it opens neither the description of a repository nor its files."""
    hub.put("owner/ink", {"ink.safetensors": adapter.read_bytes()})
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert add_from_hub(empty, hub.server.url, "hf:owner/ink", token="hf_secret") == "ink"
    assert not any("authorization" in headers for _, headers in hub.server.asked)


def test_the_token_stays_with_the_hub(empty: Library, hub: Hub, adapter: Path) -> None:
    """For large files, the Hub redirects to a signed address on another server, which must not get the token."""
    hub.put("owner/ink", {"ink.safetensors": adapter.read_bytes()})
    with serving(files={"/signed": adapter.read_bytes()}) as storage:
        hub.server.redirects = {f"/owner/ink/resolve/{REVISION}/ink.safetensors": f"{storage.url}/signed?key=1"}
        assert add_from_hub(empty, hub.server.url, "hf:owner/ink", token="hf_secret") == "ink"
        ((_, headers),) = storage.asked
    assert "authorization" not in headers


def test_on_a_server_that_others_use(empty: Library, hub: Hub, adapter: Path) -> None:
    """The Hub that its owner chose may be in a private network; nothing else there is reached, not even through it."""
    hub.put("owner/ink", {"ink.safetensors": adapter.read_bytes()})
    hub.put("owner/away", {"away.safetensors": adapter.read_bytes()})
    reason = "this server downloads from the public internet only"
    with serving(files={"/signed": adapter.read_bytes(), "/info": b"{}"}) as storage:
        hub.server.redirects = {
            f"/owner/away/resolve/{REVISION}/away.safetensors": f"{storage.url}/signed",
            "/api/models/owner/moved": f"{storage.url}/info",
        }
        file = f"{hub.server.url}/owner/away/resolve/{REVISION}/away.safetensors"
        away = add_from_hub(empty, hub.server.url, "hf:owner/away", public=True)
        assert away.startswith(f"RequestError: {file}: {reason}")
        moved = add_from_hub(empty, hub.server.url, "hf:owner/moved", public=True)
        assert moved.startswith(f"RequestError: owner/moved: {reason}")
        assert not storage.asked
    assert add_from_hub(empty, hub.server.url, "hf:owner/ink", public=True) == "ink"


def test_files_of_the_hub(empty: Library, hub: Hub, adapter: Path) -> None:
    hub.put("owner/two", {"a/ink.safetensors": adapter.read_bytes(), "neon.safetensors": b"x", "old.bin": b"x"})
    hub.put("owner/none", {"README.md": b"hello"})
    hub.lfs["ink.safetensors"] = "0" * 64
    hub.put("owner/wrong", {"ink.safetensors": adapter.read_bytes()})
    url = hub.server.url
    assert add_from_hub(empty, url, "hf:owner/two") == (
        "RequestError: owner/two has 2 adapters; choose one with hf:owner/two/FILE: a/ink.safetensors, neon.safetensors"
    )
    assert add_from_hub(empty, url, "hf:owner/two/inc.safetensors") == (
        "RequestError: owner/two has no file inc.safetensors; it has a/ink.safetensors, neon.safetensors"
    )
    assert add_from_hub(empty, url, "hf:owner/two/old.bin") == (
        "AdapterError: old.bin is a .bin file; only .safetensors files are accepted"
    )
    assert add_from_hub(empty, url, "hf:owner/none") == (
        "RequestError: owner/none has no .safetensors file; choose another repository"
    )
    assert add_from_hub(empty, url, "hf:owner/nosuch") == (
        "AdapterError: owner/nosuch is not on huggingface.co; if it is private, run `hf auth login`"
    )
    assert add_from_hub(empty, url, "hf:ink") == (
        "RequestError: hf:ink is not a repository; write hf:owner/name or hf:owner/name/file"
    )
    assert add_from_hub(empty, "http://127.0.0.1:9", "hf:owner/two") == (
        "AdapterError: owner/two: huggingface.co cannot be reached; connect to the network"
    )
    found = hashlib.sha256(adapter.read_bytes()).hexdigest()
    assert add_from_hub(empty, url, "hf:owner/wrong") == (
        f"AdapterError: ink: sha256 is {found}, but {'0' * 64} was expected; this is another file"
    )
    assert not adapters_in(empty)
    assert add_from_hub(empty, url, "hf:owner/two/a/ink.safetensors") == "ink"
    hub.server.status, hub.server.error_code = 500, ""
    assert add_from_hub(empty, url, "hf:owner/two") == (
        "AdapterError: owner/two: huggingface.co answers with status 500; try again later"
    )


def test_pefts_pair_from_the_hub(empty: Library, hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    write_peft(path, random_factors(SDXL_SHAPES, rank=4))
    config = json.dumps({"r": 4, "lora_alpha": 16}).encode()
    hub.put("owner/water", {path.name: path.read_bytes(), "adapter_config.json": config})
    assert add_from_hub(empty, hub.server.url, "hf:owner/water") == "water/adapter_model"
    adapter = load_adapter(empty.folder / "water" / path.name)
    assert {delta.scale for delta in adapter.deltas.values()} == {4.0}
