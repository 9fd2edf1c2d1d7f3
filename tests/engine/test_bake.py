"""Baked folders: the right numbers where the blend changes them, the same bytes everywhere else."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino_genai
import pytest

from lorablend.adapters import Blend, load_adapter, resolve_blend
from lorablend.adapters.errors import AdapterError, BaseModelError, BlendError, ModelError, ResourceError
from lorablend.engine import bake as bake_module
from lorablend.engine.bake import bake, write_model
from lorablend.engine.graph.ir import Ir
from lorablend.engine.model_folder import ModelFolder
from tests.adapter_files import random_factors, write_kohya
from tests.engine import reference

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
BLEND = [("kohya", 0.7), ("peft", -0.4), ("kohya_text", 0.3)]


@pytest.fixture(scope="module")
def blend(lora_dir: Path) -> Blend:
    return resolve_blend(BLEND, lora_dir)


@pytest.fixture(scope="module")
def peft_weights(sdxl_source: Path, lora_dir: Path) -> dict[tuple[str, str], np.ndarray]:
    """Every weight that BLEND changes, as PEFT merges it, f32."""
    from peft.tuners.lora import LoraLayer

    pipeline = reference.load(sdxl_source)
    for name, _ in BLEND:
        pipeline.load_lora_weights(lora_dir, weight_name=f"{name}.safetensors", adapter_name=name)
    pipeline.set_adapters([name for name, _ in BLEND], [weight for _, weight in BLEND])
    weights = {}
    for component in COMPONENTS:
        for path, layer in getattr(pipeline, component).named_modules():
            if isinstance(layer, LoraLayer):
                layer.merge()  # pyright: ignore[reportCallIssue]
                key = path if component == "unet" or path.startswith("text_") else f"text_model.{path}"
                weights[component, key] = layer.get_base_layer().weight.detach().numpy()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return weights


def _draw(folder: Path) -> np.ndarray:
    """A picture by plain openvino_genai."""
    pipeline = openvino_genai.Text2ImagePipeline(folder, "CPU", INFERENCE_PRECISION_HINT="f32")
    return np.array(pipeline.generate("a fox", num_inference_steps=2, rng_seed=1, width=64, height=64).data)


@pytest.fixture(scope="module")
def bare(sdxl_model: Path) -> np.ndarray:
    return _draw(sdxl_model)


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _touched(ir: Ir, paths: list[str]) -> np.ndarray:
    """For each byte of the .bin, whether it belongs to a weight of `paths`."""
    mask = np.zeros(ir.xml.with_suffix(".bin").stat().st_size, bool)
    for path in paths:
        weight = ir.weight(f"{path}.weight")
        for constant in (weight.values, weight.scale, weight.zero_point):
            if constant is not None:
                mask[constant.offset : constant.offset + constant.size] = True
    return mask


@pytest.mark.parametrize("form", ["fp32", "fp16", "int8_sym", "int8_asym"])
def test_bake(
    form: str,
    sdxl_forms: dict[str, Path],
    blend: Blend,
    peft_weights: dict[tuple[str, str], np.ndarray],
    bare: np.ndarray,
    tmp_path: Path,
) -> None:
    source, out = sdxl_forms[form], tmp_path / "baked"
    bake(source, blend, out)

    # The networks' .xml and all other files are unchanged.
    before, after = _bytes(source), _bytes(out)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {f"{name}/openvino_model.bin" for name in COMPONENTS} | {"lorablend.json"}
    assert before.keys() | {"lorablend.json"} == after.keys()

    for component in COMPONENTS:
        ir, baked = (Ir(folder / component / "openvino_model.xml") for folder in (source, out))
        paths = sorted(path for name, path in peft_weights if name == component)
        assert set(paths) == {path for item in blend for name, path in item.adapter.deltas if name == component}
        old, new = (np.fromfile(i.xml.with_suffix(".bin"), np.uint8) for i in (ir, baked))
        assert not (old != new)[~_touched(ir, paths)].any(), "bytes outside the touched weights changed"
        for path in paths:
            kind = "plain" if form.startswith("fp") or path.startswith("up_blocks") else form
            assert ir.weight(f"{path}.weight").kind == kind
            expected = peft_weights[component, path]
            step = 1 / 64 if kind != "plain" else 2**-10 if form == "fp16" else 0
            np.testing.assert_allclose(
                baked.read(f"{path}.weight"), expected, rtol=1e-5, atol=1e-6 + step * float(np.abs(expected).max())
            )
    pixels = _draw(out)
    assert pixels.shape == (1, 64, 64, 3)
    assert reference.levels_apart(pixels, bare) > 5, "the blend must show"


def test_sum_is_taken_from_the_original_weight(sdxl_forms: dict[str, Path], blend: Blend, tmp_path: Path) -> None:
    """The sum is f32 and rounded once, bit by bit the same as numpy's."""
    bake(sdxl_forms["fp16"], blend, tmp_path / "baked")
    source, baked = (Ir(folder / "unet" / "openvino_model.xml") for folder in (sdxl_forms["fp16"], tmp_path / "baked"))
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = source.read(f"{path}.weight")
    expected = weight.copy()
    for item in blend:
        expected += np.float32(item.weight) * item.adapter.deltas["unet", path].dense(weight)
    np.testing.assert_array_equal(baked.read(f"{path}.weight"), expected.astype(np.float16).astype(np.float32))


