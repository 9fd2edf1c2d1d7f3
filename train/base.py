"""The base model: found and identified by its configurations before anything heavy; then loaded with torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorablend.adapters.errors import ModelError, TrainError
from lorablend.adapters.wording import listed
from lorablend.convert.conversion import find_source
from lorablend.convert.networks import load_network
from lorablend.convert.shipped import diffusers_folder
from lorablend.convert.source import Source

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

__all__ = ["Base", "BaseNetworks", "find_base", "load_base"]

_PREDICTIONS = ("epsilon", "v_prediction")
_SD2_TEXT_WIDTH = 1024  # diffusers has one pipeline class for SD 1.x and 2.x


@dataclass(frozen=True)
class Base:
    """A base model by its configurations; nothing is loaded.

    Attributes:
        source: Folder, weights and parameter counts, as `lorablend.convert` finds them.
        family: "sdxl" or "sd15".
        resolution: The native width and height in pixels.
        cell: Pixels per side of a latent's cell.
        unit: Width and height must be multiples of this many pixels.
        prediction_type: "epsilon" or "v_prediction".
        zero_empty: Without a text, the model draws with zeros, not with the embedding of "".
        scheduler: Its configuration, as are unet and vae.
    """

    source: Source
    family: str
    resolution: int
    cell: int
    unit: int
    prediction_type: str
    zero_empty: bool
    scheduler: Mapping[str, Any]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A Hub id, or the name of the local folder or file; never a path."""
        return self.source.name

    @property
    def text_encoders(self) -> tuple[str, ...]:
        return tuple(name for name in self.source.parameters if name.startswith("text_encoder"))

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """SHA-256 in hex of each network's weights and configuration; a text encoder's covers its tokenizer too."""
        folder = self.source.folder
        files = {name: [folder / name / "config.json"] for name in self.source.parameters}
        for name in self.text_encoders:
            tokenizer = folder / name.replace("text_encoder", "tokenizer")
            files[name] += sorted(path for path in tokenizer.iterdir() if path.is_file())
        if self.source.checkpoint:
            start = hashlib.sha256(self.sha256.encode())
        else:
            start = hashlib.sha256()
            for name, paths in files.items():
                paths += _weights(self.source, name)
        return {name: _sha256(paths, start) for name, paths in files.items()}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hex: of a checkpoint's file, as model sites list it, or of a folder's UNet weights."""
        if self.source.checkpoint:
            return _sha256([self.source.checkpoint])
        return _sha256(_weights(self.source, "unet"))


@dataclass(frozen=True)
class BaseNetworks:
    """A base model in memory: frozen (no parameter requires a gradient), in evaluation mode, on the CPU.

    The VAE is f32, for SDXL's overflows in half precision. SDXL has two text encoders and tokenizers, SD 1.5 has one.
    """

    base: Base
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]
    tokenizers: tuple[PreTrainedTokenizerBase, ...]

    @property
    def family(self) -> str:
        return self.base.family


def find_base(model: str) -> Base:
    """Find a diffusers folder, a Hugging Face id (downloaded if necessary), a .safetensors checkpoint, or "demo".

    Raises:
        ModelError: The model does not exist or is incomplete.
        TrainError: Models of this kind cannot be trained.
    """
    # fp16 if there is a choice, as other programs do
    source = find_source(diffusers_folder() if model == "demo" else model, None, "fp16", lambda *_: None)
    if model == "demo":
        source = replace(source, name=model)
    configs = source.folder
    unet, vae = _read_json(configs / "unet" / "config.json"), _read_json(configs / "vae" / "config.json")
    index = _read_json(configs / "model_index.json")
    scheduler = {**_read_json(configs / "scheduler" / "scheduler_config.json"), **source.scheduler}
    if unet.get("in_channels", 4) != unet.get("out_channels", 4):
        raise TrainError(
            f"{source.name} is an inpainting model, its UNet takes {unet['in_channels']} channels and gives "
            f"{unet['out_channels']}; train on the base model that it was made from"
        )
    family = "sdxl" if "text_encoder_2" in source.parameters else "sd15"
    if family == "sd15" and unet.get("cross_attention_dim") == _SD2_TEXT_WIDTH:
        raise TrainError(f"{source.name} is Stable Diffusion 2, which cannot be trained; give SDXL or SD 1.5")
    prediction = str(scheduler.get("prediction_type", "epsilon"))
    if prediction not in _PREDICTIONS:
        raise TrainError(f"{source.name} predicts {prediction!r}; only {' and '.join(_PREDICTIONS)} can be trained")
    cell = 2 ** (len(vae["block_out_channels"]) - 1)
    sample = unet.get("sample_size") or (128 if family == "sdxl" else 64)
    return Base(
        source=source,
        family=family,
        resolution=int(sample) * cell,
        cell=cell,
        unit=cell * 2 ** (len(unet["block_out_channels"]) - 1),
        prediction_type=prediction,
        zero_empty=bool(index.get("force_zeros_for_empty_prompt", family == "sdxl")),
        scheduler=scheduler,
        unet=unet,
        vae=vae,
    )


def load_base(
    base: Base | str,
    *,
    dtype: torch.dtype | None = None,
    text_dtype: torch.dtype | None = None,
) -> BaseNetworks:
    """Load every network on the CPU.

    Args:
        dtype: Of the UNet and the text encoders; None is f32.
        text_dtype: Of the text encoders, if it differs.

    Raises:
        ModelError: A tensor is missing, which diffusers and transformers would fill with random numbers.
    """
    import torch

    base = find_base(base) if isinstance(base, str) else base
    source, dtype = base.source, dtype or torch.float32
    index = _read_json(source.folder / "model_index.json")
    networks: dict[str, Any] = {}
    dtypes = {"unet": dtype, "vae": torch.float32}
    for name in source.parameters:
        library, class_name = index[name]
        cls = getattr(import_module(library), class_name)
        with _no_progress_bar():
            network = _load_network(source, name, cls, dtypes.get(name, text_dtype or dtype))
        networks[name] = network.requires_grad_(False).eval()
    tokenizers = tuple(
        _tokenizer(source.folder, name.replace("text_encoder", "tokenizer")) for name in base.text_encoders
    )
    return BaseNetworks(
        base=base,
        unet=networks["unet"],
        vae=networks["vae"],
        text_encoders=tuple(networks[name] for name in base.text_encoders),
        tokenizers=tokenizers,
    )


def _tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """A tokenizer that pads with its padding token, but reads it in a text like any other word.

    SDXL's second one pads with "!", which transformers takes for a special token wherever it stands in a text (number
    0). It is a word of its own in the original code, in kohya's trainer and in every program that draws (number 256).
    """
    from transformers import AutoTokenizer, CLIPTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, subfolder=name)
    if not isinstance(tokenizer, CLIPTokenizer):
        return tokenizer
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    plain = CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=tokenizer.model_max_length)
    plain.pad_token = tokenizer.pad_token
    return plain


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Silence transformers' progress bar, which appears for every network, however small."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _load_network(source: Source, name: str, cls: Any, dtype: torch.dtype) -> Any:
    try:
        model, missing = load_network(cls, name, source.folder, source.checkpoint, source.variants.get(name), dtype)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{source.name}: {name} could not be loaded: {reason}") from error
    if missing:
        raise ModelError(f"{source.name}: {name} lacks {listed(missing)}; download it again")
    return model


def _weights(source: Source, name: str) -> list[Path]:
    variant = source.variants.get(name)
    stem = "model" if name.startswith("text_encoder") else "diffusion_pytorch_model"
    stem += f".{variant}" if variant else ""
    folder = source.folder / name
    return sorted([*folder.glob(f"{stem}.safetensors"), *folder.glob(f"{stem}-*-of-*.safetensors")])


def _sha256(files: list[Path], start: Any = None) -> str:
    digest = start.copy() if start else hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
