"""Real exports of the small pipelines, and exports that cannot start or are stopped."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from lorablend.adapters.errors import (
    Cancelled,
    InputError,
    LorablendError,
    MissingExtraError,
    ModelError,
    ResourceError,
)
from lorablend.convert import conversion, convert, extras, require_extra
from lorablend.convert.extras import install_hint
from lorablend.engine import ModelFolder
from tests.convert.checkpoints import copy_without, write_checkpoint
from tests.pipelines import HUB_ID, HUB_REVISION

SDXL_NETWORKS = ("unet", "text_encoder", "text_encoder_2", "vae_encoder", "vae_decoder")
SD15_NETWORKS = ("unet", "text_encoder", "vae_encoder", "vae_decoder")
SCRIPT = """
import sys
from lorablend.convert import convert
convert(sys.argv[1], sys.argv[2], progress=lambda *args: print(*args, flush=True))
"""


def refusal(kind: type[LorablendError], *args: Any, **options: Any) -> str:
    with pytest.raises(kind) as error:
        convert(*args, **options)
    return str(error.value)


def constants(model: Path, network: str) -> dict[str, int]:
    """The number of values of each type in a network's weights."""
    import openvino

    count: dict[str, int] = {}
    for node in openvino.Core().read_model(model / network / "openvino_model.xml").get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_element_type().get_type_name()
            size = 1
            for length in node.get_output_shape(0):
                size *= length
            count[kind] = count.get(kind, 0) + size
    return count


def named_weights(model: Path, network: str) -> dict[str, np.ndarray]:
    """The constants that have a parameter's name."""
    import openvino

    nodes = openvino.Core().read_model(model / network / "openvino_model.xml").get_ops()
    weights = [node for node in nodes if node.get_type_name() == "Constant" and "weight" in node.get_friendly_name()]
    assert len(weights) > 10
    return {node.get_friendly_name().removesuffix("_compressed"): node.get_data() for node in weights}


def layer_names(model: Path, network: str) -> list[str]:
    import openvino

    nodes = openvino.Core().read_model(model / network / "openvino_model.xml").get_ops()
    return [node.get_friendly_name() for node in nodes if node.get_type_name() in ("MatMul", "Convolution")]


def assert_genai_draws(model: Path) -> None:
    import openvino_genai

    pipeline = openvino_genai.Text2ImagePipeline(model, "CPU")
    picture = pipeline.generate("a fox", width=64, height=64, num_inference_steps=2).data
    assert picture.shape == (1, 64, 64, 3)
    assert picture.std() > 20


def same_bytes(folder: Path, other: Path, file: str) -> bool:
    # Not in the assert itself, for pytest would take an hour to show how megabytes differ.
    return (folder / file).read_bytes() == (other / file).read_bytes()


def without_numbers(xml: str) -> str:
    """Unnamed nodes get consecutive numbers, which depend on what the process has made before."""
    return re.sub(r'name="([A-Za-z]+?)_?\d+"', r'name="\1"', xml)


def assert_same_weights(model: Path, other: Path, networks: tuple[str, ...]) -> None:
    for network in networks:
        assert same_bytes(model, other, f"{network}/openvino_model.bin"), network


# What is written


@pytest.mark.slow
@pytest.mark.parametrize("fixture", ["sdxl_model", "sdxl_fp16", "sdxl_int8", "sd15_model"])
def test_genai_draws(fixture: str, request: pytest.FixtureRequest) -> None:
    assert_genai_draws(request.getfixturevalue(fixture))


