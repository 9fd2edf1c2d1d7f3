"""Download the files that a conversion reads from the Hugging Face Hub, into the Hub's own cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lorablend.adapters.errors import ModelError, ResourceError
from lorablend.convert.source import files_to_download

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["download"]

_ANSWER = 30.0  # seconds in which the Hub answers
_LARGEST = 40e9  # bytes; SDXL in 32 bits takes 14e9
_LARGEST_INDEX = 1e6  # bytes; it is read into memory


def download(repo: str, *, half: bool, weights: bool = True) -> tuple[Path, str]:
    """Download a repository; return its folder in the Hub's cache, and its commit hash.

    An interrupted download continues where it stopped. Without a network, the cached files are used.

    Args:
        repo: "owner/name".
        half: Prefer weights stored as fp16.
        weights: False downloads only configurations and tokenizers.

    Raises:
        ModelError: The repository cannot be read, or is not a diffusers model.
        ResourceError: The disk has no room for it.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,  # of httpx, or from huggingface_hub 2 on of httpx2
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        info = HfApi().model_info(repo, files_metadata=True, timeout=_ANSWER)
    except GatedRepoError:
        raise _gated(repo) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(f"{repo} is not on huggingface.co; if it is private, run `hf auth login`") from None
    except (HTTPError, OSError) as error:
        try:
            folder = Path(snapshot_download(repo, local_files_only=True))
        except LocalEntryNotFoundError:
            message = f"{repo} is not in the local cache and huggingface.co cannot be reached"
            raise ModelError(f"{message}; connect to the network, or give a local folder") from error
        return folder, folder.name

    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if "model_index.json" not in sizes:
        raise ModelError(f"{repo} has no model_index.json; give a diffusers model or a .safetensors checkpoint")
    if sizes["model_index.json"] > _LARGEST_INDEX:
        raise ModelError(f"{repo}: model_index.json has {sizes['model_index.json']} bytes; give a diffusers model")
    try:
        index = Path(hf_hub_download(repo, "model_index.json")).read_text(encoding="utf-8")
        files = files_to_download(json.loads(index), sizes, half=half)
        if not weights:
            files = [file for file in files if not file.endswith(".safetensors")]
        _check_size(info, {file: sizes[file] for file in files})
        folder = Path(snapshot_download(repo, allow_patterns=files))
    except GatedRepoError:
        raise _gated(repo) from None
    except (HTTPError, OSError) as error:
        raise ModelError(f"{repo}: the download stopped: {error}; run again to continue it") from error
    return folder, folder.name


def _gated(repo: str) -> ModelError:
    return ModelError(f"{repo} asks you to accept its terms on huggingface.co; do so, then run `hf auth login`")


def _check_size(info: ModelInfo, sizes: dict[str, int]) -> None:
    from huggingface_hub import constants, try_to_load_from_cache

    if (total := sum(sizes.values())) > _LARGEST:
        raise ModelError(
            f"{info.id}: its files have {total / 1e9:.1f} GB, no model that can be converted has more than "
            f"{_LARGEST / 1e9:.0f} GB; give another repository"
        )
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    needed = sum(
        size
        for file, size in sizes.items()
        if not isinstance(try_to_load_from_cache(info.id, file, revision=info.sha), str)
    )
    free = psutil.disk_usage(str(cache)).free
    if needed > free:
        raise ResourceError(
            f"{info.id}: the download needs {needed / 1e9:.1f} GB of disk, {cache} has {free / 1e9:.1f} GB free; "
            "free up space, or set HF_HOME to a folder on another disk"
        )
