"""Latents and text embeddings on disk, kept under a hash of all that they depend on: never stale, made again if lost.

Needs torch. A file that is damaged or gone is made anew; what has not been used for long makes room for what is new.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import PIL
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lorablend.adapters.errors import ResourceError
from lorablend.adapters.wording import shown
from lorablend.engine.disk_cache import make_room
from lorablend.train.data.buckets import Crop
from lorablend.train.data.pictures import load_picture

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

__all__ = ["LatentCache", "TextCache"]

Tensors = Mapping[str, torch.Tensor]
Progress = Callable[[int, int], None]  # (done, in all)

_FORM = "1"  # raise it when what is stored changes its meaning


class LatentCache:
    """What the VAE makes of pictures: its mean, times scaling_factor, f32 [channels, height / cell, width / cell].

    folder: made if it is not there; the other cache may share it. key: hash of the VAE's weights and configuration.
    vae: f32, on any device; `release` lets it go.
    """

    def __init__(self, folder: Path, key: str, vae: AutoencoderKL) -> None:
        self._store = _Store(folder / "latents")
        self._key = key
        self._vae: AutoencoderKL | None = vae
        self._digests: dict[tuple[Path, int, int, int], str] = {}

    def get(self, path: Path, crop: Crop, flip: bool = False) -> torch.Tensor:
        """The latent of one crop, mirrored or not. Raises DataError for a damaged picture."""
        name = _hash("latent", _FORM, PIL.__version__, self._key, self._digest(path), repr(crop), str(flip))
        return self._store.get(name, lambda: {"latent": self._encode(path, crop, flip)})["latent"]

    def fill(self, items: Iterable[tuple[Path, Crop, bool]], progress: Progress | None = None) -> None:
        """Make all that is missing."""
        todo = list(dict.fromkeys(items))
        for done, item in enumerate(todo, 1):
            self.get(*item)
            if progress:
                progress(done, len(todo))

    def release(self) -> None:
        """Let the VAE go; from now on a latent that is gone from the disk is a ResourceError."""
        self._vae = None

    def _digest(self, path: Path) -> str:
        stat = path.stat()
        known = (path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if known not in self._digests:
            self._digests[known] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._digests[known]

    @torch.no_grad()
    def _encode(self, path: Path, crop: Crop, flip: bool) -> torch.Tensor:
        if self._vae is None:
            raise self._store.gone(f"the latent of {shown(path.name)}")
        pixels = torch.from_numpy(load_picture(path, crop, flip).copy()).permute(2, 0, 1)[None]
        values = pixels.to(self._vae.device, torch.float32) / 127.5 - 1
        mean = self._vae.encode(values.to(self._vae.dtype)).latent_dist.mean  # pyright: ignore[reportAttributeAccessIssue]
        shift = self._vae.config.get("shift_factor") or 0.0
        return ((mean.float() - shift) * self._vae.config["scaling_factor"])[0].cpu()


class TextCache:
    """What the text encoders make of captions. key: hash of their weights, configurations and tokenizers.

    encode: one text -> tensors by name, of any dtype, on any device; they come back on the CPU.
    """

    def __init__(self, folder: Path, key: str, encode: Callable[[str], Tensors]) -> None:
        self._store = _Store(folder / "texts")
        self._key = key
        self._encode: Callable[[str], Tensors] | None = encode

    def get(self, text: str) -> dict[str, torch.Tensor]:
        """The tensors of one text."""
        return self._store.get(_hash("text", _FORM, self._key, text), lambda: self._make(text))

    def fill(self, texts: Iterable[str], progress: Progress | None = None) -> None:
        """Make all that is missing."""
        todo = list(dict.fromkeys(texts))
        for done, text in enumerate(todo, 1):
            self.get(text)
            if progress:
                progress(done, len(todo))

    def release(self) -> None:
        """Let the text encoders go; from now on a text that is gone from the disk is a ResourceError."""
        self._encode = None

    def _make(self, text: str) -> Tensors:
        if self._encode is None:
            raise self._store.gone(f'the embedding of "{shown(text)}"')
        return self._encode(text)


class _Store:
    """Small safetensors files, each under the hash of what it was made from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"{folder} cannot be made: {error.strerror or error}") from error
        make_room(folder)

    def get(self, name: str, make: Callable[[], Tensors]) -> dict[str, torch.Tensor]:
        path = self._folder / f"{name}.safetensors"
        with contextlib.suppress(SafetensorError, OSError):
            tensors = load_file(path)
            os.utime(path)  # for `make_room`: used now
            return tensors
        tensors = {key: value.detach().cpu().contiguous() for key, value in make().items()}
        self._write(path, save(tensors))
        return tensors

    def gone(self, what: str) -> ResourceError:
        """For what was there, and cannot be made again: a resume begins by making all of it."""
        return ResourceError(
            f"{what} is gone from {self._folder}; its file has changed, or another program needed the room"
        )

    def _write(self, path: Path, data: bytes) -> None:
        work = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            work.write_bytes(data)
            os.replace(work, path)
        except OSError as error:
            raise ResourceError(
                f"{self._folder} cannot take {len(data) / 1e6:.1f} MB more: {error.strerror or error}; make room, or "
                "set LORABLEND_CACHE to a folder on another disk"
            ) from error
        finally:
            work.unlink(missing_ok=True)


def _hash(*parts: str) -> str:
    """SHA-256 in hex; lengths keep ("ab", "c") and ("a", "bc") apart."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass")).hexdigest()
