"""A folder that is compressed later equals one that is converted to 8 bits directly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lorablend.adapters.errors import ModelError
from lorablend.app.cli.commands import run
from lorablend.convert.compress import compress
from lorablend.engine import ModelFolder


@pytest.mark.slow
def test_the_same_as_converted_to_8_bits(
    sdxl_fp16: Path, sdxl_int8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    assert run(["compress", str(sdxl_fp16), str(out)]) == 0
    said, stages = capsys.readouterr()
    assert said == f"{out}\n"
    assert "2 of 5: unet" in stages
    ours, theirs = ModelFolder(out), ModelFolder(sdxl_int8)
    for component, graph in ours.graphs.items():
        for name in graph.shapes:
            one, other = graph.weight(name), theirs.graphs[component].weight(name)
            assert one.kind == other.kind
            np.testing.assert_array_equal(graph.read(name), theirs.graphs[component].read(name))
    for network in ("unet", "vae_decoder", "vae_encoder", "text_encoder", "text_encoder_2"):
        small, large = ((folder / network / "openvino_model.bin").stat().st_size for folder in (out, sdxl_fp16))
        assert small < 0.65 * large, network
    assert json.loads((out / "lorablend.json").read_text())["weights"] == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    for source, target, text in (
        (out, tmp_path / "twice", "has its weights in 8 bits already"),
        (sdxl_fp16, out, "exists and is not empty"),
    ):
        with pytest.raises(ModelError, match=text):
            compress(source, target)
