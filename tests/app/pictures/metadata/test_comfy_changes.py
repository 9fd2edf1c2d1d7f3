"""What a graph does beside its settings: each is named in one line, and what changes nothing is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.pictures.metadata.comfy_nodes import node, read, sampler

PARTLY = {"noise_seed": 12, "add_noise": "enable", "start_at_step": 0, "end_at_step": 10000}


def sized(**sizes: int) -> dict[str, Any]:
    return {"n3": node("CLIPTextEncodeSDXL", text_g="a red boat", text_l="a red boat", clip=["2", 1], **sizes)}


def helped(chosen: dict[str, Any], sigmas: dict[str, Any]) -> dict[str, Any]:
    inputs = {"noise": ["10", 0], "guider": ["11", 0], "sampler": ["12", 0], "sigmas": ["13", 0]}
    return {
        "n6": node("SamplerCustomAdvanced", latent_image=["5", 0], **inputs),
        "n10": node("RandomNoise", noise_seed=12),
        "n11": node("CFGGuider", model=["2", 0], positive=["3", 0], negative=["4", 0], cfg=6.0),
        "n12": chosen,
        "n13": sigmas,
    }


@pytest.mark.parametrize(
    ("nodes", "lines"),
    [
        ({"n6": sampler(**PARTLY)}, []),
        ({"n6": sampler(**PARTLY | {"start_at_step": 4})}, ["start_at_step (4) is not done here"]),
        ({"n6": sampler(**PARTLY | {"end_at_step": 15})}, ["end_at_step (15) is not done here"]),
        ({"n6": sampler(**PARTLY | {"add_noise": "disable"})}, ["add_noise (disable) is not done here"]),
        ({"n6": sampler(variation_seed=5, variation_strength=0.0)}, []),
        ({"n6": sampler(variation_seed=5, variation_strength=0.4)},
         ["variation_seed (5) is not done here", "variation_strength (0.4) is not done here"]),
        ({"n3": node("CLIPTextEncode", text="a red boat", clip=["10", 0]),
          "n10": node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["2", 1])},
         ["stop_at_clip_layer (-2) is not done here"]),
        ({"n3": node("CLIPTextEncode", text="a red boat", clip=["10", 0]),
          "n10": node("CLIPSetLastLayer", stop_at_clip_layer=-1, clip=["2", 1])}, []),
        ({"n8": node("VAEDecode", samples=["6", 0], vae=["10", 0]),
          "n10": node("VAELoader", vae_name="sdxl_vae.safetensors")},
         ["the VAE sdxl_vae is not used; the model's own is"]),
        ({"n8": node("VAEDecode", samples=["6", 0], vae=["10", 0]),
          "n10": node("Efficient Loader", vae_name="Baked VAE")}, []),
        ({"n2": None, "n6": sampler(model=["1", 0]),
          "n3": node("CLIPTextEncode", text="a red boat", clip=["10", 0]),
          "n10": node("DualCLIPLoader", clip_name1="a.safetensors", clip_name2="b.safetensors")},
         ["the text encoder a is not used; the model's own is", "the text encoder b is not used; the model's own is"]),
        (sized(width=512, height=768, crop_w=0, crop_h=0, target_width=512, target_height=768), []),
        (sized(width=1024, height=1024, crop_w=0),
         ["the sizes in the node CLIPTextEncodeSDXL (width 1024, height 1024, crop_w 0) are not used; "
          "the picture's are"]),
        ({"n5": node("EmptyLatentImage", width=512, height=768, batch_size=4)},
         ["the picture may be a later one of a batch, all of one seed; the first is drawn"]),
        ({"n6": sampler(latent_image=["10", 0]),
          "n10": node("LatentFromBatch", samples=["5", 0], batch_index=2, length=1)},
         ["the picture may be a later one of a batch, all of one seed; the first is drawn"]),
        ({"n6": sampler(latent_image=["10", 0]), "n10": node("SetLatentNoiseMask", samples=["5", 0], mask=["11", 0])},
         ["the picture that it started from is not in the file"]),
        (helped(node("SamplerEulerAncestral", eta=0.5, s_noise=1.0), node("BasicScheduler", scheduler="karras",
                                                                          steps=20, denoise=1.0)),
         ["SamplerEulerAncestral's eta (0.5) is not done here"]),
        (helped(node("KSamplerSelect", sampler_name="euler"), node("KarrasScheduler", steps=20, rho=5.0)),
         ["KarrasScheduler's rho (5.0) is not done here"]),
    ],
)  # fmt: skip
def test_changes(nodes: dict[str, Any], lines: list[str]) -> None:
    found = read(**nodes)
    assert found.missing == lines
    assert (found.settings["prompt"], found.settings["seed"], found.settings["steps"]) == ("a red boat", 12, 20)
