"""The settings of a picture as text in AUTOMATIC1111's form, which image sites and other programs read.

    a fox <lora:ink:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 7, Size: 1024x1024, Model: sdxl, …

The settings are one line, the last, and begin with "Steps: ". The tags are those of
`lorablend.adapters.blends.tags`, with names that every reader takes; the record beside it
(`lorablend.app.pictures.record`) has the adapters' own.
"""

import json
import re
from dataclasses import dataclass
from importlib.metadata import version

from lorablend.adapters import Blend, write_tags
from lorablend.engine.request import Request
from lorablend.engine.schedulers import SCHEDULERS
from lorablend.engine.schedulers.a1111 import schedule_type_of

__all__ = ["Infotext", "parse_infotext", "write_infotext"]

# AUTOMATIC1111's own reader, and Civitai's, but never slower than the text is long: whoever made the picture chose it.
_SETTING = re.compile(r'(\w[\w \-/]{1,59}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_HASHES = re.compile(r", Hashes:\s*({[^{}]+})")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")  # what Civitai's reader does not take in an adapter's name


@dataclass(frozen=True)
class Infotext:
    """What `parse_infotext` found; settings are text as written, quotes removed."""

    prompt: str
    negative_prompt: str
    settings: dict[str, str]


def write_infotext(request: Request, blend: Blend, seed: int, model: str) -> str:
    """The text for the picture of one seed. model: the name of the model's folder.

    Each adapter is hashed once; that reads its whole file.
    """
    names = _tag_names(blend)
    adapters = {name: item.adapter for name, item in zip(names, blend, strict=True)}
    settings: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": SCHEDULERS[request.scheduler].label,
        **_schedule(request),
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model": model,
    }
    if request.strength is not None:
        settings["Denoising strength"] = f"{request.strength:g}"
    if adapters:
        settings["Lora hashes"] = ", ".join(f"{name}: {adapter.autov3}" for name, adapter in adapters.items())
    settings["Version"] = f"lorablend {version('lorablend')}"
    pairs = [f"{name}: {_quote(str(value))}" for name, value in settings.items()]
    if adapters:  # not quoted, for Civitai; at the end, where its commas and colons mislead no other reader
        pairs.append("Hashes: " + json.dumps({f"lora:{name}": adapter.autov2 for name, adapter in adapters.items()}))
    lines = [" ".join(part for part in (request.prompt, *write_tags(blend, names)) if part)]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    return "\n".join([*lines, ", ".join(pairs)])


def parse_infotext(text: str) -> Infotext:
    """Read text in this form, whoever wrote it; text without settings is a prompt."""
    *lines, last = text.strip().split("\n")
    plain, hashes = _HASHES.sub("", last), _HASHES.search(last)
    settings = {name: _unquote(value) for name, value in _SETTING.findall(plain)}
    if hashes:
        settings["Hashes"] = hashes[1]
    if len(settings) < 3:
        lines, settings = [*lines, last], {}
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    return Infotext(prompt.strip(), negative.strip(), settings)


def _schedule(request: Request) -> dict[str, str]:
    if request.timesteps is not None:  # which AUTOMATIC1111 has no word for
        return {"Timesteps": ", ".join(f"{timestep:g}" for timestep in request.timesteps)}
    return {"Schedule type": schedule_type_of(str(request.spacing))}


def _tag_names(blend: Blend) -> list[str]:
    """One name per item that every reader takes; two files that would get the same name are told apart by hash."""
    owners: dict[str, str] = {}
    names = []
    for item in blend:
        name = _UNSAFE.sub("_", item.adapter.name)
        if owners.setdefault(name, item.adapter.sha256) != item.adapter.sha256:
            name = f"{name}_{item.adapter.autov2}"
        names.append(name)
    return names


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _unquote(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value