def test_pointwise_convolutions(sd15_model: Path, sd15_source: Path, tmp_path: Path) -> None:
    file = reference.save_adapter(
        sd15_source, tmp_path / "one.safetensors", seed=4, rank=4, alpha=2, kohya=True, text=True
    )
    bake(sd15_model, [(file, 0.5)], tmp_path / "baked")
    adapter, path = load_adapter(file), "down_blocks.0.attentions.0.proj_in"
    source, baked = (Ir(folder / "unet" / "openvino_model.xml") for folder in (sd15_model, tmp_path / "baked"))
    factors = adapter.deltas["unet", path].factors()
    assert factors is not None
    delta = 0.5 * (factors[1] @ factors[0])[..., None, None]
    assert baked.read(f"{path}.weight").ndim == 4
    np.testing.assert_allclose(baked.read(f"{path}.weight"), source.read(f"{path}.weight") + delta, atol=1e-6)
    assert _draw(tmp_path / "baked").shape == (1, 64, 64, 3)


@pytest.mark.parametrize("entries", [[], [("kohya", 0.0), ("peft", 0)]])
def test_nothing_to_add_changes_no_byte(
    sdxl_forms: dict[str, Path], lora_dir: Path, tmp_path: Path, entries: list[tuple[str, float]]
) -> None:
    bake(sdxl_forms["int8_sym"], entries, tmp_path / "baked", lora_dir=lora_dir)
    after = _bytes(tmp_path / "baked")
    record = json.loads(after.pop("lorablend.json"))
    before = _bytes(sdxl_forms["int8_sym"])
    before.pop("lorablend.json", None)
    assert after == before
    assert [(item["name"], item["weight"]) for item in record["blend"]] == entries


def test_record(sdxl_model: Path, blend: Blend, tmp_path: Path) -> None:
    """The source's own record is kept, and a second bake adds to the first."""
    source = tmp_path / "source"
    shutil.copytree(sdxl_model, source)
    (source / "lorablend.json").write_text('{"source": "sdxl", "weights": "fp32"}')
    bake(source, blend, tmp_path / "one")
    bake(tmp_path / "one", [(blend.items[0].adapter, 1)], tmp_path / "two")
    record = json.loads((tmp_path / "two" / "lorablend.json").read_text())
    assert (record["source"], record["weights"]) == ("sdxl", "fp32")
    assert [(item["name"], item["weight"]) for item in record["blend"]] == [*BLEND, ("kohya", 1.0)]
    assert record["blend"][0]["sha256"] == blend.items[0].adapter.sha256
    assert ModelFolder(tmp_path / "two").family == "sdxl"


