"""The batches of a training: latents and embeddings from the caches, in the order that the seed determines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from accelerate import Accelerator

from lorablend.adapters.wording import listed
from lorablend.engine.disk_cache import default_cache_dir
from lorablend.train.base import BaseNetworks
from lorablend.train.cache import LatentCache, TextCache
from lorablend.train.config import TrainConfig
from lorablend.train.data.buckets import Crop, assign, bucket_step
from lorablend.train.data.captions import training_texts
from lorablend.train.data.examples import Example
from lorablend.train.data.pictures import load_mask
from lorablend.train.order import Order, Pick
from lorablend.train.run import Run
from lorablend.train.text import cut_texts, encode, tokenize

__all__ = ["Batch", "Data"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Batch:
    """The pictures of one batch, on the device.

    Attributes:
        latents: f32 [batch, channels, height, width].
        text: Embeddings, or tokens and flags; see `trainee.Trainee.forward`.
        time_ids: f32 [batch, 6].
        mask: Weight of each latent pixel, f32 [batch, 1, height, width]; None if no picture has a mask.
    """

    latents: torch.Tensor
    text: tuple[torch.Tensor, ...]
    time_ids: torch.Tensor
    mask: torch.Tensor | None


class Data:
    """Fills the caches, and makes the batches of `Order` from them.

    Attributes:
        examples: The training pictures, then the held-out ones.
        trained: The number of training pictures.
        crops: One per example.
    """

    def __init__(self, run: Run, models: BaseNetworks, accelerator: Accelerator, say: Say) -> None:
        config, base = run.config, run.base
        self.examples = (*run.dataset.examples, *run.held_out)
        self.trained = len(run.dataset.examples)
        step = bucket_step(base.unit, run.plan.resolution)
        sizes = [example.size for example in self.examples]
        self.crops = assign(sizes, run.plan.resolution, step, buckets=config.buckets)
        self._texts = [training_texts(example, config) for example in self.examples]
        self.order = Order(
            self.crops[: self.trained],
            [example.repeats for example in run.dataset.examples],
            [len(texts) for texts in self._texts[: self.trained]],
            batch=run.plan.batch,
            seed=config.seed,
            flip=config.flip,
            dropout=config.caption_dropout,
        )
        self._tokenizers = models.tokenizers if config.text_encoder else ()
        self._base, self._device = base, accelerator.device
        self._masked = any(example.mask for example in self.examples)
        most, cut = cut_texts(models.tokenizers, list({text for texts in self._texts for text in texts}))
        named = zip(self.examples, self._texts, strict=True)
        if names := [run.dataset.name(example.path) for example, texts in named if not cut.isdisjoint(texts)]:
            say(f"note: {listed(names, 'caption')} longer than {most} tokens, cut off there")
        with accelerator.main_process_first():  # the others then find everything in the cache
            self._fill(config, models, say)

    def _fill(self, config: TrainConfig, models: BaseNetworks, say: Say) -> None:
        folder = default_cache_dir() / "train"
        encoders = [encoder.to(self._device) for encoder in models.text_encoders]

        @torch.no_grad()
        def embed(text: str) -> dict[str, torch.Tensor]:
            hidden, pooled = encode(encoders, tokenize(models.tokenizers, [text]))
            return {"hidden": hidden[0]} | ({} if pooled is None else {"pooled": pooled[0]})

        latents = LatentCache(folder, self._base.hashes["vae"], models.vae.to(self._device))
        started = time.monotonic()
        flips = (False, True) if config.flip else (False,)
        latents.fill((example.path, crop, flip) for example, crop in self._cropped() for flip in flips)
        latents.release()
        if not config.text_encoder:
            key = json.dumps([self._base.hashes[name] for name in self._base.text_encoders])
            texts = TextCache(folder, key, embed)
            texts.fill(["", *(text for variants in self._texts for text in variants)])
            texts.release()
            self._text = lru_cache(512)(texts.get)
        self._latent = lru_cache(4096)(latents.get)
        count = sum(map(len, self._texts))
        say(f"latents of {len(self.examples)} pictures and {count} texts ready in {time.monotonic() - started:.1f} s")

    def _cropped(self) -> Iterator[tuple[Example, Crop]]:
        return zip(self.examples, self.crops, strict=True)

    def batch(self, picks: Sequence[Pick]) -> Batch:
        """Make the batch of these pictures, which are all of one bucket, on the device."""
        examples = [self.examples[pick.example] for pick in picks]
        crops = [self.crops[pick.example] for pick in picks]
        latents = torch.stack(
            [self._latent(e.path, crop, pick.flip) for e, crop, pick in zip(examples, crops, picks, strict=True)]
        )
        ids = [(crop.flipped() if pick.flip else crop).time_ids() for crop, pick in zip(crops, picks, strict=True)]
        mask = None
        if self._masked:
            mask = torch.stack([self._mask(pick) for pick in picks]).to(self._device)
        return Batch(
            latents.to(self._device),
            tuple(tensor.to(self._device) for tensor in self._conditions(picks)),
            torch.tensor(ids, dtype=torch.float32, device=self._device),
            mask,
        )

    def names(self, picks: Sequence[Pick]) -> list[str]:
        return list(dict.fromkeys(self.examples[pick.example].path.name for pick in picks))

    def _conditions(self, picks: Sequence[Pick]) -> list[torch.Tensor]:
        """Embeddings; or tokens, and whether zeros replace a text's embedding."""
        captions = [self._texts[pick.example][pick.caption] for pick in picks]
        dropped = [pick.dropout for pick in picks]
        if self._tokenizers:
            zero = torch.tensor([self._base.zero_empty and drop for drop in dropped])
            texts = ["" if drop else text for text, drop in zip(captions, dropped, strict=True)]
            return [*tokenize(self._tokenizers, texts), zero]
        return [torch.stack(parts) for parts in zip(*map(self._embedding, captions, dropped), strict=True)]

    def _embedding(self, text: str, drop: bool) -> list[torch.Tensor]:
        tensors = self._text("" if drop else text)
        values = [tensors[name] for name in ("hidden", "pooled") if name in tensors]
        return [torch.zeros_like(value) for value in values] if drop and self._base.zero_empty else values

    def _mask(self, pick: Pick) -> torch.Tensor:
        example, crop = self.examples[pick.example], self.crops[pick.example]
        if example.mask is None:
            return torch.ones(1, crop.height // self._base.cell, crop.width // self._base.cell)
        return torch.from_numpy(_mask(example.path, example.mask, crop, pick.flip, self._base.cell))[None]


_mask = lru_cache(4096)(load_mask)