@pytest.mark.slow
def test_files_are_optimums(sdxl_model: Path, sdxl_source: Path, tmp_path: Path) -> None:
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    main_export(
        str(sdxl_source),
        tmp_path,
        "text-to-image",
        ov_config=OVConfig(dtype="fp32"),
        convert_tokenizer=True,
        stateful=False,
    )
    ours = {file.relative_to(sdxl_model) for file in sdxl_model.rglob("*") if file.is_file()}
    theirs = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    assert ours - theirs == {Path("lorablend.json")}
    assert theirs - ours == set()
    for network in SDXL_NETWORKS:
        assert same_bytes(sdxl_model, tmp_path, f"{network}/openvino_model.bin"), network
        xml, expected = ((folder / network / "openvino_model.xml").read_text() for folder in (sdxl_model, tmp_path))
        same = without_numbers(xml) == without_numbers(expected)
        assert same, network
    for file in [file for file in ours & theirs if file.suffix == ".json"]:
        expected = json.loads((tmp_path / file).read_text())
        expected.pop("_name_or_path", None)
        assert json.loads((sdxl_model / file).read_text()) == expected, file
    # All but the tokenizers' graphs, see tests/engine/test_tokens.py.
    assert all(tokenizer.exact for tokenizer in ModelFolder(sdxl_model).tokenizers.values())
    assert not any(tokenizer.exact for tokenizer in ModelFolder(tmp_path).tokenizers.values())


@pytest.mark.slow
def test_types_of_weights(sdxl_model: Path, sdxl_fp16: Path, sdxl_int8: Path) -> None:
    for network in SDXL_NETWORKS:
        numbers = constants(sdxl_model, network)["f32"]
        assert "f16" not in constants(sdxl_model, network)
        fp16, int8 = constants(sdxl_fp16, network), constants(sdxl_int8, network)
        assert fp16["f16"] > 0.99 * numbers
        assert fp16.get("f32", 0) < 0.01 * numbers
        assert int8["i8"] > 0.85 * numbers
        assert int8.get("f32", 0) < 0.01 * numbers


@pytest.mark.slow
def test_names_of_layers_do_not_depend_on_the_type(sdxl_model: Path, sdxl_fp16: Path, sdxl_int8: Path) -> None:
    assert "__module.model.mid_block.attentions.0.transformer_blocks.1.attn2.to_k/aten::linear/MatMul" in layer_names(
        sdxl_model, "unet"
    )
    for network in SDXL_NETWORKS:
        names = layer_names(sdxl_model, network)
        assert sorted(layer_names(sdxl_fp16, network)) == sorted(names)
        assert sorted(layer_names(sdxl_int8, network)) == sorted(names)


@pytest.mark.slow
def test_record(sdxl_source: Path, sdxl_fp16: Path) -> None:
    record = json.loads((sdxl_fp16 / "lorablend.json").read_text())
    assert record["source"] == sdxl_source.name
    assert record["revision"] is None
    assert record["weights"] == "fp16"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["date"])
    assert {"lorablend", "openvino", "optimum-intel", "nncf", "torch", "diffusers"} <= set(record["versions"])
    assert list(record["peak_memory_bytes"]) == ["text_encoder", "text_encoder_2", "unet", "vae", "tokenizer"]
    assert min(record["peak_memory_bytes"].values()) > 100e6


@pytest.mark.slow
def test_no_path_of_this_machine(sdxl_source: Path, sdxl_fp16: Path) -> None:
    for file in sdxl_fp16.rglob("*"):
        if file.suffix in (".json", ".xml"):
            assert str(sdxl_source.parent) not in file.read_text(encoding="utf-8"), file


@pytest.mark.slow
def test_scheduler_is_carried_over(sdxl_source: Path, sdxl_fp16: Path) -> None:
    file = "scheduler/scheduler_config.json"
    assert json.loads((sdxl_fp16 / file).read_text()) == json.loads((sdxl_source / file).read_text())


# The kinds of source


