"""Programs that write their settings as one flat object: what they call each setting, as a table.

SwarmUI's form is in its docs (Image Metadata Format.md); the others' are what their writers do: Fooocus
modules/meta_parser.py, InvokeAI's metadata parsers, Easy Diffusion utils/save_utils.py, and pictures of NovelAI and
Draw Things.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lorablend.app.pictures.metadata.form_lists import (
    Data,
    civitai_adapters,
    diffusers_adapters,
    draw_things_adapters,
    draw_things_notes,
    easy_adapters,
    fooocus_adapters,
    fooocus_notes,
    invoke_adapters,
    invoke_notes,
    joined,
    model_name,
    mre_adapters,
    novelai_notes,
    ruined_adapters,
    swarm_adapters,
    swarm_notes,
    tensorart_adapters,
)
from lorablend.app.pictures.metadata.found import START_LOST, Found, Mention, is_nothing, number
from lorablend.app.pictures.metadata.mentions import from_tags, unite

__all__ = ["FORMS", "Form", "read_form"]


def _no_lists(_found: Found, _data: Data) -> Iterable[list[Mention]]:
    return ()


def _never(_data: Data) -> bool:
    return False


def _no_notes(_found: Found, _data: Data) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a program calls the settings.

    Attributes:
        program: Its name.
        fields: Keys of the settings, the first that is there counts; `sampler` and `schedule` are a pair.
        harmless: Pattern of whole keys, in any case, that change no picture or that repeat others.
        adapters: The lists of adapters, those with most in them first.
        tags_first: Whether tags in the prompt say more than the lists do.
        started: Whether the picture was made from another one.
        notes: Names what else is lost.
    """

    program: str
    fields: Mapping[str, tuple[str, ...]]
    harmless: str
    adapters: Callable[[Found, Data], Iterable[list[Mention]]] = _no_lists
    tags_first: bool = True
    started: Callable[[Data], bool] = _never
    notes: Callable[[Found, Data], None] = _no_notes


def read_form(form: Form, data: Data, text: str) -> Found:
    """Read an object in a program's form."""
    found = Found(form.program, text=text)
    keys = {name: next((key for key in keys if key in data), keys[0]) for name, keys in form.fields.items()}
    values = {name: data.get(key) for name, key in keys.items()}
    prompt = values.pop("prompt", None)
    prompt, (tags, modes) = joined(prompt), (list[Mention](), dict[str, Any]())
    if isinstance(prompt, str):
        prompt, tags, modes = from_tags(found, prompt)
    found.take("prompt", prompt)
    if (negative := values.pop("negative_prompt", None)) not in (None, "", "None"):
        found.take("negative_prompt", joined(negative), keys["negative_prompt"])
    found.take_sampler(values.pop("sampler", None), values.pop("schedule", None))
    found.take_model(model_name(values.pop("model", None)))
    if (size := values.pop("size", None)) is not None:
        sides = re.findall(r"\d+", str(size))
        width, height = sides if len(sides) == 2 else (size, size)
        found.take_size(width, height, keys["size"])
    elif values.get("width") is not None or values.get("height") is not None:
        found.take_size(values.get("width"), values.get("height"))
    for name, value in values.items():
        if name not in ("width", "height"):
            found.take(name, value, keys[name])
    lists = list(form.adapters(found, data))
    found.take_adapters(unite(tags, *lists) if form.tags_first else unite(*lists, tags), modes)
    if form.started(data):
        found.lacks(START_LOST)
    form.notes(found, data)
    for key, value in data.items():
        is_unused = is_nothing(value) or number(value) == 0 or (_CLIP_SKIP.fullmatch(key) and number(value) == 1)
        if not (key in keys.values() or is_unused or re.fullmatch(form.harmless, key, re.IGNORECASE)):
            found.ignores(key, value)
    return found


def _below_one(key: str) -> Callable[[Data], bool]:
    return lambda data: (number(data.get(key)) or 1) < 1


_CLIP_SKIP = re.compile(r"clip[_ ]?skip", re.IGNORECASE)
_PLAIN = {name: (name,) for name in ("prompt", "negative_prompt", "steps", "seed", "width", "height")}

