"""What every test shares: nothing reaches the network, and the small models are written once per run."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Before any import of the libraries they speak to; child processes inherit them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    GRADIO_ANALYTICS_ENABLED="False",
    DO_NOT_TRACK="1",
    CI="true",  # the only switch that silences OpenVINO's and NNCF's telemetry without a file in the home folder
    OMP_NUM_THREADS="1",  # torch on models this small: five times slower with two threads that wait for each other
)
sys.path.insert(0, str(Path(__file__).parents[1]))  # for `from tests.pipelines import …`

from lorablend.convert import convert
from tests import pipelines

# What takes a second or more to make, with all that is made from it: models, browsers.
_HEAVY_FIXTURES = {"browser", "judge", "sd15_source", "sdxl_source"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out slow tests, and those with models or a browser")


def pytest_configure(config: pytest.Config) -> None:
    """Give all processes of a run one cache (compiled graphs, the demo model for torch), unless the caller has one."""
    if "LORABLEND_CACHE" not in os.environ:
        os.environ["LORABLEND_CACHE"] = cache = tempfile.mkdtemp(prefix="lorablend-tests-")
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with a long one while the other has nothing to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if config.getoption("--quick"):
        heavy = [item for item in items if _is_heavy(item)]
        config.hook.pytest_deselected(items=heavy)
        items[:] = [item for item in items if item not in set(heavy)]


def _is_heavy(item: pytest.Item) -> bool:
    fixtures = set(item.fixturenames) if isinstance(item, pytest.Function) else set()
    return item.get_closest_marker("slow") is not None or bool(fixtures & _HEAVY_FIXTURES)


Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A folder that is built once per run, also where several processes (pytest-xdist) run the tests."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base

    def build_once(name: str, build: Callable[[Path], object]) -> Path:
        folder, part = root / name, root / f"{name} part"
        with FileLock(root / f"{name}.lock"):
            if not folder.exists():
                build(part)
                part.rename(folder)
        return folder

    return build_once


@pytest.fixture(scope="session")
def sdxl_source(shared: Shared) -> Path:
    """Diffusers folder: an SDXL-shaped pipeline, f32, random weights, 64×64 pixels."""
    return shared("sdxl_source", pipelines.write_sdxl)


@pytest.fixture(scope="session")
def sd15_source(shared: Shared) -> Path:
    """Diffusers folder: an SD 1.5-shaped pipeline, f32, random weights, 64×64 pixels."""
    return shared("sd15_source", pipelines.write_sd15)


@pytest.fixture(scope="session")
def sdxl_model(sdxl_source: Path, shared: Shared) -> Path:
    """`sdxl_source` as OpenVINO IR, f32."""
    return shared("sdxl_model", lambda folder: convert(sdxl_source, folder, weights="fp32"))


@pytest.fixture(scope="session")
def sdxl_fp16(sdxl_source: Path) -> Path:
    """`sdxl_source` as OpenVINO IR, f16 weights: as a training converts it, which finds it there."""
    from lorablend.train.base import find_base
    from lorablend.train.samples import convert_base

    return convert_base(find_base(str(sdxl_source)), lambda line: None)


@pytest.fixture(scope="session")
def sdxl_int8(sdxl_source: Path, shared: Shared) -> Path:
    """`sdxl_source` as OpenVINO IR, 8-bit weights, converted as a model of the Hub that was downloaded before."""

    def build(folder: Path) -> None:
        repository = pipelines.write_hub_cache(sdxl_source, folder.with_name("sdxl hub"))
        folder.mkdir()  # an empty folder is allowed
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(repository.parent))
            convert(pipelines.HUB_ID, folder, weights="int8")

    return shared("sdxl_int8", build)


@pytest.fixture(scope="session")
def sd15_model(sd15_source: Path, shared: Shared) -> Path:
    """`sd15_source` as OpenVINO IR, f32."""
    return shared("sd15_model", lambda folder: convert(sd15_source, folder, weights="fp32"))
