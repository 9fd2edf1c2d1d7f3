"""The model to convert: checked for being complete and readable before any long work."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lorablend.adapters.errors import ModelError
from lorablend.convert.checkpoint import inspect_checkpoint

__all__ = ["Source", "files_to_download", "read_checkpoint", "read_folder"]

# In Optimum's order: nodes without names get consecutive numbers, so this keeps the files equal to Optimum's.
NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")
_SD15_PARTS = ("text_encoder", "unet", "vae", "tokenizer", "scheduler")
_SDXL_PARTS = (*NETWORKS, "tokenizer", "tokenizer_2", "scheduler")
_PARTS = {
    "StableDiffusionPipeline": _SD15_PARTS,
    "StableDiffusionInpaintPipeline": _SD15_PARTS,
    "LatentConsistencyModelPipeline": _SD15_PARTS,
    "StableDiffusionXLPipeline": _SDXL_PARTS,
    "StableDiffusionXLInpaintPipeline": _SDXL_PARTS,
}


@dataclass(frozen=True)
class Source:
    """A model to convert.

    Attributes:
        name: As lorablend.json records it: a Hub id, or the name of a local folder or file; never a path.
        folder: model_index.json, configurations and tokenizers; also the weights, unless they are in `checkpoint`.
        parameters: The number of parameters of each network: text_encoder, text_encoder_2, unet, vae.
        revision: The Hub's commit; None for local sources.
        checkpoint: The single file that has the weights.
        variants: "fp16" for each network whose weights file has that in its name.
        scheduler: Entries that override those of scheduler_config.json, because the checkpoint says so.
        left_out: The names of tensors inside the checkpoint's networks that no module takes.
    """

    name: str
    folder: Path
    parameters: Mapping[str, int]
    revision: str | None = None
    checkpoint: Path | None = None
    variants: Mapping[str, str] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def read_folder(folder: Path, name: str, *, revision: str | None, half: bool) -> Source:
    """Check a diffusers folder; with `half`, prefer weights stored as fp16. Raises ModelError."""
    parts, files = _read_configs(folder, name)
    parameters: dict[str, int] = {}
    variants: dict[str, str] = {}
    missing: list[str] = []
    for network in (part for part in parts if part in NETWORKS):
        weights, variant = _choose_weights(files, network, half=half)
        if not weights:
            missing.append(f"{network}/{_stem(network)}.safetensors")
        if variant:
            variants[network] = variant
        parameters[network] = sum(_count_parameters(folder / file, f"{name}: {file}") for file in weights)
    if missing:
        raise ModelError(f"{name} lacks {', '.join(missing)}; give a complete diffusers folder")
    return Source(name, folder, parameters, revision=revision, variants=variants)


def read_checkpoint(file: Path, config: Path) -> Source:
    """Check a single-file checkpoint and the diffusers folder with its configurations. Raises ModelError."""
    found = inspect_checkpoint(file)
    parts, _ = _read_configs(config, str(config))
    config_family = "SDXL" if "text_encoder_2" in parts else "SD 1.x"
    if config_family != found.family:
        raise ModelError(
            f"{file.name} is an {found.family} checkpoint, but {config} configures {config_family}; "
            "give a matching config"
        )
    configured = _channels(config)
    if configured != found.channels:
        raise ModelError(
            f"{file.name} has a UNet that takes {found.channels} channels, as in an inpainting model, but {config} "
            f"configures {configured}; give a plain checkpoint, or the diffusers folder of that model"
        )
    return Source(
        file.name,
        config,
        found.parameters,
        checkpoint=file,
        scheduler=_scheduler_changes(found.marks, found.metadata),
        left_out=found.left_out,
    )


def _channels(config: Path) -> int:
    """How many channels the configured UNet takes in."""
    try:
        return int(json.loads((config / "unet/config.json").read_text(encoding="utf-8")).get("in_channels", 4))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"unet/config.json of {config} cannot be read; give a complete diffusers folder") from error


def files_to_download(index: Mapping[str, Any], files: Collection[str], *, half: bool) -> list[str]:
    """List the files of a repository that a conversion reads: configurations and one copy of the weights.

    Args:
        index: The repository's model_index.json.
        files: Paths inside the repository.
        half: Prefer weights stored as fp16.
    """
    wanted = {"model_index.json"}
    for part in _PARTS.get(str(index.get("_class_name")), ()):
        wanted |= {file for file in files if file.startswith(f"{part}/") and file.endswith((".json", ".txt"))}
        if part in NETWORKS:
            wanted |= set(_choose_weights(files, part, half=half)[0])
    return sorted(wanted & {*files})


def _read_configs(folder: Path, name: str) -> tuple[tuple[str, ...], set[str]]:
    """Check the configurations of all parts that the pipeline needs; return the parts and every file of the folder."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{name} has no model_index.json; give a diffusers folder or a .safetensors checkpoint"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: model_index.json cannot be read: {error}") from error
    class_name = str(index.get("_class_name")) if isinstance(index, dict) else "None"
    if class_name not in _PARTS:
        raise ModelError(f"{name} is a {class_name}; give one of {', '.join(_PARTS)}")
    files = {path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()}
    missing = []
    for part in _PARTS[class_name]:
        if part.startswith("tokenizer"):
            words = (f"{part}/vocab.json", f"{part}/merges.txt")
            missing += [] if f"{part}/tokenizer.json" in files else [file for file in words if file not in files]
        else:
            file = f"{part}/scheduler_config.json" if part == "scheduler" else f"{part}/config.json"
            missing += [file] if file not in files else []
    if missing:
        raise ModelError(f"{name} lacks {', '.join(missing)}; give a complete diffusers folder")
    return _PARTS[class_name], files


def _stem(network: str) -> str:
    """The weights file's name without suffix, which differs between transformers and diffusers."""
    return "model" if network.startswith("text_encoder") else "diffusion_pytorch_model"


def _choose_weights(files: Collection[str], network: str, *, half: bool) -> tuple[list[str], str | None]:
    """Choose the safetensors files of a network, whole or in shards; also return "fp16" if they are that variant.

    An fp16 variant is a rounded copy, so without `half` it is used only if there is nothing else.
    """
    for variant in ("fp16", None) if half else (None, "fp16"):
        stem = re.escape(f"{network}/{_stem(network)}" + (f".{variant}" if variant else ""))
        whole = [file for file in files if re.fullmatch(rf"{stem}\.safetensors", file)]
        shards = [file for file in files if re.fullmatch(rf"{stem}-\d+-of-\d+\.safetensors", file)]
        if whole or (shards and len(shards) == int(shards[0].rpartition("-of-")[2].removesuffix(".safetensors"))):
            return sorted(whole or shards), variant
    return [], None


def _count_parameters(file: Path, name: str) -> int:
    try:
        with safe_open(file, "numpy") as tensors:
            return sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{name} is not a readable safetensors file: {error}; download it again") from error


def _scheduler_changes(keys: Collection[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read a checkpoint's noise settings: empty tensors named v_pred and ztsnr, or modelspec's prediction_type."""
    changes: dict[str, Any] = {}
    if "v_pred" in keys or metadata.get("modelspec.prediction_type", "").startswith("v"):
        changes["prediction_type"] = "v_prediction"
    if "ztsnr" in keys:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return changes