def test_a_broken_record(sdxl_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(sdxl_model, source)
    (source / "lorablend.json").write_text("{")
    message = _refusal(ModelError, lambda: bake(source, [], tmp_path / "out"))
    assert message.startswith(f"{source / 'lorablend.json'} is not valid JSON: ")
    assert not (tmp_path / "out").exists()


def test_copies_stand_alone_and_links_save_space(sdxl_model: Path, blend: Blend, tmp_path: Path) -> None:
    name = "vae_decoder/openvino_model.bin"
    bake(sdxl_model, blend, tmp_path / "copy")
    assert (tmp_path / "copy" / name).stat().st_nlink == 1
    model = ModelFolder(sdxl_model)
    write_model(model, {}, tmp_path / "link", Blend(), link=True)
    assert (tmp_path / "link" / name).samefile(sdxl_model / name)
    assert _bytes(tmp_path / "link").keys() == _bytes(tmp_path / "copy").keys()


def test_an_empty_folder_is_taken(sdxl_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    bake(sdxl_model, [], tmp_path / "out")
    assert ModelFolder(tmp_path / "out").family == "sdxl"


def _refusal(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


def test_refuses_folders(sdxl_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    message = f"{out} exists and is not empty; give a new folder"
    assert _refusal(ModelError, lambda: bake(sdxl_model, [], out)) == message
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "mine.txt"]
    inside = sdxl_model / "unet" / "baked"
    message = f"{inside} is inside the model's own folder {sdxl_model}; give a folder outside it"
    assert _refusal(ModelError, lambda: bake(sdxl_model, [], inside)) == message
    assert not inside.exists()


def test_refuses_adapters(sdxl_model: Path, tmp_path: Path) -> None:
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    wide = write_kohya(tmp_path / "wide.safetensors", random_factors({("unet", path): (1280, 1280)}))
    message = f"wide changes unet {path} of shape 1280×1280, the model's is 128×128"
    shape_error = _refusal(AdapterError, lambda: bake(sdxl_model, [(wide, 1)], tmp_path / "out"))
    assert shape_error == f"{message}; choose an adapter made for this model"
    sd15 = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    old = write_kohya(tmp_path / "old.safetensors", random_factors({sd15: (320, 768)}), base="sd15")
    assert _refusal(BaseModelError, lambda: bake(sdxl_model, [(old, 1)], tmp_path / "out")) == (
        "old is for sd15, the model is sdxl; choose an adapter for sdxl"
    )
    _refusal(BlendError, lambda: bake(sdxl_model, [("nobody", 1)], tmp_path / "out", lora_dir=tmp_path))
    assert not (tmp_path / "out").exists()


def test_disk_full(sdxl_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 5000, 5000)
    monkeypatch.setattr(bake_module.shutil, "disk_usage", lambda _: usage)
    message = _refusal(ResourceError, lambda: bake(sdxl_model, [], tmp_path / "deep" / "out"))
    assert message == f"{tmp_path / 'deep' / 'out'} needs 0.1 GB, but 0.0 GB is free; free some or choose another disk"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted(
    sdxl_model: Path, blend: Blend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """An interruption in the second network leaves nothing behind."""
    rewrite, calls = bake_module.rewrite_weights, []

    def fail(*args: Any) -> None:
        rewrite(*args)
        calls.append(args)
        if len(calls) == 2:
            raise error

    monkeypatch.setattr(bake_module, "rewrite_weights", fail)
    with pytest.raises((KeyboardInterrupt, ResourceError)) as caught:
        bake(sdxl_model, blend, tmp_path / "out")
    if isinstance(error, OSError):
        assert str(caught.value) == f"{tmp_path / 'out'} could not be written: No space left on device"
    assert list(tmp_path.iterdir()) == []