FORMS = {
    "SwarmUI": Form(
        program="SwarmUI",
        fields=_PLAIN
        | {
            "negative_prompt": ("negativeprompt",),
            "guidance_scale": ("cfgscale",),
            "sampler": ("sampler", "comfyuisampler", "comfy_sampler", "autowebuisampler"),
            "schedule": ("scheduler", "comfyuischeduler"),
            "model": ("model",),
        },
        harmless=r"loras|loraweights|loratencweights|lorasectionconfinement|swarm_version|aspectratio|sidelength|"
        r"automaticvae|images|nopreviews|wildcardseed|imageformat|date|generation_time|used_wildcards|original_.*|"
        r"donotsave|presets|personalnote|sui_models|batchsize|initimagecreativity|initimage|maskimage|"
        r"modelspecificenhancements|colordepth|outputintermediateimages|internalbackendtype|exactbackendid",
        adapters=swarm_adapters,
        tags_first=False,  # SwarmUI's tags have the text encoder's weight last, A1111's first
        started=lambda data: "initimage" in data or "initimagecreativity" in data,
        notes=swarm_notes,
    ),
    "Fooocus": Form(
        program="Fooocus",
        fields={
            "prompt": ("prompt", "Prompt"),
            "negative_prompt": ("negative_prompt", "Negative Prompt"),
            "steps": ("steps", "Steps"),
            "seed": ("seed", "Seed"),
            "guidance_scale": ("guidance_scale", "Guidance Scale"),
            "size": ("resolution", "Resolution"),
            "sampler": ("sampler", "Sampler"),
            "schedule": ("scheduler", "Scheduler"),
            "model": ("base_model", "Base Model"),
        },
        harmless=r"full_prompt|full_negative_prompt|loras|lora_(combined|name|weight)_\d+|lora \d+|base_model_hash|"
        r"styles|refiner_model_hash|"
        r"performance|metadata_scheme|metadata scheme|version|created_by|refiner_switch|refiner switch|"
        r"refiner_swap_method|fooocus v2 expansion|prompt_expansion",
        adapters=fooocus_adapters,
        notes=fooocus_notes,
    ),
    "RuinedFooocus": Form(
        program="RuinedFooocus",
        fields={
            "prompt": ("Prompt", "prompt"),
            "negative_prompt": ("Negative", "negative_prompt"),
            "steps": ("steps",),
            "seed": ("seed",),
            "guidance_scale": ("cfg", "guidance_scale"),
            "width": ("width",),
            "height": ("height",),
            "sampler": ("sampler_name", "sampler"),
            "schedule": ("scheduler",),
            "model": ("base_model_name", "base_model"),
        },
        harmless=r"loras|base_model_hash|software|version|denoise|styles|performance|full_prompt|original_prompt",
        adapters=ruined_adapters,
    ),
    "Fooocus-MRE": Form(
        program="Fooocus-MRE",
        fields=_PLAIN
        | {
            "guidance_scale": ("cfg",),
            "sampler": ("sampler", "sampler_name"),
            "schedule": ("scheduler",),
            "model": ("base_model", "base_model_name"),
        },
        harmless=r"real_(negative_)?prompt|styles?|performance|switch|loras|l\d+|w\d+|software|base_model_hash",
        adapters=mre_adapters,
        started=lambda data: data.get("img2img_mode") is True or not is_nothing(data.get("input_image")),
        notes=fooocus_notes,
    ),
    "InvokeAI": Form(
        program="InvokeAI",
        fields=_PLAIN
        | {
            "prompt": ("positive_prompt", "prompt"),
            "guidance_scale": ("cfg_scale",),
            "sampler": ("scheduler", "sampler", "sampler_name"),
            "model": ("model", "model_name", "model_weights"),
        },
        harmless=r"generation_mode|loras|app_version|rand_device|created_by|positive_style_prompt|canvas_v2_metadata|"
        r"negative_style_prompt|strength|init_image|type|model_hash|model_list|app_id|"
        r"init_image_strength|board|extra|batch_id|queue_item_id|session_id",
        adapters=invoke_adapters,
        notes=invoke_notes,
        started=lambda data: (
            "img2img" in str(data.get("generation_mode", data.get("type", "")))
            or "paint" in str(data.get("generation_mode", ""))
            or not is_nothing(data.get("init_image"))
        ),
    ),
    "NovelAI": Form(
        program="NovelAI",
        fields=_PLAIN
        | {
            "negative_prompt": ("uc",),
            "guidance_scale": ("scale",),
            "sampler": ("sampler",),
            "schedule": ("noise_schedule",),
            "model": ("Source",),
        },
        harmless=r"signed_hash|request_type|n_samples|version|strength|noise|extra_noise_seed|legacy.*|"
        r"hide_debug_overlay|stream|use_coords|params_version|v4_prompt|v4_negative_prompt|"
        r"deliberate_euler_ancestral_bug|prefer_brownian|controlnet_strength|uncond_scale|add_original_image",
        started=lambda data: re.search("Img2Img|Inpaint", str(data.get("request_type"))) is not None,
        notes=novelai_notes,
    ),
    "Easy Diffusion": Form(
        program="Easy Diffusion",
        fields={
            "prompt": ("prompt", "Prompt"),
            "negative_prompt": ("negative_prompt", "Negative Prompt"),
            "steps": ("num_inference_steps", "Steps"),
            "seed": ("seed", "Seed"),
            "guidance_scale": ("guidance_scale", "Guidance Scale"),
            "width": ("width", "Width"),
            "height": ("height", "Height"),
            "sampler": ("sampler_name", "Sampler"),
            "schedule": ("scheduler_name", "Scheduler"),
            "model": ("use_stable_diffusion_model", "Stable Diffusion model"),
        },
        harmless=r"use_lora_model|lora_alpha|lora model|lora strength|prompt_strength|prompt strength|upscale_amount|"
        r"upscale by|control_filter_to_apply|latent_upscaler_steps|vram_usage_level|num_outputs|"
        r"(output_|stream_|show_|save_|metadata_|block_).*|session_id|date.*|software",
        adapters=easy_adapters,
        started=lambda data: "prompt_strength" in data or "Prompt Strength" in data,
    ),
    "Draw Things": Form(
        program="Draw Things",
        fields={
            "prompt": ("c",),
            "negative_prompt": ("uc",),
            "steps": ("steps",),
            "seed": ("seed",),
            "guidance_scale": ("scale",),
            "size": ("size",),
            "sampler": ("sampler",),
            "model": ("model",),
        },
        harmless=r"lora|v2|strength|seed_mode|profile|software|version",
        adapters=draw_things_adapters,
        started=_below_one("strength"),
        notes=draw_things_notes,
    ),
    "TensorArt": Form(
        program="TensorArt",
        fields=_PLAIN
        | {
            "negative_prompt": ("negativePrompt",),
            "guidance_scale": ("cfgScale",),
            "sampler": ("samplerName", "sampler"),
            "schedule": ("scheduler",),
            "model": ("baseModel",),
        },
        harmless=r"models|imageCount|workEngine",
        adapters=tensorart_adapters,
    ),
    "Stability Matrix": Form(
        program="Stability Matrix",
        fields={
            "prompt": ("PositivePrompt",),
            "negative_prompt": ("NegativePrompt",),
            "steps": ("Steps",),
            "seed": ("Seed",),
            "guidance_scale": ("CfgScale",),
            "width": ("Width",),
            "height": ("Height",),
            "sampler": ("Sampler",),
            "schedule": ("Scheduler",),
            "model": ("ModelName",),
        },
        harmless=r"ModelHash",
    ),
    "diffusers": Form(
        program="diffusers",
        fields=_PLAIN
        | {
            "steps": ("num_inference_steps",),
            "guidance_scale": ("guidance_scale",),
            "size": ("resolution",),
            "sampler": ("sampler", "scheduler"),
            "model": ("Model", "model", "model_id", "base_model"),
        },
        harmless=r"Model hash|use_lora|loras?|sdxl_style|style_preset|(add_)?quality_tags",
        adapters=diffusers_adapters,
    ),
    "sd-scripts": Form(
        program="sd-scripts",
        fields=_PLAIN
        | {"negative_prompt": ("negative-prompt",), "guidance_scale": ("scale",), "sampler": ("sampler",)},
        harmless=r"original-(height|width)(-negative)?|crop-(top|left)",
    ),
    "Sygil": Form(
        program="Sygil",
        fields=_PLAIN
        | {
            "steps": ("steps", "num_inference_steps"),
            "guidance_scale": ("cfg_scale", "guidance_scale"),
            "sampler": ("sampler_name", "sampler", "scheduler"),
            "model": ("model",),
        },
        harmless=r"model_hash|normalize_prompt_weights",
        started=lambda data: (number(data.get("denoising_strength")) or 0) > 0,
    ),
    "Mochi Diffusion": Form(
        program="Mochi Diffusion",
        fields={
            "prompt": ("Include in Image",),
            "negative_prompt": ("Exclude from Image",),
            "steps": ("Steps",),
            "seed": ("Seed",),
            "guidance_scale": ("Guidance Scale",),
            "size": ("Size",),
            "sampler": ("Scheduler",),
            "model": ("Model",),
        },
        harmless=r"ML Compute Unit|Generator|Date",
    ),
    "Civitai": Form(
        program="Civitai",
        fields=_PLAIN
        | {
            "negative_prompt": ("negativePrompt",),
            "guidance_scale": ("cfgScale",),
            "sampler": ("sampler",),
        },
        harmless=r"resources|airs|workflowId|baseModel|engine|process|quantity|priority|sourceImage|remixOfId",
        adapters=civitai_adapters,
        started=lambda data: "img2img" in str(data.get("workflowId", data.get("process", ""))),
    ),
}
"""The forms by their programs' names."""
