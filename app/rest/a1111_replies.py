"""What A1111's API replies, for openapi.json: the keys that its clients read."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = [
    "Embeddings",
    "Flags",
    "ImageInfo",
    "Images",
    "Lora",
    "Memory",
    "Nothing",
    "Options",
    "ProgressReply",
    "QueueStatus",
    "SamplerItem",
    "SchedulerItem",
    "Scripts",
    "StableDiffusionModel",
    "SystemInfo",
    "Upscaler",
]


class A1111Reply(BaseModel):
    """What all replies share."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class Nothing(A1111Reply):
    """Nothing: the request is done."""


class Images(A1111Reply):
    """The pictures that were drawn."""

    images: list[str]
    """Files in base64; none if the job was interrupted."""
    parameters: dict[str, Any]
    """The request, with null for the fields that were left out."""
    info: str
    """JSON text with seeds, settings and infotexts."""


class ProgressState(A1111Reply):
    """The state of the client's job."""

    skipped: bool
    interrupted: bool
    stopping_generation: bool
    job: str
    job_count: int
    job_timestamp: str
    job_no: int
    sampling_step: int
    sampling_steps: int


class ProgressReply(A1111Reply):
    """The progress of the client's job."""

    progress: float
    """From 0 to 1."""
    eta_relative: float
    """Seconds to the end."""
    state: ProgressState
    current_image: str | None
    """The picture so far, in base64."""
    textinfo: str | None
    current_task: str | None


class ImageInfo(A1111Reply):
    """The settings in a picture."""

    info: str
    items: dict[str, str]
    parameters: dict[str, str]


class Lora(A1111Reply):
    """An adapter that a tag may name."""

    name: str
    alias: str
    path: str
    """The file's name in the library, never a path of the server's machine."""
    metadata: dict[str, str | None]


class SamplerItem(A1111Reply):
    """A sampler."""

    name: str
    aliases: list[str]
    options: dict[str, str]


class SchedulerItem(A1111Reply):
    """A schedule of noise."""

    name: str
    label: str
    aliases: list[str] | None
    default_rho: float
    need_inner_model: bool


class StableDiffusionModel(A1111Reply):
    """A base model."""

    title: str
    model_name: str
    filename: str
    hash: str | None
    sha256: str | None
    config: str | None


class Options(A1111Reply):
    """The settings that clients read."""

    sd_model_checkpoint: str
    sd_checkpoint_hash: str | None
    sd_vae: str
    CLIP_stop_at_last_layers: int
    samples_format: str
    samples_save: bool
    enable_pnginfo: bool
    eta_noise_seed_delta: int
    face_restoration_model: str | None


class Ram(A1111Reply):
    """Bytes of memory."""

    free: int
    used: int
    total: int


class Cuda(A1111Reply):
    """Why there is no CUDA memory."""

    error: str


class Memory(A1111Reply):
    """Memory of the server's machine."""

    ram: Ram
    cuda: Cuda


class Flags(A1111Reply):
    """Command-line flags."""

    api: bool
    listen: bool
    share: bool
    theme: str | None


class Scripts(A1111Reply):
    """Names of scripts."""

    txt2img: list[str]
    img2img: list[str]


class Embeddings(A1111Reply):
    """Textual inversions."""

    loaded: dict[str, Any]
    skipped: dict[str, Any]


class QueueStatus(A1111Reply):
    """The queue, as Gradio 3 described it."""

    msg: str
    queue_size: int
    """Jobs that wait."""


class SystemInfo(A1111Reply):
    """The server."""

    Version: str


class Upscaler(A1111Reply):
    """An upscaler."""

    name: str
    model_name: str | None
    model_path: str | None
    model_url: str | None
    scale: float
