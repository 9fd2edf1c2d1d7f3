"""The base model as torch loads it: complete or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lorablend.adapters.errors import ModelError
from lorablend.convert.source import read_checkpoint
from lorablend.train.base import find_base, load_base
from lorablend.train.text import tokenize
from tests.convert.checkpoints import copy_without, write_checkpoint


def test_a_checkpoint_has_the_same_networks(sdxl_source: Path, tmp_path: Path) -> None:
    file = write_checkpoint(sdxl_source, tmp_path / "merge.safetensors")
    base = find_base(str(sdxl_source))
    merged, own = load_base(replace(base, source=read_checkpoint(file, sdxl_source))), load_base(base)
    for ours, theirs in zip(
        (merged.unet, merged.vae, *merged.text_encoders), (own.unet, own.vae, *own.text_encoders), strict=True
    ):
        expected = theirs.state_dict()
        assert ours.state_dict().keys() == expected.keys()
        assert all((tensor == expected[key]).all() for key, tensor in ours.state_dict().items())


def test_a_tensor_is_missing(sdxl_source: Path, tmp_path: Path) -> None:
    source = copy_without(sdxl_source, tmp_path / "broken", "conv_out.bias")
    with pytest.raises(ModelError) as error:
        load_base(str(source))
    assert str(error.value) == "broken: unet lacks 1 tensor: conv_out.bias; download it again"


def test_an_exclamation_mark_is_a_word_and_not_padding(sdxl_source: Path) -> None:
    """SDXL's second tokenizer pads with "!" (0), which in a text is another token (256), as when pictures are drawn."""
    networks = load_base(str(sdxl_source))
    first, second = (ids[0].tolist() for ids in tokenize(networks.tokenizers, ["fox!"]))
    words = len(networks.tokenizers[0]("fox")["input_ids"]) - 1
    assert first[: words + 2] == second[: words + 2] == [*first[:words], 256, first[words + 1]]
    assert set(second[words + 2 :]) == {0}
    assert set(first[words + 2 :]) == {first[words + 1]}, "the first one pads with its end token"
