"""Fixtures of the app's tests: adapters for the small SDXL model, a separate cache, and no library."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lorablend.app.library.library import Library
from lorablend.app.service import Service
from tests.adapter_files import SD15_SHAPES, SDXL_SHAPES, random_factors, write_kohya, write_peft
from tests.app.file_server import FileServer, serving
from tests.app.library.library_files import write

# Of the small SDXL model: [out, in].
_SHAPES = {
    ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"): (64, 64),
    ("unet", "down_blocks.2.attentions.1.transformer_blocks.1.attn2.to_v"): (128, 96),
    ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"): (128, 128),
    ("text_encoder_2", "text_model.encoder.layers.0.self_attn.v_proj"): (64, 64),
}


@pytest.fixture(autouse=True, scope="session")
def _no_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORABLEND_ADAPTERS", str(tmp_path_factory.getbasetemp() / "no library"))
        yield


@pytest.fixture(scope="session")
def lora_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ink (kohya, alpha 2, a trigger word) and "neon glow" (PEFT, no metadata)."""
    folder = tmp_path_factory.mktemp("adapters")
    ink = random_factors(_SHAPES, alpha=2.0, seed=1, size=0.5)
    write_kohya(folder / "ink.safetensors", ink, metadata={"modelspec.trigger_phrase": "ink drawing"})
    write_peft(folder / "neon glow.safetensors", random_factors(_SHAPES, seed=2, size=0.5))
    return folder


@pytest.fixture(scope="module")
def service(sdxl_model: Path, lora_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Started, on the small SDXL model and `lora_dir`."""
    service = Service(tmp_path_factory.mktemp("data"), {"small": sdxl_model}, lora_dir)
    service.start()
    yield service
    service.close()


@pytest.fixture
def full_disk() -> Callable[[], AbstractContextManager[None]]:
    """A context in which this process cannot write to any file."""

    @contextmanager
    def fill() -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return fill


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A file outside any library."""
    path = tmp_path / "source" / "ink.safetensors"
    path.parent.mkdir()
    write_kohya(path, random_factors(SDXL_SHAPES, rank=16, alpha=2.0))
    return path


@pytest.fixture
def empty(tmp_path: Path) -> Library:
    """A library with nothing in it."""
    (tmp_path / "library").mkdir()
    return Library(tmp_path / "library")


@pytest.fixture
def server(adapter: Path) -> Iterator[FileServer]:
    """A file server that has the adapter."""
    with serving(files={"/ink.safetensors": adapter.read_bytes()}) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ink, styles/neon (for SD 1.5, with other ranks) and a web page that is not an adapter."""
    folder = tmp_path / "adapters"
    write(folder, "ink", metadata={"modelspec.trigger_phrase": "ink drawing, brush", "modelspec.title": "Ink & Water"})
    (folder / "styles").mkdir()
    write_peft(folder / "styles" / "neon.safetensors", random_factors(SD15_SHAPES, rank=8, seed=1))
    (folder / "broken.safetensors").write_text("<html>log in</html>")
    (folder / "notes.txt").write_text("no adapter")
    return folder


@pytest.fixture
def library(folder: Path) -> Library:
    """The library of `folder`."""
    library = Library(folder)
    library.scan()
    return library
