"""A model folder as Optimum Intel writes it, read and checked once.

model_index.json
scheduler/scheduler_config.json
unet/, text_encoder/, vae_decoder/      openvino_model.xml + .bin, config.json
vae_encoder/                            the same; needed only for image to image
text_encoder_2/                         the same; only in SDXL
tokenizer/, tokenizer_2/                openvino_tokenizer.xml + .bin, tokenizer_config.json
"""

import hashlib
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lorablend.adapters.errors import ModelError
from lorablend.engine.graph.ir import Ir
from lorablend.engine.graph.names import EXACT_TOKENS

__all__ = ["ModelFolder", "Tokenizer", "refuse_statistics"]

_FAMILIES = {
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl",
    "StableDiffusionXLInpaintPipeline": "sdxl",
    "StableDiffusionPipeline": "sd15",
    "StableDiffusionImg2ImgPipeline": "sd15",
    "StableDiffusionInpaintPipeline": "sd15",
    "LatentConsistencyModelPipeline": "sd15",
    "LatentConsistencyModelImg2ImgPipeline": "sd15",
}
_MODELS = {
    "sd15": ("unet", "text_encoder", "vae_decoder"),
    "sdxl": ("unet", "text_encoder", "text_encoder_2", "vae_decoder"),
}
_TOKENIZERS = {"sd15": ("tokenizer",), "sdxl": ("tokenizer", "tokenizer_2")}
_SD2_TEXT_WIDTH = 1024  # OpenCLIP ViT-H; SD 1.5's CLIP ViT-L has 768. diffusers has one pipeline class for both.
_CONVERT = "convert it with `lorablend convert`"


@dataclass(frozen=True)
class Tokenizer:
    """One tokenizer.

    Attributes:
        xml: Its graph.
        max_length: The number of tokens, with those for begin and end.
        pad_token_id: The token that fills a shorter prompt up; SDXL's two tokenizers differ in it.
        exact: Whether the graph gives CLIP's own tokens for every text, see `clip_tokenizer`.
    """

    xml: Path
    max_length: int
    pad_token_id: int
    exact: bool


