"""What a refusal of the tools for adapter files tells the user to do works for the file that got it."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.app.cli.commands import run
from lorablend.engine.model_weights import model_weights
from lorablend.shipped import model_dir
from tests.adapter_files import Stored, write_tensors
from tests.adapters.algorithms.deltas import normal

PATH = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
NORM = "lora_unet_down_blocks_1_attentions_0_norm"
KEY = f"lora_unet_{PATH.replace('.', '_')}"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


def files() -> dict[str, dict[str, np.ndarray]]:
    """Adapters that fit the demo model, by what is special about them."""
    weight = model_weights(model_dir())("unet", PATH)
    assert weight is not None
    out, inputs = weight.shape
    lora = {f"{KEY}.lora_down.weight": normal(4, inputs), f"{KEY}.lora_up.weight": normal(out, 4)}
    words = {"bundle_emb.ink.clip_l": normal(2, 96), "bundle_emb.ink.clip_g": normal(2, 96)}
    loha = {f"{KEY}.hada_w{n}_a": normal(out, 2, seed=n) for n in (1, 2)}
    loha |= {f"{KEY}.hada_w{n}_b": normal(2, inputs, seed=n) for n in (1, 2)}
    ia3 = {f"unet.{PATH}.ia3_l": normal(out, 1)}
    oft = {f"unet.{PATH}.oft_R.weight": 0.1 * normal(inputs // 8, 28)}
    dora = {**lora, f"{KEY}.dora_scale": np.abs(normal(1, inputs)) + 1}
    text = {f"{TEXT}.hada_w{n}_a": normal(32, 2, seed=n) for n in (1, 2)}
    text |= {f"{TEXT}.hada_w{n}_b": normal(2, 32, seed=n) for n in (1, 2)}
    return {
        "lora": lora,
        "words": lora | words,
        "loha": loha,
        "loha and words": loha | words,
        "ia3": ia3,
        "ia3 and words": ia3 | words,
        "oft": oft,
        "dora of inputs": dora,
        "dora of inputs and words": dora | words,
        "a bias": lora | {f"{KEY}.diff_b": normal(out)},
        "a bias and words": lora | words | {f"{KEY}.diff_b": normal(out)},
        "a norm": lora | {f"{NORM}.w_norm": normal(128)},
        "loha of a text encoder that is of either model": text,
        "the same and words": text | {"bundle_emb.ink.clip_l": normal(2, 32)},
    }


COMMANDS = {
    "kohya": "convert {file} --to kohya --out {out}",
    "diffusers": "convert {file} --to diffusers --out {out}",
    "resize": "resize {file} --rank 2 --out {out}",
    "resize diffusers": "resize {file} --rank 2 --names diffusers --out {out}",
    "merge": "merge {file}:1 --out {out}",
    "merge diffusers": "merge {file}:1 --names diffusers --out {out}",
    "concat": "merge {file}:1 --method concat --out {out}",
}


def followed(command: str, message: str) -> str | None:
    """The command that a refusal asks for; None if it says that no tool can do it."""
    if (hint := message.rpartition("go on with: lorablend adapters ")[2]) != message:
        return hint.replace("MODEL", "demo")
    if "has no factors" in message:
        return command.replace(" --method concat", "") + " --model demo"
    if message.endswith(" and give the model"):
        command, message = f"{command} --model demo", message.removesuffix(" and give the model")
    for words, old, new in (("kohya", "diffusers", "kohya"), ("diffusers", "kohya", "diffusers")):
        if message.endswith(f"use {words}'{'s' * (words == 'kohya')} names"):
            changed = command.replace(f"--to {old}", f"--to {new}").replace(f"--names {old}", f"--names {new}")
            return changed if changed != command or "convert" in command else f"{command} --names {new}"
    assert message.endswith("; blend or bake it as it is"), message
    return None


@pytest.mark.parametrize("kind", files())
def test_every_hint_works(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    stored: dict[str, Stored] = {name: ("F32", np.asarray(array, np.float32)) for name, array in files()[kind].items()}
    file = write_tensors(tmp_path / "a b.safetensors", stored)
    for number, command in enumerate(COMMANDS.values()):
        asked = command.format(file=shlex.quote(str(file)), out=tmp_path / f"{number}.safetensors")
        status = run(["adapters", *shlex.split(asked)])
        if status:
            message = capsys.readouterr().err.strip().splitlines()[-1]
            hint = followed(asked, message)
            if hint is not None:
                (tmp_path / "a b-lora.safetensors").unlink(missing_ok=True)
                assert run(["adapters", *shlex.split(hint)]) == 0, (message, hint, capsys.readouterr().err)
    words = {name for name in stored if name.startswith("bundle_emb.")}
    for written in tmp_path.glob("*.safetensors"):
        names = set(load_adapter(written).file.tensors)
        assert words <= names or any("lora_A" in name for name in names), written


def test_merged_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same word twice is one; two different ones of a name do not fit into one file."""
    made = files()
    for name, change in {"a": {}, "b": {}, "c": {"bundle_emb.ink.clip_l": normal(2, 96, seed=9)}}.items():
        tensors = made["words"] | change
        write_tensors(tmp_path / f"{name}.safetensors", {key: ("F32", value) for key, value in tensors.items()})
    a, b, c = (str(tmp_path / f"{name}.safetensors") for name in "abc")
    assert run(["adapters", "merge", a, b, "--out", str(tmp_path / "ab.safetensors")]) == 0
    merged = load_adapter(tmp_path / "ab.safetensors")
    np.testing.assert_array_equal(merged.embeddings["ink"]["text_encoder"], made["words"]["bundle_emb.ink.clip_l"])
    assert run(["adapters", "merge", a, f"{c}:0", "--out", str(tmp_path / "ac.safetensors")]) == 0
    capsys.readouterr()
    assert run(["adapters", "merge", a, c, "--out", str(tmp_path / "no.safetensors")]) == 1
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("a and c have different tensors bundle_emb.ink.clip_l; a file can have only one: blend them instead")
    )
