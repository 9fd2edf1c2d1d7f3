"""InvokeAI's pictures up to version 2: `sd-metadata` in JSON, and the command line `Dream`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.forms import FORMS, read_form
from lorablend.app.pictures.metadata.found import Found
from lorablend.app.pictures.metadata.mentions import mention_of

__all__ = ["read_dream", "read_old_invoke"]

_LORA = re.compile(r"withLora\(([^,()]*)(?:,([^,()]*))?\)")
_NEGATIVE = re.compile(r"\[([^\[\]]*)\]")
_DREAM = re.compile(r'"(.*)"((?:[^"])*)', re.DOTALL)
_JOINED = re.compile(r"(?:^|(?<=\s))-(?:([A-Za-z])(?=\d)|(A)(?=k_))")  # -s20, -Ak_euler_a, as the first versions write
_OPTION = re.compile(r"(?:^|\s)--?([A-Za-z][\w-]*)(?:[ =]+([^\s-][^\s]*|-?\d[^\s]*))?")
_OPTIONS = {
    "s": "steps",
    "steps": "steps",
    "S": "seed",
    "seed": "seed",
    "W": "width",
    "width": "width",
    "H": "height",
    "height": "height",
    "C": "cfg_scale",
    "cfg_scale": "cfg_scale",
    "A": "scheduler",
    "sampler": "scheduler",
    "I": "init_image",
    "init_img": "init_image",
}


def read_old_invoke(data: Mapping[str, Any], text: str) -> Found:
    """Read the object in `sd-metadata`, whose part `image` has the settings."""
    image = data.get("image")
    image = dict(image) if isinstance(image, Mapping) else {}
    prompts = image.pop("prompt", "")
    parts = prompts if isinstance(prompts, list) else [prompts]
    prompt = ", ".join(str(part.get("prompt", "") if isinstance(part, Mapping) else part) for part in parts)
    image["scheduler"] = image.pop("sampler", None)
    image["model"] = data.get("model_weights", data.get("model"))
    found = _read(image, prompt, text)
    weights = [str(part.get("weight", 1)) for part in parts if isinstance(part, Mapping)]
    if any(weight not in ("1", "1.0") for weight in weights):
        found.lacks(f"the weights of the prompt's parts ({shown(', '.join(weights))}) are not done here")
    return found


def read_dream(text: str) -> Found | None:
    """Read a command line, `"a fox [blurry]" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_euler`; None for any other text."""
    match = _DREAM.fullmatch(text.strip())
    if not match:
        return None
    options: list[tuple[str, str]] = _OPTION.findall(_JOINED.sub(r"-\1\2 ", match[2]))
    values = {_OPTIONS.get(name, name): value or True for name, value in options}
    return _read(values, match[1], text)


def _read(values: Mapping[str, Any], prompt: str, text: str) -> Found:
    """Read the settings, and what the prompt says in brackets: the negative prompt, and adapters."""
    mentions = [mention_of(name.strip(), weight.strip() or 1) for name, weight in _LORA.findall(prompt)]
    prompt = _LORA.sub("", prompt)
    negative = ", ".join(part.strip() for part in _NEGATIVE.findall(prompt))
    found = read_form(
        FORMS["InvokeAI"], {**values, "prompt": _NEGATIVE.sub("", prompt).strip(), "negative_prompt": negative}, text
    )
    found.take_adapters([mention for mention in mentions if mention])
    for name in re.findall(r"withLora[^\s]*", prompt):
        found.lacks(f"the adapter in {shown(name[:80])} cannot be read; it is left out")
    return found
