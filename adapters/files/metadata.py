"""What a trainer wrote about an adapter (kohya's ss_*, ModelSpec's modelspec.*), and the hashes that identify it.

Metadata may be missing, wrong or megabytes long. Only `scale_entries` can change a picture.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping

from lorablend.adapters.files.file import TensorFile

__all__ = [
    "ALPHA_NAMES",
    "FLAG_NAMES",
    "INIT_NAME",
    "PATTERN_NAMES",
    "RANK_NAMES",
    "base_model_hint",
    "hash_data",
    "hash_file",
    "output_name",
    "scale_entries",
    "title",
    "trigger_words",
]

# What programs call PEFT's settings in plain entries of a header, the most trusted name first.
ALPHA_NAMES = ("lora_alpha", "network_alpha", "alpha")
RANK_NAMES = ("r", "lora_rank", "lora_r", "rank", "network_dim", "network_rank", "lora_dim")
FLAG_NAMES = ("use_rslora", "rs_lora", "rslora", "rank_stabilized")
PATTERN_NAMES = ("alpha_pattern", "rank_pattern")
INIT_NAME = "init_lora_weights"

_TRIGGER_WORDS = 5  # at most, where they are guessed from the training captions
_SELDOM = 0.5  # of the most frequent tag's count: a tag in fewer captions is not a trigger
_LONGEST_PHRASE = 10_000  # characters that are read
_LONGEST_TAGS = 10_000_000

# The start of modelspec.architecture, and of ss_base_model_version.
_ARCHITECTURES = (
    ("stable-diffusion-xl-v1-refiner", "sdxl-refiner"),
    ("stable-diffusion-xl", "sdxl"),
    ("stable-diffusion-v2", "sd2"),
    ("stable-diffusion-v1", "sd15"),
)
_VERSIONS = (("sdxl_", "sdxl"), ("sd_v2", "sd2"), ("sd_2", "sd2"), ("sd_v1", "sd15"), ("sd_1", "sd15"))


def _text(metadata: Mapping[str, str], key: str) -> str:
    """Return the value, or "" if it is absent; kohya writes absent values as "None"."""
    value = metadata.get(key, "").strip()
    return "" if value == "None" else value


def base_model_hint(metadata: Mapping[str, str]) -> str | None:
    """Return the base model that the metadata claims ("sd15", "sd2", "sdxl", "sdxl-refiner"), or None."""
    if _text(metadata, "ss_v2") == "True":
        return "sd2"
    for key, table in (("modelspec.architecture", _ARCHITECTURES), ("ss_base_model_version", _VERSIONS)):
        for start, base in table:
            if _text(metadata, key).startswith(start):
                return base
    return None


def scale_entries(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the plain entries that say how strong the change is, such as "lora_alpha" and "unet.lora_alpha"."""
    names = {*ALPHA_NAMES, *RANK_NAMES, *FLAG_NAMES, *PATTERN_NAMES, INIT_NAME}
    return {key: text for key, text in metadata.items() if key.rpartition(".")[2] in names}


def output_name(metadata: Mapping[str, str]) -> str | None:
    """Return the name that the trainer gave the adapter, which may differ from the file's present name."""
    return _text(metadata, "ss_output_name") or None


def title(metadata: Mapping[str, str]) -> str | None:
    """Return the title, written for people."""
    return _text(metadata, "modelspec.title") or None


def trigger_words(metadata: Mapping[str, str]) -> list[str]:
    """Return words to write into a prompt: the trigger phrase, or as a guess the most frequent training tags."""
    if phrase := _text(metadata, "modelspec.trigger_phrase"):
        return [word.strip() for word in phrase[:_LONGEST_PHRASE].split(",") if word.strip()]
    tags = _tag_counts(metadata).most_common(_TRIGGER_WORDS)
    return [tag for tag, count in tags if count >= _SELDOM * tags[0][1]]


def _tag_counts(metadata: Mapping[str, str]) -> Counter[str]:
    """Count the tags of all data sets, from `{data set: {tag: count}}`; anything of another form is left out."""
    counts: Counter[str] = Counter()
    text = _text(metadata, "ss_tag_frequency")
    try:
        sets = json.loads(text) if len(text) <= _LONGEST_TAGS else None
    except (ValueError, RecursionError):
        return counts
    for tags in sets.values() if isinstance(sets, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int and tag.strip():
                counts[tag.strip()] += count
    return counts


def hash_file(file: TensorFile) -> str:
    """Return the SHA-256 of the whole file in hex; Civitai's AutoV2 is its first 10 digits."""
    return hashlib.sha256(file.buffer).hexdigest()


def hash_data(file: TensorFile) -> str:
    """Return the SHA-256 in hex of everything after the header; Civitai's AutoV3 is its first 12 digits."""
    return hashlib.sha256(memoryview(file.buffer)[file.data_begin :]).hexdigest()
