"""Words of its own that an adapter brings along: textual inversions beside diffusers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lorablend.adapters.errors import BlendError
from lorablend.engine import Pipeline
from lorablend.engine.text import split_at_names
from tests.engine import reference
from tests.engine.conftest import STEPS

SETTINGS: dict[str, Any] = {"guidance_scale": 4.0}


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    """Two vectors for each text encoder, of the size of its own."""
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


@pytest.mark.parametrize("prompt", ["a inkfox in snow", "<inkfox>, a cat", "a cat, embedding:inkfox", "InkFox"])
def test_beside_textual_inversion(
    prompt: str,
    make_pipeline: Callable[..., Pipeline],
    sdxl_source: Path,
    bundle: Path,
    vectors: dict[str, np.ndarray],
    latents: np.ndarray,
) -> None:
    import torch

    theirs = reference.load(sdxl_source)
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        theirs.load_textual_inversion(
            {"inkfox": torch.from_numpy(vectors[name])},
            token="inkfox",
            tokenizer=getattr(theirs, f"tokenizer{suffix}"),
            text_encoder=getattr(theirs, f"text_encoder{suffix}"),
        )
    plain = prompt.replace("<inkfox>", "inkfox").replace("embedding:inkfox", "inkfox").replace("InkFox", "inkfox")
    expected = reference.draw(
        theirs, [(bundle.with_name("kohya.safetensors"), 0.8)], latents, steps=STEPS, prompt=plain, **SETTINGS
    )
    result = make_pipeline().generate(prompt, blend=[(bundle, 0.8)], latents=latents, steps=STEPS, seed=0, **SETTINGS)
    assert reference.levels_apart(np.array(result.images[0]), expected) <= 1


@pytest.fixture(scope="module", autouse=True)
def _without_words(bundle: Path, lora_dir: Path) -> None:
    (bundle.with_name("kohya.safetensors")).write_bytes((lora_dir / "kohya.safetensors").read_bytes())


def test_baked_they_are_refused(make_pipeline: Callable[..., Pipeline], bundle: Path) -> None:
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
    ],
)
def test_names_are_whole_words(text: str, parts: list[Any]) -> None:
    assert split_at_names(text, {"ink": 1, "ink-fox": 2}) == parts
