"""Rare letters, special tokens and "!" draw the picture that diffusers draws from CLIP's own tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from lorablend.demo.tokenizer import clip_tokenizer
from lorablend.engine import ModelFolder, Pipeline
from lorablend.engine.bake import bake
from tests.engine import reference
from tests.engine.reference import levels_apart
from tests.pipelines import MERGES

PROMPTS = [
    "İstanbul, the fox",
    "ΟΔΥΣΣΕΥΣ, Οδυσσεύς: a cat",
    "ſtraße µ ﬁ Ꭰ ǅ",
    "it's the cat's fox, IT'S",
    "a\x00 cat\x07 \u180e fox\x00",
    "a cat <|endoftext|> a fox <|startoftext|>",
    "ấ, a\u0323\u0302, q\u0323\u0307\u0323, \u0344, 한국",
    "a cat! a fox!!",
]


def exact_pipeline(source: Path) -> Any:
    """diffusers with ordinary padding tokens: "!" pads SDXL's second text, and is a word in it all the same."""
    second = clip_tokenizer(MERGES)
    second.pad_token = "!"
    return reference.load(source, tokenizer=clip_tokenizer(MERGES), tokenizer_2=second)


@pytest.fixture(scope="module")
def diffusers_sdxl(sdxl_source: Path) -> Any:
    return exact_pipeline(sdxl_source)


@pytest.fixture(scope="module")
def optimums(sdxl_model: Path, sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with the tokenizers that Optimum Intel writes."""
    from optimum.exporters.openvino.convert import export_tokenizer
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("optimums") / "model"
    shutil.copytree(sdxl_model, folder)
    for name in ("tokenizer", "tokenizer_2"):
        export_tokenizer(AutoTokenizer.from_pretrained(sdxl_source / name), folder / name)
    assert not any(tokenizer.exact for tokenizer in ModelFolder(folder).tokenizers.values())
    return folder


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_live(prompt: str, pipeline: Pipeline, diffusers_sdxl: Any, latents: np.ndarray) -> None:
    """At most one 8-bit level apart, see test_parity."""
    settings: dict[str, Any] = {"steps": 2, "guidance_scale": 5.0, "negative_prompt": PROMPTS[0]}
    expected = reference.draw(diffusers_sdxl, [], latents, prompt=prompt, **settings)
    actual = pipeline.generate(prompt, latents=latents, **settings).images[0]
    assert levels_apart(np.array(actual), expected) <= 1


def test_transformers_takes_a_padding_token_for_a_special_one(
    pipeline: Pipeline, sdxl_source: Path, latents: np.ndarray
) -> None:
    """diffusers with a folder's own second tokenizer draws another picture for "!": parity ends there, on purpose."""
    prompt = PROMPTS[-1]
    expected = reference.draw(reference.load(sdxl_source), [], latents, steps=2, prompt=prompt)
    actual = pipeline.generate(prompt, latents=latents, steps=2).images[0]
    assert levels_apart(np.array(actual), expected) > 1


@pytest.mark.parametrize("runtime", ["live", "genai"])
def test_a_folder_of_optimums(
    runtime: str, optimums: Path, make_pipeline: Callable[..., Pipeline], pipeline: Pipeline
) -> None:
    """The same pictures as from our own folder; GenAI truncates where live rounds, see test_genai."""
    other = make_pipeline(optimums, runtime=runtime)
    for prompt in PROMPTS:
        pictures = [np.array(p.generate(prompt, steps=2, seed=3).images[0]) for p in (other, pipeline)]
        assert levels_apart(*pictures) <= (0 if runtime == "live" else 1), ascii(prompt)


def test_bake(optimums: Path, tmp_path: Path) -> None:
    bake(optimums, [], tmp_path / "baked")
    for name, pad_token in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        folder = tmp_path / "baked" / name
        graph = ov.compile_model(folder / "openvino_tokenizer.xml", "CPU")
        expected = clip_tokenizer(MERGES)(PROMPTS)["input_ids"]
        # NumPy takes a NUL from the end of a text.
        assert [graph([text])["input_ids"][0].tolist() for text in PROMPTS if "\0" not in text] == [
            ids for text, ids in zip(PROMPTS, expected, strict=True) if "\0" not in text
        ]
        tokenizer = ModelFolder(tmp_path / "baked").tokenizers[name]
        assert tokenizer.exact
        assert tokenizer.pad_token_id == clip_tokenizer(MERGES).convert_tokens_to_ids(pad_token)
    assert (optimums / "tokenizer" / "openvino_tokenizer.xml").read_bytes() != (
        tmp_path / "baked" / "tokenizer" / "openvino_tokenizer.xml"
    ).read_bytes()
