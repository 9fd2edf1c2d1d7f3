"""One reader for pictures of any program: the table of programs, how each is recognised, and how it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.adapters.wording import listed, shown
from lorablend.app.pictures.metadata.a1111 import mentions_of, read_a1111
from lorablend.app.pictures.metadata.comfy import read_graph
from lorablend.app.pictures.metadata.dream import read_dream, read_old_invoke
from lorablend.app.pictures.metadata.file import open_texts
from lorablend.app.pictures.metadata.forms import FORMS, read_form
from lorablend.app.pictures.metadata.found import Found, Mention, is_nothing
from lorablend.app.pictures.metadata.graph import is_graph
from lorablend.app.pictures.metadata.mentions import read_json, unite
from lorablend.app.pictures.metadata.own import read_record
from lorablend.app.pictures.metadata.texts import Texts
from lorablend.app.pictures.record import Record

__all__ = ["PROGRAMS", "Program", "read_metadata", "read_named"]

_PLACES = ("parameters", "UserComment", "Comment", "comment", "XPComment", "ImageDescription", "Description")
_Object = dict[str, Any]
_MOCHI = re.compile(
    r";\s*(?=(?:Exclude from Image|Model|Steps|Guidance Scale|Seed|Size|Upscaler|Scheduler|ML Compute Unit|Generator|"
    r"Date):)"
)
# The beginning of an object, also of a broken one, or one of Python.
_JSON = re.compile(r"\s*\[?\s*\{\s*([\"'])[^\"']*\1\s*:")


@dataclass(frozen=True)
class _Material:
    """What there is to recognise. objects: the texts that are objects in JSON, by their names."""

    texts: Mapping[str, str]
    objects: Mapping[str, _Object]
    size: tuple[int, int]
    suffix: str


@dataclass(frozen=True)
class Program:
    """One row of the table.

    Attributes:
        name: The program.
        how: How its pictures are recognised.
        read: Reads them; None for pictures of others. Raises RequestError for what cannot be read.
    """

    name: str
    how: str
    read: Callable[[_Material], Found | None]


def _flat(name: str, recognise: Callable[[str, _Object], _Object | None]) -> Callable[[_Material], Found | None]:
    """Read the first object that is in a program's form."""

    def read(material: _Material) -> Found | None:
        for key, value in material.objects.items():
            data = recognise(key, value)
            if data is not None:
                return read_form(FORMS[name], data, material.texts.get(key, ""))
        return None

    return read


def _swarm(_key: str, data: _Object) -> _Object | None:
    settings = data.get("sui_image_params")
    return {**settings, "sui_models": data.get("sui_models")} if isinstance(settings, dict) else None


def _mre(_key: str, data: _Object) -> _Object | None:
    return data if re.match(r"Fooocus.*MRE", str(data.get("software", ""))) else None


def _ruined(_key: str, data: _Object) -> _Object | None:
    return data if re.match(r"RuinedFooocus", str(data.get("software", ""))) else None


def _fooocus(_key: str, data: _Object) -> _Object | None:
    said = str(data.get("version", data.get("Version", "")))
    is_its = "fooocus" in said.lower() or data.get("metadata_scheme") == "fooocus"
    return data if is_its or {"base_model", "performance"} <= data.keys() or "Base Model" in data else None


def _invoke(key: str, data: _Object) -> _Object | None:
    return data if key == "invokeai_metadata" or {"positive_prompt", "cfg_scale"} <= data.keys() else None


def _draw_things(_key: str, data: _Object) -> _Object | None:
    return data if {"c", "uc"} <= data.keys() or {"c", "sampler", "scale"} <= data.keys() else None


def _easy(_key: str, data: _Object) -> _Object | None:
    names = ("use_stable_diffusion_model", "Stable Diffusion model")
    is_its = any(name in data for name in names) or {"num_inference_steps", "sampler_name"} <= data.keys()
    return data if is_its else None


def _diffusers(_key: str, data: _Object) -> _Object | None:
    return data if {"prompt", "num_inference_steps"} <= data.keys() else None


