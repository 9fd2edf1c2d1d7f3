"""The metadata of the files that our tools write: entries of the inputs, what the tool did, and the new hashes.

kohya's ss_* entries are kept as the tools of sd-scripts keep them (networks/svd_merge_lora.py, resize_lora.py);
modelspec.* follows https://github.com/Stability-AI/ModelSpec. `lorablend.made_by` is JSON with the tool, its settings,
and the name, SHA-256 and weight of each input.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lorablend.adapters.files.metadata import scale_entries, trigger_words
from lorablend.adapters.files.write import Stored, hash_tensors

__all__ = ["MADE_BY", "merged_metadata", "network_metadata", "rewritten_metadata", "with_hashes"]

MADE_BY = "lorablend.made_by"

_VERSIONS = {"sdxl": "sdxl_base_v1-0", "sd15": "sd_v1", "sd2": "sd_v2"}
_ARCHITECTURES = {
    "sdxl": "stable-diffusion-xl-v1-base/lora",
    "sd15": "stable-diffusion-v1/lora",
    "sd2": "stable-diffusion-v2-768-v/lora",
}
_IMPLEMENTATIONS = {
    "sdxl": "https://github.com/Stability-AI/generative-models",
    "sd15": "https://github.com/CompVis/stable-diffusion",
    "sd2": "https://github.com/Stability-AI/stablediffusion",
}
# Kept if all inputs agree.
_COMMON = ("modelspec.prediction_type", "modelspec.resolution", "modelspec.license", "modelspec.author")
# They describe alphas, which our files store as tensors, or tensors that have changed.
_STALE = ("lora_adapter_metadata", "sshs_legacy_hash")
_DYNAMIC = "Dynamic"  # sd-scripts' word for ranks that differ from module to module


def merged_metadata(
    inputs: Sequence[Mapping[str, str]], base: str, title: str, made_by: Mapping[str, Any]
) -> dict[str, str]:
    """Return the entries of a file that was made from several others, or from none: its purpose and its origin."""
    versions = [version for entries in inputs if (version := entries.get("ss_base_model_version", "None")) != "None"]
    entries = {
        "ss_v2": str(base == "sd2"),
        "ss_base_model_version": next(iter(versions), _VERSIONS.get(base, "")),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _ARCHITECTURES.get(base, ""),
        "modelspec.implementation": _IMPLEMENTATIONS.get(base, ""),
        "modelspec.title": title,
        "modelspec.merged_from": ", ".join(source["name"] for source in made_by["inputs"]),
        "modelspec.trigger_phrase": ", ".join(dict.fromkeys(word for each in inputs for word in trigger_words(each))),
        MADE_BY: _json(made_by),
    }
    for key in _COMMON:
        values = {each.get(key, "") for each in inputs}
        entries[key] = values.pop() if len(values) == 1 else ""
    return {key: value for key, value in entries.items() if value}


def rewritten_metadata(
    metadata: Mapping[str, str], title: str | None, comment: str | None, made_by: Mapping[str, Any]
) -> dict[str, str]:
    """Return the entries of a file that is a new form of another one: all that are still true.

    `comment` is put before the trainer's own comment. An earlier `made_by` entry is kept inside the new one.
    """
    stale = {*_STALE, *scale_entries(metadata)}
    entries = {key: value for key, value in metadata.items() if key not in stale and 'lora_alpha"' not in value}
    if title and "modelspec.sai_model_spec" in entries:
        entries["modelspec.title"] = title
    if comment:
        before = metadata.get("ss_training_comment", "None")
        entries["ss_training_comment"] = comment if before == "None" else f"{comment}; {before}"
    earlier = {"earlier": metadata[MADE_BY]} if MADE_BY in metadata else {}
    entries[MADE_BY] = _json({**made_by, **earlier})
    return entries


def network_metadata(ranks: Mapping[bool, set[int]]) -> dict[str, str]:
    """Return the ss_network_* entries for alpha = rank.

    `ranks` are the ranks of linear layers (False) and of convolutions larger than 1×1 (True).
    """
    linear, kernels = (_rank_text(ranks.get(kernel, set())) for kernel in (False, True))
    entries = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": linear or kernels,
        "ss_network_alpha": linear or kernels,
    }
    if kernels:
        entries["ss_network_args"] = _json({"conv_dim": kernels, "conv_alpha": kernels})
    return entries


def _rank_text(ranks: set[int]) -> str:
    return _DYNAMIC if len(ranks) > 1 else "".join(map(str, ranks))


def with_hashes(metadata: Mapping[str, str], tensors: Mapping[str, Stored]) -> dict[str, str]:
    """Add the hashes by which programs recognise a file: of the tensors' bytes, without the header."""
    digest = hash_tensors(tensors)
    entries = {**metadata, "sshs_model_hash": digest}
    if "modelspec.sai_model_spec" in metadata:
        entries["modelspec.hash_sha256"] = f"0x{digest}"
    return entries


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
