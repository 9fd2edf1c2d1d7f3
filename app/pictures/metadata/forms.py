"""Programs that write their settings as one flat object: what they call each setting, as a table.

SwarmUI's form is in its docs (Image Metadata Format.md); the others' are what their writers do: Fooocus
modules/meta_parser.py, InvokeAI's metadata parsers, Easy Diffusion utils/save_utils.py, and pictures of NovelAI and
Draw Things.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.a1111 import combined
from lorablend.app.pictures.metadata.found import START_LOST, Found, Mention, is_nothing, number, stem
from lorablend.app.pictures.metadata.mentions import from_tags, mention_of, read_json, unite

__all__ = ["FORMS", "Form", "read_form"]

_Data = Mapping[str, Any]
_NAMELESS = "without a name"


def _no_lists(_found: Found, _data: _Data) -> Iterable[list[Mention]]:
    return ()


def _never(_data: _Data) -> bool:
    return False


def _no_notes(_found: Found, _data: _Data) -> None:
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
    adapters: Callable[[Found, _Data], Iterable[list[Mention]]] = _no_lists
    tags_first: bool = True
    started: Callable[[_Data], bool] = _never
    notes: Callable[[Found, _Data], None] = _no_notes


def read_form(form: Form, data: _Data, text: str) -> Found:
    """Read an object in a program's form."""
    found = Found(form.program, text=text)
    keys = {name: next((key for key in keys if key in data), keys[0]) for name, keys in form.fields.items()}
    values = {name: data.get(key) for name, key in keys.items()}
    prompt = values.pop("prompt", None)
    prompt, tags, modes = from_tags(found, _joined(prompt)) if prompt is not None else ("", [], {})
    found.take("prompt", prompt)
    if not is_nothing(negative := values.pop("negative_prompt", None)):
        found.take("negative_prompt", _joined(negative), keys["negative_prompt"])
    found.take_sampler(values.pop("sampler", None), values.pop("schedule", None))
    found.take_model(_model_name(values.pop("model", None)))
    if (size := values.pop("size", None)) is not None:
        sides = re.findall(r"\d+", str(size))
        found.take_size(*(sides if len(sides) == 2 else (size, size)), keys["size"])
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
        is_unused = is_nothing(value) or number(value) == 0
        if not (key in keys.values() or is_unused or re.fullmatch(form.harmless, key, re.IGNORECASE)):
            found.ignores(key, value)
    return found


def _joined(prompt: Any) -> Any:
    """A prompt in parts as one text."""
    return ", ".join(map(str, prompt)) if isinstance(prompt, list) else prompt


def _model_name(model: Any) -> Any:
    if isinstance(model, Mapping):
        return next((model[key] for key in ("name", "model_name", "key") if isinstance(model.get(key), str)), None)
    return model


