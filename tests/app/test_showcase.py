"""The demo's pictures and sheet."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import ModelError
from lorablend.app.folder import adapter_files
from lorablend.app.png import open_picture, read_png
from lorablend.app.showcase import contact_sheet, draw_showcase
from lorablend.engine import Pipeline


def test_showcase(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    said: list[str] = []
    sheet = draw_showcase(Pipeline(sdxl_model), adapter_files(lora_dir), tmp_path, said.append)
    stems = ["no-adapter", "ink-at-0.5", "ink-at-1", "neon-glow-at-0.5", "neon-glow-at-1"]
    stems += ["ink-neon-glow-at-0.5", "ink-neon-glow-at-1"]
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.png" for stem in stems} | {"sheet.png"}
    pictures = {stem: np.asarray(open_picture(tmp_path / f"{stem}.png")) for stem in stems}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(stems)
    record = read_png(tmp_path / "ink-neon-glow-at-0.5.png").record
    assert record
    assert [(item["adapter"], item["weight"]) for item in record.request.blend["items"]] == [
        ("ink", 0.5),
        ("neon glow", 0.5),
    ]
    assert "random weights" in said[0]
    for stem, line in zip(stems, said[1:], strict=False):
        assert re.fullmatch(rf"{stem}\.png +\d+\.\d\d s, of which +\d+ ms to change the blend", line)
    assert said[-1] == f"side by side: {sheet}"
    assert open_picture(sheet).size == (3 * 268 + 12, 3 * 296 + 12)


def test_one_adapter_is_one_row(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    sheet = draw_showcase(Pipeline(sdxl_model), adapter_files(lora_dir)[:1], tmp_path, lambda _: None)
    assert open_picture(sheet).size == (3 * 268 + 12, 296 + 12)


def test_no_adapters(sdxl_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        draw_showcase(Pipeline(sdxl_model), [], tmp_path, lambda _: None)
    assert str(caught.value) == "the demo has no adapters; reinstall lorablend"


def test_sheet_shows_the_pictures() -> None:
    sheet = contact_sheet([[("a", Image.new("RGB", (8, 8), "red")), ("b", Image.new("RGB", (8, 8), "blue"))]])
    assert sheet.getpixel((140, 150)) == (255, 0, 0)
    assert sheet.getpixel((400, 150)) == (0, 0, 255)
