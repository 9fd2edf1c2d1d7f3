"""Latents and text embeddings on disk: correct, computed once, and never stale."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from lorablend.adapters.errors import ResourceError
from lorablend.train.cache import LatentCache, TextCache
from lorablend.train.data.buckets import assign
from tests.train.data.data_files import pattern, save

(CROP,) = assign([(96, 64)], 64, 16)


@pytest.fixture(scope="module")
def vae(sdxl_source: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(sdxl_source / "vae").requires_grad_(False)


def stored(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_latents_are_the_vaes_own(vae: AutoencoderKL, tmp_path: Path) -> None:
    from diffusers.image_processor import VaeImageProcessor

    path = save(tmp_path / "a.png", 1, (96, 64))
    latent = LatentCache(tmp_path / "cache", "key", vae).get(path, CROP)
    assert latent.shape == (4, CROP.height // 8, CROP.width // 8)
    box = (CROP.left, CROP.top, CROP.left + CROP.width, CROP.top + CROP.height)
    cut = pattern(1, (96, 64)).resize(CROP.scaled, Image.Resampling.LANCZOS).crop(box)
    pixels = VaeImageProcessor().preprocess(cut)
    expected = vae.encode(pixels).latent_dist.mode() * vae.config["scaling_factor"]
    assert torch.allclose(latent, expected[0], atol=1e-6)


def test_statistics_of_the_vae_are_used(vae: AutoencoderKL, tmp_path: Path) -> None:
    """As in diffusers' training scripts for SDXL; latents without them, from an earlier version, are not read."""
    path = save(tmp_path / "a.png", 1, (96, 64))
    plain = LatentCache(tmp_path / "cache", "key", vae).get(path, CROP)
    given = {"latents_mean": [-1.5, 2.0, -1.25, 2.5], "latents_std": [8.0, 4.0, 2.0, 5.0]}
    other = AutoencoderKL.from_config({**vae.config, **given})
    other.load_state_dict(vae.state_dict())
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in given.values())
    factor = vae.config["scaling_factor"]
    latent = LatentCache(tmp_path / "cache", "key", other).get(path, CROP)
    assert torch.allclose(latent, (plain / factor - mean) / std * factor, atol=1e-6)


def test_made_once_and_the_same_from_the_disk(vae: AutoencoderKL, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 1, (96, 64))
    first = LatentCache(tmp_path / "cache", "key", vae).get(path, CROP)
    (file,) = stored(tmp_path / "cache")
    changed = file.stat().st_ino
    second = LatentCache(tmp_path / "cache", "key", vae).get(path, CROP)
    assert torch.equal(first, second)
    assert stored(tmp_path / "cache")[0].stat().st_ino == changed
    (tmp_path / "b.png").write_bytes(path.read_bytes())  # the content counts, not the name
    LatentCache(tmp_path / "cache", "key", vae).get(tmp_path / "b.png", CROP)
    assert stored(tmp_path / "cache") == [file]


def test_whatever_changes_makes_another(vae: AutoencoderKL, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 1, (96, 64))
    cache = LatentCache(tmp_path / "cache", "key", vae)
    (square,) = assign([(96, 64)], 64, 16, buckets=False)
    latents = [cache.get(path, CROP), cache.get(path, CROP, flip=True), cache.get(path, square)]
    LatentCache(tmp_path / "cache", "other", vae).get(path, CROP)
    save(path, 2, (96, 64))  # the same name but another picture, while the cache is open
    os.utime(path, ns=(0, 0))
    latents.append(cache.get(path, CROP))
    assert len(stored(tmp_path / "cache")) == 5
    assert not torch.equal(latents[0], latents[1])
    assert not torch.allclose(latents[0], latents[3], atol=1e-2)
    mirrored = save(tmp_path / "m.png", 1, (96, 64))
    image = pattern(1, (96, 64)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(mirrored)
    assert torch.allclose(cache.get(mirrored, CROP.flipped()), latents[1], atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_a_damaged_file_is_made_anew(vae: AutoencoderKL, tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path / "a.png", 1, (96, 64))
    cache = LatentCache(tmp_path / "cache", "key", vae)
    first = cache.get(path, CROP)
    (file,) = stored(tmp_path / "cache")
    file.write_bytes(content)
    assert torch.equal(cache.get(path, CROP), first)
    assert torch.equal(LatentCache(tmp_path / "cache", "key", vae).get(path, CROP), first)
    assert file.stat().st_size > 100


def test_fill(vae: AutoencoderKL, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{number}.png", number, (96, 64)) for number in range(3)]
    seen: list[tuple[int, int]] = []
    items = [(path, CROP, False) for path in (*paths, paths[0])]
    LatentCache(tmp_path / "cache", "key", vae).fill(items, lambda *args: seen.append(args))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert len(stored(tmp_path / "cache")) == 3


def test_texts(tmp_path: Path) -> None:
    asked: list[str] = []

    def encode(text: str) -> dict[str, torch.Tensor]:
        asked.append(text)
        return {"hidden": torch.full((2, 3), len(text), dtype=torch.bfloat16), "pooled": torch.ones(3)[::2]}

    cache = TextCache(tmp_path, "key", encode)
    cache.fill(["a fox", "", "a fox"])
    again = TextCache(tmp_path, "key", encode)
    assert asked == ["a fox", ""]
    found = again.get("a fox")
    assert asked == ["a fox", ""]
    assert found["hidden"].dtype == torch.bfloat16
    assert found["hidden"].tolist() == [[5.0] * 3] * 2
    assert found["pooled"].tolist() == [1.0, 1.0]
    TextCache(tmp_path, "other", encode).get("a fox")
    again.get("A fox")
    assert asked == ["a fox", "", "a fox", "A fox"]


def test_what_is_gone_when_the_networks_are(vae: AutoencoderKL, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 1, (96, 64))
    latents, texts = LatentCache(tmp_path, "key", vae), TextCache(tmp_path, "key", lambda text: {"x": torch.ones(1)})
    latents.fill([(path, CROP, False)])
    texts.fill(["a fox"])
    for cache in (latents, texts):
        cache.release()
    assert torch.equal(texts.get("a fox")["x"], torch.ones(1))
    assert latents.get(path, CROP).shape == (4, CROP.height // 8, CROP.width // 8)
    for file in stored(tmp_path):
        file.unlink()
    with pytest.raises(ResourceError) as caught:
        texts.get("a fox")
    assert str(caught.value) == f'the embedding of "a fox" is gone from {tmp_path / "texts"}; {_GONE}'
    with pytest.raises(ResourceError) as caught:
        latents.get(path, CROP)
    assert str(caught.value) == f"the latent of a.png is gone from {tmp_path / 'latents'}; {_GONE}"


_GONE = "its source has changed, or another program evicted it"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError) as caught:
        TextCache(tmp_path / "file", "key", lambda text: {})
    assert str(caught.value) == f"{tmp_path / 'file' / 'texts'} cannot be created: Not a directory"


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    cache = TextCache(tmp_path, "key", lambda text: {"x": torch.zeros(1_000_000)})
    (tmp_path / "texts").rmdir()
    with pytest.raises(ResourceError) as caught:
        cache.get("a fox")
    assert str(caught.value) == (
        f"{tmp_path / 'texts'} has no room for another 4.0 MB: No such file or directory; free up space, or set "
        "LORABLEND_CACHE to a folder on another disk"
    )