def _tensorart(key: str, data: _Object) -> _Object | None:
    return data if key == "generation_data" or {"negativePrompt", "samplerName", "baseModel"} <= data.keys() else None


def _stability_matrix(_key: str, data: _Object) -> _Object | None:
    return data if {"PositivePrompt", "CfgScale"} <= data.keys() else None


def _civitai(key: str, data: _Object) -> _Object | None:
    if key.casefold() in ("extrametadata", "extra_metadata"):
        return data
    more = data.get("extraMetadata")
    more = read_json(more) if isinstance(more, str) else more
    extra = data.get("extra")
    return {"airs": extra.get("airs") if isinstance(extra, dict) else None, **more} if isinstance(more, dict) else None


def _novelai(key: str, data: _Object) -> _Object | None:
    inner = read_json(data["Comment"]) if isinstance(data.get("Comment"), str) else data
    if not isinstance(inner, dict):
        return None
    is_its = "uc" in inner or "NovelAI" in str(data.get("Software", ""))
    return {**inner, "Source": data.get("Source")} if is_its and "prompt" in inner and "c" not in inner else None


def _own(material: _Material) -> Found | None:
    text = material.texts.get("lorablend", material.texts.get("ImageDescription", ""))
    if not text.startswith("{") or '"request"' not in text[:40]:
        return None
    try:
        return read_record(Record.from_json(text), material.suffix)
    except RequestError as error:
        if "parameters" not in material.texts and "UserComment" not in material.texts:
            raise
        found = _a1111(material)  # which older programs read too
        if found is not None:
            found.lacks(f"the record in the picture is not read: {error}")
        return found


def _a1111(material: _Material) -> Found | None:
    for key in (*_PLACES, *material.texts):
        text = material.texts.get(key)
        found = None if text is None or key in material.objects else read_a1111(text)
        if found is not None and (key in _PLACES or found.settings.keys() - {"prompt", "negative_prompt", "blend"}):
            return found
    text = material.texts.get("parameters", "")
    if text and "parameters" not in material.objects and not _JSON.match(text):  # a prompt without settings
        found = Found("AUTOMATIC1111 (or its form)", text=text)
        found.take("prompt", text)
        return found
    return None


def _graphs(material: _Material) -> Iterator[tuple[str, _Object]]:
    for key, value in material.objects.items():
        inner = value.get("prompt")
        inner = read_json(inner) if isinstance(inner, str) else inner
        for graph in (value, inner):
            if isinstance(graph, dict) and is_graph(graph):
                yield key, graph


def _comfy(material: _Material) -> Found | None:
    for key, graph in _graphs(material):
        return read_graph(graph, material.texts.get(key, ""), material.size)
    if "prompt" in material.texts and "workflow" in material.texts:
        raise RequestError("the picture's ComfyUI graph cannot be read; give another picture")
    workflows = [material.objects.get("workflow"), *(value.get("workflow") for value in material.objects.values())]
    if any(isinstance(workflow, dict) and "nodes" in workflow for workflow in workflows):
        raise RequestError(
            "a picture of ComfyUI with the layout of its workflow only, which is not read; give one with the graph, too"
        )
    return None


def _easy_chunks(material: _Material) -> Found | None:
    """A text for each setting."""
    texts = material.texts
    if not ({"num_inference_steps", "Guidance Scale"} & texts.keys()):
        return None
    return read_form(FORMS["Easy Diffusion"], texts, "\n".join(f"{key}: {value}" for key, value in texts.items()))


def _sd_scripts(material: _Material) -> Found | None:
    """A text for each setting; the size is the picture's."""
    texts = material.texts
    if not {"prompt", "seed", "steps", "scale"} <= texts.keys():
        return None
    width, height = material.size
    return read_form(FORMS["sd-scripts"], {**texts, "width": width, "height": height}, texts["prompt"])


def _sygil(material: _Material) -> Found | None:
    """A text for each setting, with a prefix."""
    data = {key[3:]: value for key, value in material.texts.items() if key[:3].casefold() == "sd:"}
    return read_form(FORMS["Sygil"], data, data["prompt"]) if "prompt" in data else None


