"""ComfyUI graphs: followed from the picture that is saved, through nodes of many authors."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lorablend.app.pictures.metadata.comfy import read_graph
from lorablend.engine.schedulers import SCHEDULERS
from tests.app.pictures.metadata.comfy_nodes import INK, items, node, read, sampler
from tests.app.pictures.metadata.written import comfy_graph

# adapters


# samplers


def test_the_sampler_of_the_saved_picture() -> None:
    """Whatever comes first in the file, and whatever else is in the graph."""
    other = sampler(seed=99, steps=3, latent_image=["5", 0])
    graph = {"0": other, **comfy_graph(), "20": node("PreviewImage", images=["21", 0])}
    graph["21"] = node("VAEDecode", samples=["0", 0], vae=["1", 2])
    found = read_graph(graph, "")
    assert (found.settings["seed"], found.settings["steps"], found.missing) == (12, 20, [])


def test_a_second_pass_is_named() -> None:
    found = read(
        size=(1024, 1536),
        n10=node("LatentUpscale", samples=["6", 0], width=1024, height=1536),
        n11=sampler(seed=99, steps=10, denoise=0.5, latent_image=["10", 0]),
        n8=node("VAEDecode", samples=["11", 0], vae=["1", 2]),
    )
    assert (found.settings["seed"], found.settings["steps"]) == (12, 20)
    assert (found.settings["width"], found.settings["height"]) == (512, 768)
    assert found.missing == [
        "a later pass (KSampler, steps 10, denoise 0.5) is not done here",
        "the node LatentUpscale behind the sampler has no counterpart here",
    ]


def test_an_enlarged_picture() -> None:
    found = read(
        n9=node("SaveImage", images=["10", 0]),
        n10=node("ImageUpscaleWithModel", image=["8", 0], upscale_model=["11", 0]),
        n11=node("UpscaleModelLoader", model_name="x4.pth"),
    )
    assert found.settings["seed"] == 12
    assert found.missing == ["the node ImageUpscaleWithModel behind the sampler has no counterpart here"]


@pytest.mark.parametrize(
    ("guider", "guidance"),
    [
        (node("CFGGuider", model=["2", 0], positive=["3", 0], negative=["4", 0], cfg=6.0), 6.0),
        (node("BasicGuider", model=["2", 0], conditioning=["3", 0]), 1.0),
    ],
)
@pytest.mark.parametrize(
    ("sigmas", "spacing"),
    [
        (node("BasicScheduler", model=["2", 0], scheduler="karras", steps=20, denoise=1.0), "karras"),
        (node("KarrasScheduler", steps=20, sigma_max=14.6, sigma_min=0.03, rho=7.0), "karras"),
        (node("ExponentialScheduler", steps=20, sigma_max=14.6, sigma_min=0.03), "exponential"),
    ],
)
@pytest.mark.parametrize(
    "chosen", [node("KSamplerSelect", sampler_name="euler_ancestral"), node("SamplerEulerAncestral", eta=1.0)]
)
def test_through_guiders_sigmas_and_noise(
    guider: dict[str, Any], guidance: float, sigmas: dict[str, Any], spacing: str, chosen: dict[str, Any]
) -> None:
    inputs = {"noise": ["10", 0], "guider": ["11", 0], "sampler": ["12", 0], "sigmas": ["13", 0]}
    found = read(
        n6=node("SamplerCustomAdvanced", latent_image=["5", 0], **inputs),
        n10=node("RandomNoise", noise_seed=12),
        n11=guider,
        n12=chosen,
        n13=sigmas,
    )
    settings = dict(found.settings)
    assert settings.pop("negative_prompt", None) == (None if guidance == 1 else "blurry")
    assert settings == {
        "prompt": "a red boat",
        "seed": 12,
        "steps": 20,
        "guidance_scale": guidance,
        "scheduler": "euler_a",
        "spacing": spacing,
        "width": 512,
        "height": 768,
        "model": "foo",
        "blend": {"items": [INK]},
    }
    assert found.missing == []


def test_sampler_custom() -> None:
    found = read(
        n6=node(
            "SamplerCustom",
            model=["2", 0],
            add_noise=True,
            noise_seed=12,
            cfg=6.0,
            positive=["3", 0],
            negative=["4", 0],
            sampler=["10", 0],
            sigmas=["11", 0],
            latent_image=["5", 0],
        ),
        n10=node("KSamplerSelect", sampler_name="dpmpp_2m"),
        n11=node("AlignYourStepsScheduler", model_type="SDXL", steps=20, denoise=1.0),
    )
    assert found.settings["scheduler"] == "dpmpp_2m"
    assert (found.settings["seed"], found.settings["steps"], found.settings["guidance_scale"]) == (12, 20, 6.0)
    assert found.missing == ["the schedule type AlignYourStepsScheduler is not here; the model's own is used"]


def test_efficient_nodes() -> None:
    """A loader that has prompts, adapter and size, and a sampler of its own."""
    loader = node(
        "Efficient Loader",
        ckpt_name="foo.safetensors",
        lora_name="ink.safetensors",
        lora_model_strength=0.8,
        lora_clip_strength=0.8,
        positive="a red boat",
        negative="blurry",
        empty_latent_width=512,
        empty_latent_height=768,
    )
    efficient = sampler(
        model=["1", 0], positive=["1", 1], negative=["1", 2], latent_image=["1", 3], optional_vae=["1", 4]
    )
    found = read(n1=loader, n2=None, n3=None, n4=None, n5=None, n6=efficient | {"class_type": "KSampler (Efficient)"})
    assert found.settings["blend"]["items"] == [INK]
    assert [found.settings[key] for key in ("prompt", "negative_prompt", "width", "height", "model")] == [
        "a red boat",
        "blurry",
        512,
        768,
        "foo",
    ]
    assert found.missing == []


def test_easy_use() -> None:
    """Everything in pipes."""
    found = read(
        size=(512, 768),
        n1=None,
        n2=None,
        n3=None,
        n4=None,
        n5=None,
        n6=node("easy kSampler", pipe=["10", 0], image_output="Save"),
        n8=None,
        n9=node("SaveImage", images=["6", 1]),
        n10=node("easy preSampling", steps=20, cfg=6.0, sampler_name="euler_ancestral", scheduler="karras", denoise=1.0,
                 seed=12, pipe=["11", 0]),
        n11=node("easy fullLoader", ckpt_name="foo.safetensors", lora_name="ink.safetensors", lora_model_strength=0.8,
                 lora_clip_strength=0.8, positive="a red boat", negative="blurry", empty_latent_width=512),
    )  # fmt: skip
    assert found.settings == read().settings
    assert found.missing == []


def test_impact_pipes_and_switches() -> None:
    found = read(
        n6=node("ImpactKSamplerBasicPipe", basic_pipe=["10", 0], latent_image=["5", 0], seed=["13", 0], steps=20,
                cfg=6.0, sampler_name="euler_ancestral", scheduler="karras", denoise=1.0),
        n10=node("ToBasicPipe", model=["12", 0], clip=["2", 1], vae=["1", 2], positive=["11", 0], negative=["4", 0]),
        n11=node("Any Switch (rgthree)", any_01=["3", 0]),
        n12=node("Any Switch (rgthree)", any_01=["2", 0]),
        n13=node("Seed (rgthree)", seed=12),
    )  # fmt: skip
    assert found.settings == read().settings
    assert found.missing == []


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("euler", "euler"),
        ("euler_ancestral", "euler_a"),
        ("dpmpp_2m", "dpmpp_2m"),
        ("dpmpp_2m_sde", "dpmpp_2m_sde"),
        ("dpmpp_2m_sde_gpu", "dpmpp_2m_sde"),
        ("uni_pc", "unipc"),
        ("ddim", "ddim"),
        ("lcm", "lcm"),
        ("heun", None),
    ],
)
def test_its_samplers(name: str, scheduler: str | None) -> None:
    found = read(n6=sampler(sampler_name=name))
    assert found.settings.get("scheduler") == scheduler
    assert scheduler is None or scheduler in SCHEDULERS
    assert found.missing == ([] if scheduler else ["the sampler heun is not here; the model's own is used"])


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        ("normal", "linspace"),
        ("karras", "karras"),
        ("exponential", "exponential"),
        ("sgm_uniform", "trailing"),
        ("ddim_uniform", "leading"),
        ("beta", None),
    ],
)
def test_its_schedules(name: str, spacing: str | None) -> None:
    found = read(n6=sampler(scheduler=name))
    assert found.settings.get("spacing") == spacing
    assert found.missing == ([] if spacing else ["the schedule type beta is not here; the model's own is used"])


# prompts, size and other nodes


@pytest.mark.parametrize(
    ("nodes", "lines"),
    [
        (
            {"n3": node("CLIPTextEncodeSDXL", text_g="a red boat", text_l="oil painting", clip=["2", 1])},
            ['the text of the first text encoder (text_l) is left out: "oil painting"'],
        ),
        ({"n3": node("CLIPTextEncodeSDXL", text_g="a red boat", text_l="a red boat", clip=["2", 1])}, []),
        ({"n3": node("CLIPTextEncodeSDXL", text_g="", text_l="a red boat", clip=["2", 1])}, []),
        (
            {
                "n6": sampler(positive=["10", 0]),
                "n10": node("ConditioningCombine", conditioning_1=["3", 0], conditioning_2=["11", 0]),
                "n11": node("CLIPTextEncode", text="a sea", clip=["2", 1]),
            },
            ['a second prompt (ConditioningCombine) is left out: "a sea"'],
        ),
        (
            {
                "n6": sampler(positive=["10", 0], negative=["10", 1]),
                "n10": node("ControlNetApplyAdvanced", positive=["3", 0], negative=["4", 0], strength=0.5),
            },
            ["the node ControlNetApplyAdvanced between prompt and sampler has no counterpart here"],
        ),
        (
            {"n6": sampler(model=["10", 0]), "n10": node("FreeU_V2", model=["2", 0], b1=1.3)},
            ["the node FreeU_V2 between model and sampler has no counterpart here"],
        ),
        ({"n6": sampler(model=["10", 0]), "n10": node("Reroute", model=["2", 0])}, []),
        (
            {"n6": sampler(model=["10", 0]), "n10": node("ModelMergeSimple", model1=["2", 0], model2=["1", 0])},
            ["the node ModelMergeSimple between model and sampler has no counterpart here"],
        ),
        (
            {"n6": sampler(model=["10", 0]), "n10": node("My Lora", file="b.safetensors", power=1, model=["2", 0])},
            ["the adapter b in the node My Lora is not read"],
        ),
        (
            {"n3": node("Prompt (LoraManager)", text="a red boat", trigger_words=["10", 0], clip=["2", 1])},
            ["trigger words are joined to the positive text in the graph; only the text is read"],
        ),
        (
            {"n5": node("VAEEncode", pixels=["10", 0], vae=["1", 2]), "n10": node("LoadImage", image="a.png")},
            ["the picture that it started from is not in the file"],
        ),
    ],
)
def test_what_is_left_out_is_named(nodes: dict[str, Any], lines: list[str]) -> None:
    found = read(**nodes)
    assert found.settings["prompt"] == "a red boat"
    assert found.settings["negative_prompt"] == "blurry"
    assert items(found) == [INK]
    assert found.missing == lines


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a red boat", None),
        ("a (red:1.3) boat", "comfy"),
        ("a [red] boat", "comfy"),
        ("a boat BREAK a sea", "comfy"),
        (r"a boat \(red\)", None),
        ("a red boat by the sea, " * 5, "comfy"),  # perhaps more than one chunk, cut in another way
    ],
)
def test_its_rule_of_weights(text: str, rule: str | None) -> None:
    nodes = {"n3": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["2", 1]}}}
    found = read_graph(comfy_graph(**nodes), "")
    assert (found.settings["prompt"], found.settings.get("prompt_rule")) == (text, rule)


def test_a_computed_size_is_the_pictures() -> None:
    found = read(size=(832, 1216), n5=node("SDXL Empty Latent Image", resolution="832x1216", batch_size=1))
    assert (found.settings["width"], found.settings["height"], found.missing) == (832, 1216, [])


def test_hostile_graphs_take_no_time() -> None:
    circle = {
        str(number): node("KSampler", latent_image=[str(number + 1), 0], positive=["0", 0]) for number in range(1000)
    }
    many = {str(number): node("SaveImage", images=["x", 0]) for number in range(1000)} | circle
    before = time.process_time()
    for graph in (circle | {"999": node("KSampler", latent_image=["0", 0])}, many):
        read_graph(json.loads(json.dumps(graph)), "")
    assert time.process_time() - before < 5
