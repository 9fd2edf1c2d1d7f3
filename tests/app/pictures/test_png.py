"""Picture files: their texts can be read back, and they are always written whole."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lorablend.adapters import resolve_blend
from lorablend.adapters.errors import RequestError
from lorablend.app.files import check_folder
from lorablend.app.pictures.infotext import parse_infotext
from lorablend.app.pictures.png import open_picture, read_png, save_png, save_result
from lorablend.app.pictures.record import Record, record_of
from lorablend.engine import Pipeline

RED = Image.new("RGB", (8, 8), "red")


def test_a_result_comes_back_whole(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    pipe = Pipeline(sdxl_model, lora_dir=lora_dir)
    prompt = "a fox 🦊\nin “snow”"
    result = pipe.generate(f"{prompt} <lora:ink:0.1>", "", blend=[("neon glow", -1 / 3)], steps=2, seed=7, batch=2)
    paths = save_result(result, pipe, tmp_path)
    assert [path.stem.rpartition("-")[2] for path in paths] == ["7", "8"]
    for path, image, seed in zip(paths, result.images, (7, 8), strict=True):
        texts = read_png(path)
        assert texts.record
        assert texts.record.request == result.request
        assert texts.record.seed == seed
        assert (texts.record.device, texts.record.runtime, texts.record.model) == ("CPU", "live", sdxl_model.name)
        assert [(used.name, used.weight, used.sha256) for used in texts.record.adapters] == [
            (item.adapter.name, item.weight, item.adapter.sha256) for item in result.blend
        ]
        assert resolve_blend([texts.record.request.blend], lora_dir).to_dict() == result.blend.to_dict()
        assert texts.record.request.blend["items"][1] == {"adapter": "ink", "weight": 0.1}
        assert set(texts.record.versions) == {"lorablend", "openvino", "numpy"}
        read = parse_infotext(texts.parameters or "")
        assert read.prompt == f"{prompt} <lora:neon_glow:-0.3333333333333333> <lora:ink:0.1>"
        assert read.settings["Seed"] == str(seed)
        assert np.array_equal(np.asarray(open_picture(path)), np.asarray(image))


def test_the_record_draws_the_picture_again(sdxl_model: Path, lora_dir: Path, tmp_path: Path) -> None:
    pipe = Pipeline(sdxl_model, lora_dir=lora_dir)
    tag = "<lora:neon glow:1:te=-0.5:unet=0.25:lbw=OUTALL:blocks=mid_block@0.5:step=1-0.75:ramp=0-1:mask=0,0,1,0.5>"
    prompt = f"a fox {tag} <blend:switch:2>"
    drawn = pipe.generate(prompt, blend=[("ink", 0.7)], timesteps=[999, 600.5, 300, 20], scheduler="euler_a")
    (path,) = save_result(drawn, pipe, tmp_path)
    record = read_png(path).record
    assert record
    asked = record.request
    again = Pipeline(sdxl_model, lora_dir=lora_dir).generate(
        asked.prompt,
        asked.negative_prompt,
        blend=asked.blend,
        width=asked.width,
        height=asked.height,
        steps=asked.steps,
        guidance_scale=asked.guidance_scale,
        seed=record.seed,
        scheduler=asked.scheduler,
        spacing=asked.spacing,
        timesteps=asked.timesteps,
    )
    assert again.request == dataclasses.replace(asked, seed=record.seed)
    assert np.array_equal(np.asarray(again.images[0]), np.asarray(open_picture(path)))


def test_a_record_from_before_blends_is_read(sdxl_model: Path, lora_dir: Path) -> None:
    pipe = Pipeline(sdxl_model, lora_dir=lora_dir)
    record = record_of(pipe.generate("a fox", blend=[("ink", 0.7)], steps=1, seed=7), 7, pipe)
    fields = json.loads(record.to_json())
    assert fields["request"]["blend"] == {"mode": "sum", "items": [{"adapter": "ink", "weight": 0.7}]}
    fields["request"]["blend"] = [["ink", 0.7]]
    for key in ("precision", "max_rank", "lenient"):
        del fields[key]
    del fields["request"]["timesteps"]
    assert Record.from_json(json.dumps(fields)) == record == Record.from_json(record.to_json())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "Expecting value: line 1 column 1 (char 0)"),
        ("[]", "list indices must be integers or slices, not str"),
        ("{}", "'request'"),
        ('{"request": {"more": 1}}', "request has unknown fields more"),
    ],
)
def test_records_that_make_no_sense(text: str, reason: str, tmp_path: Path) -> None:
    path = save_png(RED, tmp_path, "a", {"lorablend": text})
    with pytest.raises(RequestError) as caught:
        read_png(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    paths = [save_png(RED, folder, "a", {"parameters": str(number)}) for number in range(3)]
    assert [path.name for path in paths] == ["a.png", "a-2.png", "a-3.png"]
    assert [read_png(path).parameters for path in paths] == ["0", "1", "2"]
    assert sorted(path.name for path in folder.iterdir()) == ["a-2.png", "a-3.png", "a.png"]


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_png(RED, tmp_path, "a")
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    assert [save_png(RED, tmp_path, "a").name for _ in range(2)] == ["a.png", "a-2.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a-2.png"}


def test_a_png_that_says_nothing(tmp_path: Path) -> None:
    texts = read_png(save_png(RED, tmp_path, "a"))
    assert (texts.parameters, texts.record) == (None, None)


def test_a_photo_is_turned_the_right_way_up(tmp_path: Path) -> None:
    photo = Image.new("RGB", (16, 8))
    exif = photo.getexif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    photo.save(tmp_path / "a.jpg", exif=exif)
    assert open_picture(tmp_path / "a.jpg").size == (8, 16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"text", "is not a picture; give a PNG, JPEG or WebP file"),
        (b"", "is not a picture; give a PNG, JPEG or WebP file"),
    ],
)
def test_pictures_that_cannot_be_read(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        open_picture(path)
    assert str(caught.value) == f"{path} {message}"


def test_a_truncated_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = save_png(Image.fromarray(noise), tmp_path, "a")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(RequestError, match=r"a\.png cannot be read: .*truncated"):
        open_picture(path)


def test_a_text_that_unpacks_to_more_than_pillow_takes(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_text("workflow", "x" * 2_000_000, zip=True)
    RED.save(tmp_path / "a.png", pnginfo=texts)
    with pytest.raises(RequestError, match=r"a\.png cannot be read: Decompressed data too large"):
        open_picture(tmp_path / "a.png")


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_png(RED, tmp_path, "a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(RequestError) as caught:
        open_picture(path)
    assert str(caught.value) == f"{path} has too many pixels; give a smaller picture"


def test_folders(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())
    file = save_png(RED, tmp_path, "a")
    with pytest.raises(RequestError) as caught:
        check_folder(file / "deep")
    assert str(caught.value) == f"{file} is a file; give a folder for the pictures"