def _mochi(material: _Material) -> Found | None:
    """One text, with semicolons between the settings."""
    for text in material.texts.values():
        if text.lstrip().startswith("Include in Image:"):
            pairs = (part.partition(":") for part in _MOCHI.split(text))
            return read_form(
                FORMS["Mochi Diffusion"], {key.strip(): value.strip(" \n;") for key, _, value in pairs}, text
            )
    return None


def _novelai_chunks(material: _Material) -> Found | None:
    """A text `Comment` beside others, which repeat the prompt and name the model."""
    comment = material.objects.get("Comment")
    if comment is None or "NovelAI" not in material.texts.get("Software", "") + material.texts.get("Title", ""):
        return None
    data = {"prompt": material.texts.get("Description"), **comment, "Source": material.texts.get("Source")}
    return read_form(FORMS["NovelAI"], data, material.texts["Comment"])


def _old_invoke(material: _Material) -> Found | None:
    data = material.objects.get("sd-metadata")
    if data is not None:
        return read_old_invoke(data, material.texts["sd-metadata"])
    return read_dream(material.texts["Dream"]) if "Dream" in material.texts else None


PROGRAMS = (
    Program("lorablend", "the text `lorablend`, or EXIF's description: its record", _own),
    Program("SwarmUI", "an object with `sui_image_params`", _flat("SwarmUI", _swarm)),
    Program("TensorArt", "the text `generation_data`", _flat("TensorArt", _tensorart)),
    Program("Fooocus-MRE", "an object whose `software` says so", _flat("Fooocus-MRE", _mre)),
    Program("RuinedFooocus", "an object whose `software` says so", _flat("RuinedFooocus", _ruined)),
    Program("Fooocus", "an object with its scheme or version", _flat("Fooocus", _fooocus)),
    Program("NovelAI", "the text `Comment`, of the software NovelAI", _novelai_chunks),
    Program("InvokeAI", "the text `invokeai_metadata`", _flat("InvokeAI", _invoke)),
    Program("InvokeAI 2", "the text `sd-metadata` or `Dream`", _old_invoke),
    Program("Draw Things", "an object with `c` and `uc`, in XMP", _flat("Draw Things", _draw_things)),
    Program("Easy Diffusion", "an object with `use_stable_diffusion_model`", _flat("Easy Diffusion", _easy)),
    Program("Easy Diffusion", "a text for each setting", _easy_chunks),
    Program("diffusers", "an object with `num_inference_steps`", _flat("diffusers", _diffusers)),
    Program("sd-scripts", "a text for each setting, `scale` among them", _sd_scripts),
    Program("Sygil", "a text for each setting, as `SD:prompt`", _sygil),
    Program("Mochi Diffusion", "a text that begins with `Include in Image:`", _mochi),
    Program("NovelAI", "an object with `uc`", _flat("NovelAI", _novelai)),
    Program("AUTOMATIC1111", "a text with its settings, or the text `parameters`", _a1111),
    Program("Stability Matrix", "an object with `PositivePrompt`", _flat("Stability Matrix", _stability_matrix)),
    Program("ComfyUI", "an object of nodes, or the text `prompt`", _comfy),
    Program("Civitai", "an object `extraMetadata`", _flat("Civitai", _civitai)),
)
"""The programs, in the order in which they are tried."""

# Pictures of these are named, and not read: their texts have no settings.
_OTHERS = {
    "Midjourney": r"Job ID: [0-9a-f-]{36}|--v \d|midjourney",
    "DALL·E or ChatGPT": r"DALL|OpenAI|ChatGPT",
    "Adobe Firefly": r"Firefly",
    "Google's Gemini or Imagen": r"Google AI|Imagen|Gemini",
    "Leonardo.Ai": r"leonardo",
    "diffusers": r"diffusers",
    "Stability AI": r"stability\.?ai|dreamstudio",
    "DiffusionBee": r"diffusionbee",
    "Mochi Diffusion": r"mochi diffusion",
    "InvokeAI": r"invokeai_",
    "NovelAI": r"NovelAI",
    "NMKD Stable Diffusion GUI": r"nmkd",
    "Bing Image Creator": r"Bing Image Creator|Microsoft Designer",
    "Black Forest Labs": r"Black Forest Labs",
    "Ideogram": r"\bIdeogram\b",
    "Recraft": r"\bRecraft\b",
    "Krea": r"\bkrea\.ai\b",
}


