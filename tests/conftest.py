"""What every test shares: nothing reaches the network, and the small models are written once per run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

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
from lorablend.convert.conversion import Weights
from tests import pipelines


@pytest.fixture(scope="session")
def sdxl_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Diffusers folder: an SDXL-shaped pipeline, f32, random weights, 64×64 pixels."""
    return pipelines.write_sdxl(tmp_path_factory.mktemp("sdxl_source"))


@pytest.fixture(scope="session")
def sd15_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Diffusers folder: an SD 1.5-shaped pipeline, f32, random weights, 64×64 pixels."""
    return pipelines.write_sd15(tmp_path_factory.mktemp("sd15_source"))


@pytest.fixture(scope="session")
def sdxl_model(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sdxl_source` as OpenVINO IR, f32."""
    return _convert(sdxl_source, tmp_path_factory.mktemp("sdxl_model"), "fp32")


@pytest.fixture(scope="session")
def sdxl_fp16(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sdxl_source` as OpenVINO IR, f16 weights."""
    return _convert(sdxl_source, tmp_path_factory.mktemp("sdxl_fp16"), "fp16")


@pytest.fixture(scope="session")
def sdxl_int8(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sdxl_source` as OpenVINO IR, 8-bit weights."""
    return _convert(sdxl_source, tmp_path_factory.mktemp("sdxl_int8"), "int8")


@pytest.fixture(scope="session")
def sd15_model(sd15_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sd15_source` as OpenVINO IR, f32."""
    return _convert(sd15_source, tmp_path_factory.mktemp("sd15_model"), "fp32")


def _convert(source: Path, folder: Path, weights: Weights) -> Path:
    convert(source, folder, weights=weights)
    return folder
