"""A diffusers folder restored from a converted one."""

from pathlib import Path

import numpy as np
import pytest

from lorablend.adapters.errors import ModelError
from lorablend.convert.restore import restore


def test_restored_weights_are_the_converted_ones(sdxl_source: Path, sdxl_fp16: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    restore(sdxl_fp16, tmp_path / "restored")
    before = StableDiffusionXLPipeline.from_pretrained(sdxl_source)
    after = StableDiffusionXLPipeline.from_pretrained(tmp_path / "restored")
    for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
        state = getattr(after, name).state_dict()
        for key, tensor in getattr(before, name).state_dict().items():
            # The folder has fp16 weights at most: 11 bits.
            assert np.allclose(state[key].float(), tensor, rtol=2**-11, atol=1e-7), key
    assert after.scheduler.config["beta_start"] == before.scheduler.config["beta_start"]
    assert after.tokenizer("a fox").input_ids == before.tokenizer("a fox").input_ids


def test_eight_bits_are_refused(sdxl_int8: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        restore(sdxl_int8, tmp_path / "restored")
    assert str(caught.value).endswith(
        "has weights in 8 bits, from which the original ones cannot be restored; train on the model it was "
        "converted from"
    )
    assert not list(tmp_path.glob("*restored*"))