@pytest.mark.slow
def test_sdxl_checkpoint(sdxl_source: Path, sdxl_fp16: Path, tmp_path: Path) -> None:
    file = write_checkpoint(sdxl_source, tmp_path / "merge.safetensors", extra=("v_pred",))
    config = shutil.copytree(sdxl_source, tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors"))
    stages: list[tuple[str, int, int]] = []
    convert(file, tmp_path / "out", config=config, progress=lambda *stage: stages.append(stage))
    assert stages == [
        ("text_encoder", 0, 5),
        ("text_encoder_2", 1, 5),
        ("unet", 2, 5),
        ("vae", 3, 5),
        ("tokenizer", 4, 5),
        ("done", 5, 5),
    ]
    assert_same_weights(tmp_path / "out", sdxl_fp16, SDXL_NETWORKS)
    assert ModelFolder(tmp_path / "out").scheduler_config["prediction_type"] == "v_prediction"
    assert json.loads((tmp_path / "out" / "lorablend.json").read_text())["source"] == "merge.safetensors"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "merge.safetensors", "out"]


@pytest.mark.slow
def test_sd15_checkpoint(sd15_source: Path, sd15_model: Path, tmp_path: Path) -> None:
    file = write_checkpoint(sd15_source, tmp_path / "merge.safetensors")
    convert(file, tmp_path / "file", config=sd15_source)
    assert_genai_draws(tmp_path / "file")
    for network in SD15_NETWORKS:
        weights, expected = named_weights(tmp_path / "file", network), named_weights(sd15_model, network)
        assert not weights.keys() ^ expected.keys()
        for name, value in weights.items():
            assert np.array_equal(value, expected[name].astype(np.float16)), name


@pytest.mark.slow
def test_hub_id_from_the_cache(sdxl_int8: Path) -> None:
    record = json.loads((sdxl_int8 / "lorablend.json").read_text())
    assert (record["source"], record["revision"], record["weights"]) == (HUB_ID, HUB_REVISION, "int8")


# Refusals before the work


def test_import_is_light() -> None:
    heavy = "{'torch', 'transformers', 'diffusers', 'optimum', 'nncf', 'huggingface_hub'}"
    code = f"import sys, lorablend.convert; assert not {heavy} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_weights(tmp_path: Path) -> None:
    assert (
        refusal(InputError, "a/b", tmp_path / "out", weights="int4")
        == "weights is 'int4'; give one of fp16, int8, fp32"
    )


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    present: Callable[[str], object] = {"torch": 1, "diffusers": 1, "transformers": 1}.get
    monkeypatch.setattr(extras, "find_spec", present)
    with pytest.raises(MissingExtraError) as error:
        require_extra("convert")
    assert str(error.value) == f"convert needs optimum.intel, nncf; {install_hint('convert')}"
    with pytest.raises(MissingExtraError) as error:
        require_extra("train")
    assert str(error.value) == f"train needs optimum.intel, nncf, peft, accelerate, lycoris; {install_hint('train')}"


@pytest.mark.parametrize("name", ["nothing", "./owner/name", "a/b/c", "/nowhere/at/all"])
def test_source_that_is_nothing(tmp_path: Path, name: str) -> None:
    assert refusal(ModelError, name, tmp_path / "out") == (
        f"{name} is not a diffusers folder, .safetensors checkpoint or Hugging Face id; give one of the three"
    )