def _listed(value: Any) -> list[Any]:
    """A list, as itself, in JSON or Python, or as words with commas between them."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str) or is_nothing(value):
        return [] if value is None or isinstance(value, str) else [value]
    if value.lstrip().startswith("["):
        try:
            read = ast.literal_eval(value.strip()[:100_000])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            read = None
        if isinstance(read, list):
            return read
    return [part.strip() for part in value.split(",")]


def _parallel(names: Any, weights: Any, text_encoders: Any = None) -> Iterator[Mention]:
    """Adapters whose names and weights are in lists of their own."""
    listed = [_listed(values) for values in (names, weights, text_encoders)]
    for place, name in enumerate(listed[0]):
        weight, text_encoder = (values[place] if place < len(values) else None for values in listed[1:])
        if mention := mention_of(name, weight, text_encoder):
            yield mention


def _swarm_adapters(found: Found, data: _Data) -> Iterable[list[Mention]]:
    """Parallel lists. Confined to a section, an adapter is not on everywhere: -1, 0 and 5 (the base model) are."""
    sections = _listed(data.get("lorasectionconfinement"))
    mentions: list[Mention] = []
    every = list(_listed(data.get("loras")))
    hashes = {
        stem(str(entry.get("name", ""))): entry.get("hash")
        for entry in data.get("sui_models") or ()
        if isinstance(entry, Mapping)
    }
    weights, text_encoders = _listed(data.get("loraweights")), _listed(data.get("loratencweights"))
    for place, name in enumerate(every):
        weight = weights[place] if place < len(weights) else 1
        text_encoder = text_encoders[place] if place < len(text_encoders) else None
        mention = mention_of(name, weight, text_encoder, hashes.get(stem(str(name)), ""))
        section = str(sections[place]).strip() if place < len(sections) else ""
        if mention and section not in ("", "-1", "0", "5"):
            found.lacks(f"the adapter {shown(mention.name)} is for section {shown(section)} only; it is left out")
        elif mention:
            mentions.append(mention)
    return [mentions]


def _fooocus_adapters(_found: Found, data: _Data) -> Iterable[list[Mention]]:
    """Lists of name, weight and hash; and a key for each, "name : weight"."""
    rows = data.get("loras")
    named = (mention_of(*row[:2], digest=row[2] if len(row) > 2 else "") for row in _rows(rows))
    numbered = (
        combined(value)
        for key, value in data.items()
        if re.fullmatch(r"(lora_combined_|LoRA )\d+", key) and isinstance(value, str)
    )
    return [[mention for mention in mentions if mention] for mentions in (named, numbered)]


def _ruined_adapters(_found: Found, data: _Data) -> Iterable[list[Mention]]:
    """A text, "Loras:<ink.safetensors:0.8>"; or from 2.0 on rows of a hash and "0.8 - ink.safetensors"."""
    loras = data.get("loras")
    if isinstance(loras, str):
        pairs = re.findall(r"<(?:lora:)?([^<>]+):([^<>:]*)>", loras)
        mentions = [mention_of(name, weight) for name, weight in pairs]
    else:
        mentions = []
        for row in _rows(loras):
            weight, dash, name = str(row[1] if len(row) > 1 else "").partition(" - ")
            mentions.append(mention_of(name, weight, digest=row[0]) if dash else mention_of(row[0], weight))
    return [[mention for mention in mentions if mention]]


def _invoke_adapters(_found: Found, data: _Data) -> Iterable[list[Mention]]:
    mentions = []
    for row in data.get("loras") or ():
        if isinstance(row, Mapping) and row.get("is_enabled", row.get("isEnabled", True)) is not False:
            model = row.get("model", row.get("lora", row))
            name = _model_name(model) or row.get("model_name")
            digest = model.get("hash", "") if isinstance(model, Mapping) else ""
            digest = digest.rpartition(":")[2] if str(digest).startswith("sha256:") else ""  # most are of BLAKE3
            mentions.append(mention_of(name or _NAMELESS, row.get("weight", row.get("strength")), digest=digest))
    return [[mention for mention in mentions if mention]]


def _easy_adapters(_found: Found, data: _Data) -> Iterable[list[Mention]]:
    names, weights = (
        next((data[key] for key in keys if key in data), None)
        for keys in (("use_lora_model", "LoRA model"), ("lora_alpha", "LoRA Strength"))
    )
    return [list(_parallel(names, weights))]


def _draw_things_adapters(_found: Found, data: _Data) -> Iterable[list[Mention]]:
    lists = []
    config = data.get("v2")
    for rows in (data.get("lora"), config.get("loras") if isinstance(config, Mapping) else None):
        rows = rows if isinstance(rows, list) else []
        named = (
            mention_of(row.get("model", row.get("file")) or _NAMELESS, row.get("weight"))
            for row in rows
            if isinstance(row, Mapping)
        )
        lists.append([mention for mention in named if mention])
    return lists


def _fooocus_notes(found: Found, data: _Data) -> None:
    """Its styles add words to the prompt."""
    for key, prompt in (("full_prompt", "prompt"), ("full_negative_prompt", "negative_prompt")):
        full = _joined(data.get(key))
        if not is_nothing(full) and full != data.get(prompt):
            found.lacks(f'the words that styles added are left out: "{shown(str(full))}"')


def _invoke_notes(found: Found, data: _Data) -> None:
    """SDXL's second text encoder may have a prompt of its own."""
    for key, prompt in (("positive_style_prompt", "positive_prompt"), ("negative_style_prompt", "negative_prompt")):
        style = data.get(key)
        if not is_nothing(style) and style != data.get(prompt):
            found.lacks(f'the {key.replace("_", " ")} is left out: "{shown(str(style))}"')


def _draw_things_notes(found: Found, data: _Data) -> None:
    """Its whole configuration repeats what is read, beside much that has its neutral value."""
    config = data.get("v2")
    for key in ("hiresFix", "upscaler", "refinerModel", "controls", "faceRestoration", "clipSkip", "tiledDiffusion"):
        value = config.get(key) if isinstance(config, Mapping) else None
        if not is_nothing(value) and not (key == "clipSkip" and value == 1):
            found.ignores(key, value)


def _novelai_notes(found: Found, data: _Data) -> None:
    if re.search(r"[{\[]|::", str(data.get("prompt", ""))):
        found.lacks("NovelAI's brackets for emphasis are not its weights here")
    for key in ("v4_prompt", "v4_negative_prompt"):
        caption = data[key].get("caption") if isinstance(data.get(key), Mapping) else None
        others = caption.get("char_captions") if isinstance(caption, Mapping) else None
        for other in others if isinstance(others, list) else ():
            words = other.get("char_caption") if isinstance(other, Mapping) else other
            if not is_nothing(words):
                found.lacks(f'the prompt of a character is left out: "{shown(str(words))}"')


def _rows(value: Any) -> Iterator[list[Any]]:
    value = read_json(value) if isinstance(value, str) else value
    for row in value if isinstance(value, list) else ():
        if isinstance(row, list) and row:
            yield row


def _below_one(key: str) -> Callable[[_Data], bool]:
    return lambda data: (number(data.get(key)) or 1) < 1


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
        adapters=_swarm_adapters,
        tags_first=False,  # SwarmUI's tags have the text encoder's weight last, A1111's first
        started=lambda data: "initimage" in data or "initimagecreativity" in data,
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
        harmless=r"full_prompt|full_negative_prompt|loras|lora_combined_\d+|lora \d+|base_model_hash|styles|"
        r"refiner_model_hash|"
        r"performance|metadata_scheme|metadata scheme|version|created_by|refiner_switch|refiner switch|"
        r"refiner_swap_method|fooocus v2 expansion|prompt_expansion",
        adapters=_fooocus_adapters,
        notes=_fooocus_notes,
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
        adapters=_ruined_adapters,
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
        r"negative_style_prompt|strength|init_image|type|postprocessing|model_hash|model_list|app_id|"
        r"init_image_strength|board|extra|batch_id|queue_item_id|session_id",
        adapters=_invoke_adapters,
        notes=_invoke_notes,
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
        notes=_novelai_notes,
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
        adapters=_easy_adapters,
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
        adapters=_draw_things_adapters,
        started=_below_one("strength"),
        notes=_draw_things_notes,
    ),
}
"""The forms by their programs' names."""
