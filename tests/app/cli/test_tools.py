"""The command line's tools for adapter files, and the heat map of a comparison."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters import load_adapter
from lorablend.adapters.tools.compare import compare
from lorablend.app.cli.commands import run
from lorablend.app.pictures.heatmap import draw_heatmap
from lorablend.engine.graph.ir import Ir
from lorablend.shipped import adapters_dir, model_dir

Capture = pytest.CaptureFixture[str]
DEMO = sorted(adapters_dir().glob("*.safetensors"))


def test_merge(lora_dir: Path, here: Path, capsys: Capture) -> None:
    files = [f"{lora_dir / 'ink.safetensors'}:0.8", str(lora_dir / "neon glow.safetensors")]
    assert run(["adapters", "merge", *files, "--rank", "5", "--out", "c.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert out == "c.safetensors\n"
    assert err.splitlines()[0] == "0 of 4: text_encoder_2 all"
    assert err.splitlines()[-1].startswith("4 modules, rank 5, f32; error ")
    assert set(load_adapter(here / "c.safetensors").deltas) == set(load_adapter(lora_dir / "ink.safetensors").deltas)
    assert run(["adapters", "merge", *files, "--rank", "5", "--out", "c.safetensors"]) == 1
    assert capsys.readouterr().err == "error: c.safetensors is already there; choose another name or delete it\n"
    settings = ["--method", "dare", "--density", "0.5", "--seed", "3", "--names", "diffusers", "--dtype", "bf16"]
    assert run(["adapters", "merge", *files, *settings, "--out", "d.safetensors"]) == 0
    merged = load_adapter(here / "d.safetensors")
    assert {tensor.dtype for tensor in merged.file.tensors.values()} == {"BF16"}
    assert json.loads(merged.metadata["lorablend.made_by"])["seed"] == 3
    assert run(["adapters", "merge", *files, "--method", "slerp", "--out", "e.safetensors"]) == 1
    assert capsys.readouterr().err.endswith("error: method is slerp; give svd, concat, ties or dare\n")
    tag = f"<lora:{files[1]}:0.5:0.8>"
    assert run(["adapters", "merge", tag, files[1], "--out", "e.safetensors"]) == 1
    refused = f"error: {tag}: a merge takes one weight per file; write FILE:WEIGHT\n"
    assert capsys.readouterr().err == refused


def test_resize(lora_dir: Path, here: Path, capsys: Capture) -> None:
    ink = str(lora_dir / "ink.safetensors")
    assert run(["adapters", "resize", ink, "--rank", "2", "--out", "small.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert out == "small.safetensors\n"
    assert err.startswith("4 modules, rank 2, f32; error ")
    assert run(["adapters", "resize", ink, "--keep", "0.9", "--out", "part.safetensors"]) == 0
    assert {delta.rank for delta in load_adapter(here / "small.safetensors").deltas.values()} == {2}
    assert run(["adapters", "resize", ink, "--out", "no.safetensors"]) == 1
    assert capsys.readouterr().err.endswith("error: neither a rank nor a part to keep; give one of them, or both\n")


def test_extract(sdxl_source: Path, here: Path, capsys: Capture) -> None:
    from safetensors.numpy import load_file, save_file

    (source,) = (sdxl_source / "unet").glob("*.safetensors")
    tensors = load_file(source)
    tensors["conv_out.weight"] += np.float32(1)
    tensors["conv_out.bias"] += np.float32(1)
    (here / "tuned" / "unet").mkdir(parents=True)
    save_file(tensors, here / "tuned" / "unet" / source.name)
    assert run(["adapters", "extract", str(sdxl_source), "tuned", "--rank", "2", "--out", "x.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert out == "x.safetensors\n"
    assert "left out: unet conv_out.bias differs, but is not a layer that a LoRA can change\n" in err
    assert "1 modules, rank 1, f16; error 0.00% on average" in err


def test_convert(lora_dir: Path, here: Path, capsys: Capture) -> None:
    neon = str(lora_dir / "neon glow.safetensors")
    assert run(["adapters", "convert", neon, "--to", "kohya", "--out", "k.safetensors"]) == 0
    assert capsys.readouterr() == ("k.safetensors\n", "8 tensors\n")
    assert "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_out_0.lora_up.weight" in (
        load_adapter(here / "k.safetensors").file.tensors
    )
    assert run(["adapters", "convert", neon, "--to", "a1111", "--out", "no.safetensors"]) == 1
    assert capsys.readouterr().err == "error: naming is a1111; give kohya or diffusers\n"


def test_compare(lora_dir: Path, here: Path, capsys: Capture) -> None:
    files = [str(lora_dir / "ink.safetensors"), str(lora_dir / "neon glow.safetensors")]
    assert run(["adapters", "compare", *files, "--png", "heat.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    comparison = compare([load_adapter(file) for file in files])
    weights = [f"{weight:.2f}" for weight in comparison.weights if weight is not None]
    assert lines[0] == f"A  ink: weight {weights[0]} for equal size"
    assert lines[1] == f"B  neon glow: weight {weights[1]} for equal size"
    assert lines[2].split() == ["component", "block", "modules", "A", "size", "B", "size", "AB", "cosine"]
    assert lines[-2].split()[0] == "total"
    assert lines[-2].split()[-1] == f"{comparison.total.cosines[0, 1]:+.3f}"
    assert lines[-1] == "heat.png"
    assert run(["adapters", "compare", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == comparison.to_json()
    assert run(["adapters", "compare", *files, "--png", "heat.png"]) == 1
    assert capsys.readouterr().err == "error: heat.png is already there; choose another name or delete it\n"


def test_compare_with_a_model(here: Path, capsys: Capture) -> None:
    files = [str(file) for file in DEMO]
    assert run(["adapters", "compare", *files, "--model", "demo", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["relative"]
    assert report["left_out"] == []
    adapter = load_adapter(files[0])
    squares = 0.0
    for component in ("unet", "text_encoder", "text_encoder_2"):
        ir = Ir(model_dir() / component / "openvino_model.xml")
        changed = {path for file in files for name, path in load_adapter(file).deltas if name == component}
        squares += sum(float(np.square(np.float64(ir.read(f"{path}.weight"))).sum()) for path in changed)
    factors = [factors for delta in adapter.deltas.values() if (factors := delta.factors())]
    change = sum(float(np.square(np.float64(up) @ down.reshape(len(down), -1)).sum()) for down, up in factors)
    assert report["total"]["norms"][0] == pytest.approx(np.sqrt(change / squares), rel=1e-5)


def test_the_heat_map(tmp_path: Path) -> None:
    """The picture has a cell for every number: dark for the largest size, red for two equal adapters."""
    adapters = [load_adapter(DEMO[0]), load_adapter(DEMO[0]), load_adapter(DEMO[1])]
    draw_heatmap(compare(adapters), tmp_path / "heat.png")
    with Image.open(tmp_path / "heat.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert picture.format == "PNG"
    counts = {colour: int((pixels == colour).all(axis=1).sum()) for colour in ((178, 24, 43), (8, 48, 107))}
    assert all(count > 400 for count in counts.values()), counts  # most of at least one cell
    draw_heatmap(compare(adapters[:1]), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from lorablend.app.cli.commands import run; run(['adapters', 'merge', '--help']);"
        "print(sorted({'openvino', 'torch', 'PIL', 'gradio'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"