def test_pickle(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    assert refusal(ModelError, tmp_path / "model.ckpt", tmp_path / "out") == (
        f"{tmp_path / 'model.ckpt'} is not a diffusers folder, .safetensors checkpoint or Hugging Face id; "
        "give one of the three"
    )


def test_config_for_a_folder(sdxl_source: Path, tmp_path: Path) -> None:
    assert refusal(InputError, sdxl_source, tmp_path / "out", config=sdxl_source) == (
        f"config is for a .safetensors checkpoint; {sdxl_source} has its own"
    )


def test_checkpoint_without_config_or_network(
    sd15_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = write_checkpoint(sd15_source, tmp_path / "merge.safetensors")
    assert refusal(ModelError, file, tmp_path / "out") == (
        "merge.safetensors needs a config: stable-diffusion-v1-5/stable-diffusion-v1-5 is not in the local cache and "
        "huggingface.co cannot be reached; connect to the network, or give a diffusers folder as config"
    )


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_output_exists(sdxl_source: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").touch()
    assert refusal(InputError, sdxl_source, out) == f"{out} exists already; give a folder that is new or empty"
    assert out.exists()


def test_little_memory(sdxl_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 512_000_000}))
    message = refusal(ResourceError, sdxl_source, tmp_path / "out")
    assert re.fullmatch(
        rf"{sdxl_source.name}: exporting its unet needs about 1\.\d GB of memory, 0\.5 GB is free; "
        r"close other programs or convert on a larger machine",
        message,
    )


def test_little_disk(sdxl_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion.psutil, "disk_usage", lambda path: type("Usage", (), {"free": 20_000_000}))
    assert refusal(ResourceError, sdxl_source, tmp_path / "new" / "out") == (
        f"{sdxl_source.name}: the converted model needs about 0.1 GB of disk, {tmp_path} has 0.0 GB free; "
        "free up space or give another folder"
    )
    assert list(tmp_path.iterdir()) == []


# Stopped in the middle


def test_output_filled_meanwhile(sdxl_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_other(*args: object) -> tuple[dict[str, int], dict[str, str]]:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "other").touch()
        return {}, {}

    monkeypatch.setattr(conversion, "_run_worker", write_other)
    monkeypatch.setattr(conversion, "ModelFolder", lambda path: None)
    assert refusal(InputError, sdxl_source, tmp_path / "out") == (
        f"{tmp_path / 'out'} was filled by another program meanwhile; give another folder"
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "other"]


def test_missing_tensor(sdxl_source: Path, tmp_path: Path) -> None:
    source = copy_without(sdxl_source, tmp_path / "broken", "conv_out.bias")
    assert refusal(ModelError, source, tmp_path / "out") == (
        "broken: unet could not be exported: its file lacks 1 tensor: conv_out.bias"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_cancelled(sdxl_source: Path, tmp_path: Path) -> None:
    def cancel(stage: str, done: int, total: int) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        convert(sdxl_source, tmp_path / "out", progress=cancel)
    assert list(tmp_path.iterdir()) == []


def test_export_killed_by_the_system(sdxl_source: Path, tmp_path: Path) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        for child in psutil.Process().children():
            if "lorablend.convert.worker" in " ".join(child.cmdline()):
                child.kill()

    message = refusal(ResourceError, sdxl_source, tmp_path / "out", progress=kill)
    assert re.fullmatch(
        rf"{sdxl_source.name}: the system ended the export of text_encoder \(status -9\) at \d\.\d GB "
        "of memory; close other programs or convert on a larger machine",
        message,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_sigterm_leaves_nothing(sdxl_source: Path, tmp_path: Path) -> None:
    process = start(sdxl_source, tmp_path / "out", until="unet")
    (partial,) = tmp_path.iterdir()
    assert (partial / "text_encoder_2" / "openvino_model.xml").exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_sigkill_leaves_a_partial_folder_that_the_next_run_removes(sdxl_source: Path, tmp_path: Path) -> None:
    process = start(sdxl_source, tmp_path / "out", until="text_encoder")
    (worker,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait(20)
    assert not psutil.wait_procs([worker], timeout=20)[1]
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".out.partial-")
    with conversion._partial_folder(tmp_path / "out"):
        assert not partial.exists()
    assert list(tmp_path.iterdir()) == []


def start(source: Path, out: Path, *, until: str) -> subprocess.Popen[str]:
    """A conversion in a separate process, which has just started the stage `until`."""
    command = [sys.executable, "-c", SCRIPT, str(source), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    deadline = time.monotonic() + 120
    while not process.stdout.readline().startswith(f"{until} "):
        assert process.poll() is None
        assert time.monotonic() < deadline
    return process
