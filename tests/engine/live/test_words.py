"""Words that an adapter brings along: textual inversions, compared with diffusers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lorablend.adapters import Blend, BlendItem, Schedule, load_adapter
from lorablend.adapters.errors import BlendError
from lorablend.engine import Pipeline
from lorablend.engine.live.text import split_at_names
from tests.engine import reference
from tests.engine.reference import STEPS

SETTINGS: dict[str, Any] = {"guidance_scale": 4.0}


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    """Two vectors for each text encoder, of its own width."""
    rng = np.random.default_rng(9)
    return {
        name: rng.normal(0, 0.02, (2, width)).astype(np.float32) for name, width in (("clip_l", 32), ("clip_g", 64))
    }


@pytest.fixture(scope="module")
def bundle(lora_dir: Path, vectors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kohya's adapter with the word "inkfox", as LyCORIS and OneTrainer bundle them."""
    tensors = load_file(lora_dir / "kohya.safetensors")
    words = {f"bundle_emb.inkfox.{name}": array for name, array in vectors.items()}
    path = tmp_path_factory.mktemp("words") / "bundle.safetensors"
    save_file(tensors | words, path)
    return path


@pytest.fixture(scope="module")
def diffusers_with_the_word(sdxl_source: Path, vectors: dict[str, np.ndarray]) -> Any:
    import torch

    pipeline = reference.load(sdxl_source)
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        pipeline.load_textual_inversion(
            {"inkfox": torch.from_numpy(vectors[name])},
            token="inkfox",
            tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
            text_encoder=getattr(pipeline, f"text_encoder{suffix}"),
        )
    return pipeline


@pytest.mark.parametrize("prompt", ["a inkfox in snow", "<inkfox>, a cat", "a cat, embedding:inkfox", "InkFox"])
def test_same_as_textual_inversion(
    prompt: str, pipeline: Pipeline, diffusers_with_the_word: Any, lora_dir: Path, bundle: Path, latents: np.ndarray
) -> None:
    plain = prompt.replace("<inkfox>", "inkfox").replace("embedding:inkfox", "inkfox").replace("InkFox", "inkfox")
    files = [(lora_dir / "kohya.safetensors", 0.8)]
    expected = reference.draw(diffusers_with_the_word, files, latents, steps=STEPS, prompt=plain, **SETTINGS)
    result = pipeline.generate(prompt, blend=[(bundle, 0.8)], latents=latents, steps=STEPS, seed=0, **SETTINGS)
    assert reference.levels_apart(np.array(result.images[0]), expected) <= 1


def test_two_adapters_with_the_same_word(pipeline: Pipeline, bundle: Path, vectors: dict[str, np.ndarray]) -> None:
    other = bundle.with_name("other.safetensors")
    save_file({f"bundle_emb.InkFox.{name}": array + 1 for name, array in vectors.items()}, other)
    with pytest.raises(BlendError) as caught:
        pipeline.generate("a fox", blend=[(bundle, 1), (other, 1)], steps=1)
    assert str(caught.value) == (
        'bundle and other both bring the word "InkFox"; leave one of them out, or set its weight for the text encoders '
        "to 0"
    )
    pipeline.generate("a fox", blend=[(bundle, 1), {"adapter": other, "text_encoder": 0}, (bundle, 0.5)], steps=1)


def test_a_prompt_of_two_chunks_without_them(make_pipeline: Callable[..., Pipeline], bundle: Path) -> None:
    """Two vectors fit where six letters do not; in the first step the word is spelled in letters."""
    late = Blend((BlendItem(load_adapter(bundle), schedule=Schedule(start=2)),))
    pipeline = make_pipeline()
    prompt = "cat " * 72 + "inkfox"
    pictures = [
        np.array(pipeline.generate(prompt, blend=blend, steps=2, seed=1, guidance_scale=1).images[0])
        for blend in (late, [(bundle, 1)], [])
    ]
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_words_cannot_be_baked(make_pipeline: Callable[..., Pipeline], bundle: Path) -> None:
    with pytest.raises(BlendError) as caught:
        make_pipeline(runtime="genai").generate("a fox", blend=[(bundle, 1)], steps=1)
    assert str(caught.value) == ("bundle brings words of its own (inkfox), which weights cannot hold; use runtime=live")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("a fox", ["a fox"]),
        ("ink", [1]),
        ("a ink fox", ["a ", 1, " fox"]),
        ("inky ink_ think", ["inky ink_ think"]),
        ("<ink>,Ink-fox", [1, ",", 2]),
        ("embedding:ink-fox embedding:fox", [2, " embedding:fox"]),
        ("an ınk", ["an ", 1]),  # dotless: re.IGNORECASE takes it for an i
    ],
)
def test_names_are_whole_words(text: str, parts: list[Any]) -> None:
    assert split_at_names(text, {"ink": 1, "ink-fox": 2}) == parts