def read_metadata(source: Path | bytes, name: str) -> Found:
    """Read what a picture file says.

    Args:
        source: Its path, or its contents.
        name: What messages call it.

    Raises:
        RequestError: it is no picture, or says nothing that is known about how it was made.
    """
    texts, size, suffix, damage = open_texts(source, name)
    try:
        found = read_named(texts, name, size, suffix)
    except RequestError as error:
        if damage:
            raise RequestError(f"{name} is damaged ({damage}); give the whole file") from error
        raise
    if damage:
        found.lacks(f"the picture is damaged ({damage}); what stood behind that place is lost")
    return found


def read_named(texts: Texts, name: str, size: tuple[int, int], suffix: str = ".png") -> Found:
    """Read the texts of a picture. Raises RequestError like `read_metadata`."""
    material = _material(texts, size, suffix)
    failed: RequestError | None = None
    for program in PROGRAMS:
        try:
            found = program.read(material)
        except RequestError as error:
            failed = failed or error
            continue
        if found is not None:
            _add_from_graph(found, material)
            for later in ("extras", "postprocessing"):  # A1111's, when it enlarges a picture
                if text := texts.named.get(later):
                    found.lacks(f"the enlargement afterwards is not done here ({shown(text[:80])})")
            for unreadable in texts.unreadable:
                found.lacks(f"the text {unreadable} is in no encoding that is known; it is left out")
            return found
    if failed is not None:
        raise RequestError(f"{name}: {failed}") from failed
    raise RequestError(f"{name} {_why_not(material, texts)}")


def _material(texts: Texts, size: tuple[int, int], suffix: str) -> _Material:
    objects = {key: read_json(text) for key, text in texts.named.items() if text.lstrip().startswith("{")}
    return _Material(texts.named, {k: v for k, v in objects.items() if isinstance(v, dict)}, size, suffix)


def _add_from_graph(found: Found, material: _Material) -> None:
    """Add the adapters of a graph beside the text that savers of ComfyUI write: some leave them out of the text."""
    for key, graph in _graphs(material):
        if found.record is not None or found.text == material.texts.get(key) or found.text.startswith("{"):
            continue
        try:
            other = read_graph(graph, "")
        except RequestError:
            continue
        items = other.settings.get("blend", {}).get("items", ())
        mentions = [
            Mention(name=item["adapter"], weight=item["weight"], fields=_rest(item, "adapter", "weight"))
            for item in items
        ]
        for line in other.missing:
            if line.startswith(("the adapter", "the weight of")):
                found.lacks(line)
        known = mentions_of(found.text)
        found.take_adapters(unite(known, mentions)[len(known) :])


def _rest(item: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in keys}


def _why_not(material: _Material, texts: Texts) -> str:
    if texts.unreadable:
        return (
            f"has a text ({', '.join(texts.unreadable)}) in no encoding that is known (ASCII, UTF-8, UTF-16, JIS); "
            "save the picture again with its own program"
        )
    written = {key: value for key, value in material.texts.items() if not is_nothing(value)}
    if not written:
        return "says nothing about how it was made; give a picture as the program saved it"
    said = " ".join(f"{key}: {value[:2000]}" for key, value in written.items())
    for program, pattern in _OTHERS.items():
        if re.search(pattern, said, re.IGNORECASE):
            return f"is a picture of {program}, which is not read"
    for key in _PLACES:
        if key in material.objects:
            keys = listed([str(k) for k in material.objects[key]], "key")
            return f"has settings in a form that is not known ({key} in JSON: {keys})"
        if _JSON.match(material.texts.get(key, "")):
            return f"has settings in a form that is not known ({key}: {shown(material.texts[key][:60])})"
    return f"has no settings of a program that is known ({listed(list(written), 'text')})"
