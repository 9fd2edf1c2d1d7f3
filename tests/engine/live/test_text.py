"""What the text encoders get to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import openvino_tokenizers  # noqa: F401 - its operations are in the tokenizers
import pytest

PLAIN = 256  # `!` at the end of a word
PADDING = 0  # what SDXL's second tokenizer pads with, which is `!` inside of one


@pytest.mark.parametrize("prompt", ["a fox!", "!", "a fox, ! and a hen"])
def test_an_exclamation_mark_is_no_padding(prompt: str, sdxl_model: Path, sdxl_source: Path) -> None:
    """As in the original code, ComfyUI and A1111; transformers takes it for padding, so that diffusers differs."""
    from transformers import CLIPTokenizer

    seen: list[list[int]] = []
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = ov.Core().compile_model(sdxl_model / name / "openvino_tokenizer.xml", "CPU")
        ids = np.asarray(tokenizer([prompt])["input_ids"])[0].tolist()
        end = ids.index(max(ids))
        seen.append(ids[1:end])
    assert seen[0] == seen[1]
    assert PADDING not in seen[1]
    theirs = CLIPTokenizer.from_pretrained(sdxl_source / "tokenizer_2")(prompt)["input_ids"][1:-1]
    assert PADDING in theirs
    assert PLAIN in seen[1]
    assert [PLAIN if token == PADDING else token for token in theirs] == seen[1]