@dataclass(frozen=True)
class ModelFolder:
    """A Stable Diffusion or SDXL model in OpenVINO's format.

    Attributes:
        path: The folder.
        family: "sdxl", "sd15" or "sd2".
        components: Name -> .xml of every network and tokenizer in the folder.
        configs: Name -> config.json of every network, unchanged.
        tokenizers: "tokenizer" and, in SDXL, "tokenizer_2".
        scheduler_config: scheduler_config.json, unchanged.
        force_zeros_for_empty_prompt: Whether an absent negative prompt is conditioned on zeros, rather than on an empty
            prompt.

    Raises:
        ModelError: the folder lacks a file that drawing a picture needs, or holds another kind of model.
    """

    path: Path
    family: str = field(init=False)
    components: Mapping[str, Path] = field(init=False, repr=False)
    configs: Mapping[str, Mapping[str, Any]] = field(init=False, repr=False)
    tokenizers: Mapping[str, Tokenizer] = field(init=False, repr=False)
    scheduler_config: Mapping[str, Any] = field(init=False, repr=False)
    force_zeros_for_empty_prompt: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        path = Path(self.path)
        index = _read_index(path)
        class_name = str(index.get("_class_name")).removeprefix("OV")
        family = _FAMILIES.get(class_name)
        if family is None:
            raise ModelError(f"{path} holds a {class_name}; give an SDXL or Stable Diffusion 1.x/2.x model")
        if index.get("requires_aesthetics_score"):
            raise ModelError(
                f"{path}: requires_aesthetics_score in model_index.json is true, as in the SDXL refiner, which is not "
                "supported; give an SDXL base model"
            )
        components = {name: _network(path, name) for name in _MODELS[family]}
        if (path / "vae_encoder" / "openvino_model.xml").exists():
            components["vae_encoder"] = _network(path, "vae_encoder")
        configs = {name: _read_json(xml.with_name("config.json")) for name, xml in components.items()}
        for name, config in configs.items():
            if config.get("use_attention_mask"):
                raise ModelError(
                    f"{path}: use_attention_mask in {name}/config.json is true, which is not supported; give a model "
                    "with CLIP's text encoder"
                )
        tokenizers = {name: _read_tokenizer(path / name) for name in _TOKENIZERS[family]}
        components |= {name: tokenizer.xml for name, tokenizer in tokenizers.items()}
        if family == "sd15" and configs["unet"].get("cross_attention_dim") == _SD2_TEXT_WIDTH:
            family = "sd2"
        values = {
            "path": path,
            "family": family,
            "components": MappingProxyType(components),
            "configs": MappingProxyType(configs),
            "tokenizers": MappingProxyType(tokenizers),
            "scheduler_config": MappingProxyType(_read_json(path / "scheduler" / "scheduler_config.json")),
            "force_zeros_for_empty_prompt": bool(index.get("force_zeros_for_empty_prompt", family == "sdxl")),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def component(self, name: str) -> Path:
        """The .xml of one network or tokenizer: "unet", "text_encoder", "vae_decoder", "tokenizer"…

        Raises:
            ModelError: the folder does not have it.
        """
        if name not in self.components:
            raise ModelError(f"{self.path} has no {name}; it has {', '.join(sorted(self.components))}")
        return self.components[name]

    @cached_property
    def graphs(self) -> Mapping[str, Ir]:
        """The graphs of the networks that an adapter can change, by component."""
        names = [name for name in ("unet", "text_encoder", "text_encoder_2") if name in self.components]
        return {name: Ir(self.component(name)) for name in names}

    @cached_property
    def parameters(self) -> Mapping[tuple[str, str], tuple[int, ...]]:
        """(component, "module path.weight" or "….bias") -> shape in torch, of everything that an adapter can change."""
        return {(name, parameter): shape for name, ir in self.graphs.items() for parameter, shape in ir.shapes.items()}

    @property
    def scheduler_class(self) -> str:
        """The name of the scheduler's class in diffusers, such as "EulerDiscreteScheduler"."""
        return str(self.scheduler_config.get("_class_name", ""))

    @property
    def in_channels(self) -> int:
        """The UNet's input channels: 4, or 9 for an inpainting model."""
        return int(self.configs["unet"]["in_channels"])

    @property
    def latent_channels(self) -> int:
        return int(self.configs["vae_decoder"].get("latent_channels", 4))

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent cell, in each direction."""
        return 2 ** (len(self.configs["vae_decoder"]["block_out_channels"]) - 1)

    @property
    def scaling_factor(self) -> float:
        """The UNet's latent is (VAE latent - shift_factor) * scaling_factor. AutoencoderKL's default is 0.18215."""
        factor = self.configs["vae_decoder"].get("scaling_factor")
        if factor is None:
            return 0.18215
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
            raise ModelError(
                f"{self.path}: scaling_factor in vae_decoder/config.json is {factor}; expected a number above 0"
            )
        return float(factor)

    @property
    def shift_factor(self) -> float:
        return float(self.configs["vae_decoder"].get("shift_factor") or 0.0)

    @cached_property
    def latent_statistics(self) -> tuple[np.ndarray, np.ndarray] | None:
        """latents_mean and latents_std of each channel, f32 [channels, 1, 1]; None if the VAE has not both.

        With them, the UNet's latent is (VAE latent - mean) / std * scaling_factor (Playground v2.5). Only the SDXL
        pipelines of diffusers use them.

        Raises:
            ModelError: they are not one number for each channel.
        """
        config, channels = self.configs["vae_decoder"], self.latent_channels
        given = [config.get(name) for name in ("latents_mean", "latents_std")]
        if self.family != "sdxl" or None in given:
            return None
        try:
            mean, std = (np.asarray(values, np.float32).reshape(channels, 1, 1) for values in given)
        except (TypeError, ValueError):
            mean = std = np.zeros(0, np.float32)
        if not std.size or not np.isfinite([mean, std]).all() or not std.all():
            raise ModelError(
                f"{self.path}: latents_mean and latents_std in vae_decoder/config.json are {given[0]} and {given[1]}; "
                f"expected {channels} numbers each, and none of the second 0"
            )
        return mean, std

    @property
    def default_size(self) -> tuple[int, int]:
        """The (width, height), in pixels, that the UNet was trained at."""
        size = self.configs["unet"].get("sample_size") or 64
        height, width = size if isinstance(size, list) else (size, size)
        return int(width) * self.vae_scale_factor, int(height) * self.vae_scale_factor

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the content, 64 hex digits.

        It covers the bytes of all .xml and .json files, and the size and modification time of each .bin: SDXL's .bin
        files take gigabytes, too much to hash at every start.
        """
        digest = hashlib.sha256()
        for file in sorted(self.path.rglob("*")):
            if file.suffix not in (".xml", ".json", ".bin") or not file.is_file():
                continue
            stat = file.stat()
            content = f"{stat.st_size} {stat.st_mtime_ns}".encode() if file.suffix == ".bin" else file.read_bytes()
            digest.update(f"{file.relative_to(self.path).as_posix()} {len(content)}\n".encode() + content)
        return digest.hexdigest()


def refuse_statistics(model: ModelFolder) -> None:
    """Raise ModelError for a model whose VAE has statistics of the latents, which OpenVINO GenAI would ignore."""
    if model.latent_statistics:
        raise ModelError(
            f"{model.path}: the VAE has latents_mean and latents_std, which OpenVINO GenAI ignores, so that its "
            "pictures would be wrong; use runtime=live"
        )


def _read_index(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ModelError(f"{path} does not exist; give a model folder written by `lorablend convert`")
    if path.is_file():
        raise ModelError(f"{path} is a file, not a model folder; {_CONVERT}")
    if not (path / "model_index.json").exists():
        raise ModelError(f"{path} has no model_index.json; give a model folder written by `lorablend convert`")
    return _read_json(path / "model_index.json")


def _network(path: Path, name: str) -> Path:
    xml = path / name / "openvino_model.xml"
    for file in (xml, xml.with_suffix(".bin"), xml.with_name("config.json")):
        if not file.exists():
            raise ModelError(f"{path} has no {name}/{file.name}; {_CONVERT}")
    return xml


def _read_tokenizer(folder: Path) -> Tokenizer:
    xml = folder / "openvino_tokenizer.xml"
    for file in (xml, xml.with_suffix(".bin")):
        if not file.exists():
            raise ModelError(f"{folder.parent} has no {folder.name}/{file.name}; {_CONVERT}")
    config = _read_json(folder / "tokenizer_config.json")
    # The converter resolves the pad token's name to its number; GenAI reads the same one.
    graph = ET.parse(xml)
    pad = graph.find("rt_info/pad_token_id")
    if pad is None or not pad.get("value"):
        raise ModelError(f"{xml} has no pad_token_id; {_CONVERT}")
    exact = graph.find(f"rt_info/{EXACT_TOKENS}") is not None
    return Tokenizer(xml, int(config.get("model_max_length", 77)), int(pad.get("value", "")), exact)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent.parent} has no {path.parent.name}/{path.name}; {_CONVERT}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}; {_CONVERT}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not an object; {_CONVERT}")
    return content
