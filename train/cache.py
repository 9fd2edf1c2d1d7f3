"""Latents and text embeddings on disk, named by a hash of everything they depend on, so that they are never stale.

Needs torch. Damaged or missing files are computed again, and the least recently used ones are evicted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import PIL
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lorablend.adapters.errors import ResourceError
from lorablend.adapters.files.atomic import atomic_write
from lorablend.adapters.wording import shown
from lorablend.engine.disk_cache import make_room
from lorablend.train.data.buckets import Crop
from lorablend.train.data.pictures import load_picture

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

__all__ = ["LatentCache", "TextCache"]

Tensors = Mapping[str, torch.Tensor]
Progress = Callable[[int, int], None]  # (done, total)

_FORM = "1"  # to be raised when the stored tensors change their meaning


class LatentCache:
    """Latents of pictures: the VAE's mean, times scaling_factor, f32 [channels, height / cell, width / cell].

    Args:
        folder: Created if necessary; the other cache may share it.
        key: Hash of the VAE's weights and configuration.
        vae: f32, on any device; `release` frees it.
    """

    def __init__(self, folder: Path, key: str, vae: AutoencoderKL) -> None:
        self._store = _Store(folder / "latents")
        self._key = key
        self._vae: AutoencoderKL | None = vae
        # Earlier versions stored latents without the statistics under the plain name.
        self._form = f"{_FORM} with statistics" if _statistics(vae) else _FORM
        self._digests: dict[tuple[Path, int, int, int], str] = {}

    def get(self, path: Path, crop: Crop, flip: bool = False) -> torch.Tensor:
        """The latent of one crop, mirrored or not. Raises DataError for a damaged picture."""
        name = _hash("latent", self._form, PIL.__version__, self._key, self._digest(path), repr(crop), str(flip))
        return self._store.get(name, lambda: {"latent": self._encode(path, crop, flip)})["latent"]

    def fill(self, items: Iterable[tuple[Path, Crop, bool]], progress: Progress | None = None) -> None:
        """Compute the missing latents."""
        todo = list(dict.fromkeys(items))
        for done, item in enumerate(todo, 1):
            self.get(*item)
            if progress:
                progress(done, len(todo))

    def release(self) -> None:
        """Free the VAE; a latent that is missing from now on is a ResourceError."""
        self._vae = None

    def _digest(self, path: Path) -> str:
        stat = path.stat()
        version = (path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if version not in self._digests:
            self._digests[version] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._digests[version]

    @torch.no_grad()
    def _encode(self, path: Path, crop: Crop, flip: bool) -> torch.Tensor:
        if self._vae is None:
            raise self._store.gone(f"the latent of {shown(path.name)}")
        pixels = torch.from_numpy(load_picture(path, crop, flip).copy()).permute(2, 0, 1)[None]
        values = pixels.to(self._vae.device, torch.float32) / 127.5 - 1
        mean = self._vae.encode(values.to(self._vae.dtype)).latent_dist.mean  # pyright: ignore[reportAttributeAccessIssue]
        config = self._vae.config
        latent = mean[0].float() - (config.get("shift_factor") or 0.0)
        if statistics := _statistics(self._vae):
            latents_mean, latents_std = (torch.tensor(each, device=latent.device).view(-1, 1, 1) for each in statistics)
            latent = (latent - latents_mean) / latents_std
        return (latent * config["scaling_factor"]).cpu()


def _statistics(vae: AutoencoderKL) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the VAE's latents_mean and latents_std (Playground v2.5); None if it has not both."""
    given = vae.config.get("latents_mean"), vae.config.get("latents_std")
    return None if None in given else given  # pyright: ignore[reportReturnType] - diffusers has no types here


class TextCache:
    """Embeddings of texts.

    Args:
        key: Hash of the text encoders' weights, configurations and tokenizers.
        encode: Computes the tensors of one text, by name, in any dtype, on any device; `get` returns them on the CPU.
    """

    def __init__(self, folder: Path, key: str, encode: Callable[[str], Tensors]) -> None:
        self._store = _Store(folder / "texts")
        self._key = key
        self._encode: Callable[[str], Tensors] | None = encode

    def get(self, text: str) -> dict[str, torch.Tensor]:
        """The tensors of a text."""
        return self._store.get(_hash("text", _FORM, self._key, text), lambda: self._make(text))

    def fill(self, texts: Iterable[str], progress: Progress | None = None) -> None:
        """Compute the missing embeddings."""
        todo = list(dict.fromkeys(texts))
        for done, text in enumerate(todo, 1):
            self.get(text)
            if progress:
                progress(done, len(todo))

    def release(self) -> None:
        """Free the text encoders; an embedding that is missing from now on is a ResourceError."""
        self._encode = None

    def _make(self, text: str) -> Tensors:
        if self._encode is None:
            raise self._store.gone(f'the embedding of "{shown(text)}"')
        return self._encode(text)


class _Store:
    """Small safetensors files, each named by the hash of what it was computed from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"{folder} cannot be created: {error.strerror or error}") from error
        make_room(folder)

    def get(self, name: str, make: Callable[[], Tensors]) -> dict[str, torch.Tensor]:
        path = self._folder / f"{name}.safetensors"
        with contextlib.suppress(SafetensorError, OSError):
            tensors = load_file(path)
            os.utime(path)  # `make_room` deletes the least recently used files
            return tensors
        tensors = {key: value.detach().cpu().contiguous() for key, value in make().items()}
        self._write(path, save(tensors))
        return tensors

    def gone(self, what: str) -> ResourceError:
        """The error for a tensor that cannot be computed again; a resume starts by computing all that is missing."""
        return ResourceError(
            f"{what} is gone from {self._folder}; its source has changed, or another program evicted it"
        )

    def _write(self, path: Path, data: bytes) -> None:
        try:
            with atomic_write(path) as part:
                part.write_bytes(data)
        except OSError as error:
            raise ResourceError(
                f"{self._folder} has no room for another {len(data) / 1e6:.1f} MB: {error.strerror or error}; free up "
                "space, or set LORABLEND_CACHE to a folder on another disk"
            ) from error


def _hash(*parts: str) -> str:
    """SHA-256 in hex; the lengths keep ("ab", "c") and ("a", "bc") apart."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass")).hexdigest()
