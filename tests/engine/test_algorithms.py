"""One picture per algorithm, live or partly baked, compared with the model that the algorithm's own library merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import load_adapter
from lorablend.engine import Pipeline
from tests.adapters.references import lycoris_file, peft_file
from tests.engine import reference

STEPS = 2
SETTINGS: dict[str, Any] = {"guidance_scale": 4.0}

# LyCORIS' merge_to (4.1.3) multiplies LoHa and LoKr with alpha / rank twice: here that is 1.
_WHOLE = {"linear_alpha": 2, "conv_alpha": 2}

# name -> (options of create_lycoris, the forms of the deltas: "factors", "gate" or "" for baked). The live ones come
# first, because each of the others compiles the UNet again.
LYCORIS = {
    "locon": ({"algo": "lora", "linear_dim": 4, "conv_dim": 3}, {"factors"}),
    "locon, tucker": ({"algo": "lora", "linear_dim": 4, "conv_dim": 3, "use_tucker": True}, {"factors"}),
    "loha": ({"algo": "loha", "linear_dim": 2, "conv_dim": 2, **_WHOLE}, {"factors"}),
    "lokr, w2 factored": ({"algo": "lokr", "linear_dim": 2, "conv_dim": 2, "factor": 4, **_WHOLE}, {"factors"}),
    "dora on outputs": ({"algo": "lora", "linear_dim": 4, "dora_wd": True, "wd_on_output": True}, {"gate"}),
    "ia3": ({"algo": "ia3"}, {"gate"}),
    "lokr, w2 full": ({"algo": "lokr", "linear_dim": 10000, "factor": 4}, {""}),
    "dora on inputs": ({"algo": "lora", "linear_dim": 4, "dora_wd": True, "wd_on_output": False}, {""}),
    "glora": ({"algo": "glora", "linear_dim": 4}, {"gate", ""}),
    "oft": ({"algo": "diag-oft", "linear_dim": 4}, {""}),
    "boft": ({"algo": "boft", "linear_dim": 4}, {""}),
    "full": ({"algo": "full"}, {""}),
    "norms": ({"algo": "lora", "linear_dim": 4, "train_norm": True}, {"factors", ""}),
}


# Layers outside attention: those of the time, the picture's size, the latent and the prediction.
EVERYWHERE = {
    *("time_embedding.linear_1", "add_embedding.linear_2", "conv_in", "conv_out"),
    *("down_blocks.0.downsamplers.0.conv", "up_blocks.0.upsamplers.0.conv", "mid_block.resnets.0.time_emb_proj"),
}


@pytest.fixture(scope="module")
def live(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline()


@pytest.fixture(scope="module")
def bare(live: Pipeline, latents: np.ndarray) -> np.ndarray:
    return _draw(live, [], latents)


def _draw(live: Pipeline, blend: list[tuple[Path, float]], latents: np.ndarray) -> np.ndarray:
    settings = {"latents": latents, "steps": STEPS, "seed": 0, **SETTINGS}
    return np.array(live.generate(reference.PROMPT, reference.NEGATIVE, blend=blend, **settings).images[0])


def _same_picture(actual: np.ndarray, bare: np.ndarray, pipeline: Any, latents: np.ndarray) -> None:
    expected = reference.draw(
        pipeline, [], latents, steps=STEPS, prompt=reference.PROMPT, negative_prompt=reference.NEGATIVE, **SETTINGS
    )
    assert reference.levels_apart(actual, expected) <= 1
    assert reference.levels_apart(bare, expected) > 5, "the adapter must show"


@pytest.mark.parametrize("name", LYCORIS)
def test_lycoris(
    name: str, live: Pipeline, bare: np.ndarray, sdxl_source: Path, tmp_path: Path, latents: np.ndarray
) -> None:
    options, forms = LYCORIS[name]
    pipeline = reference.load(sdxl_source)
    before = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}
    file, _, _ = lycoris_file(tmp_path / "style.safetensors", pipeline.unet, deviation=0.1, **options)
    deltas = load_adapter(file).deltas
    assert {delta.live for delta in deltas.values()} == forms
    assert {path for _, path in deltas} >= EVERYWHERE or name == "ia3"
    for key, merged in pipeline.unet.state_dict().items():  # a weight of w means W + w (W' - W)
        merged.copy_(before[key] + 0.7 * (merged - before[key]))
    _same_picture(_draw(live, [(file, 0.7)], latents), bare, pipeline, latents)


PEFT = {
    "dora": ("LoraConfig", {"r": 4, "lora_alpha": 8, "use_dora": True}, "lora_"),
    "rslora": ("LoraConfig", {"r": 4, "lora_alpha": 3, "use_rslora": True}, "lora_"),
    "loha": ("LoHaConfig", {"r": 2, "alpha": 2}, "hada_"),
    "lokr": ("LoKrConfig", {"r": 2, "alpha": 2, "decompose_factor": 4}, "lokr_"),
    "oft": ("OFTConfig", {"r": 0, "oft_block_size": 8}, "oft_"),
}


@pytest.mark.parametrize("name", PEFT)
def test_peft(
    name: str, live: Pipeline, bare: np.ndarray, sdxl_source: Path, tmp_path: Path, latents: np.ndarray
) -> None:
    import peft

    config, options, only = PEFT[name]
    pipeline = reference.load(sdxl_source)
    targets = reference.UNET_TARGETS if name == "oft" else reference.LCM_TARGETS
    made = getattr(peft, config)(target_modules=targets, **options)
    file, _, _ = peft_file(tmp_path, pipeline.unet, made, deviation=0.1, only=only)
    # merge_and_unload has put the adapter into the pipeline's UNet.
    _same_picture(_draw(live, [(file, 1.0)], latents), bare, reference.load(sdxl_source, unet=pipeline.unet), latents)
