"""Embeddings of captions, as Stable Diffusion's pipelines pass them to the UNet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["cut_texts", "encode", "tokenize"]


def tokenize(tokenizers: Sequence[PreTrainedTokenizerBase], texts: Sequence[str]) -> list[torch.Tensor]:
    """Token ids by each tokenizer, i64 [texts, its length]; longer texts are cut off."""
    return [
        tokenizer(
            list(texts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )["input_ids"]  # pyright: ignore[reportReturnType]
        for tokenizer in tokenizers
    ]


def cut_texts(tokenizers: Sequence[PreTrainedTokenizerBase], texts: Collection[str]) -> tuple[int, set[str]]:
    """The number of tokens of a text that the model sees, and the texts that have more."""
    most = min(tokenizer.model_max_length for tokenizer in tokenizers)
    cut: set[str] = set()
    for tokenizer in tokenizers:
        tokens: Any = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        cut |= {text for text, ids in zip(texts, tokens, strict=True) if len(ids) > most}
    return most - 2, cut  # without the start and end tokens


def encode(encoders: Sequence[Any], tokens: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Hidden states [texts, tokens, width], and SDXL's pooled embedding of the second encoder, [texts, width].

    SD 1.5 uses the last layer; SDXL concatenates the second-to-last layers of both encoders (arXiv:2307.01952, 2.1).
    """
    device = next(encoders[0].parameters()).device
    if len(encoders) == 1:
        return encoders[0](tokens[0].to(device)).last_hidden_state, None
    outputs = [
        encoder(ids.to(device), output_hidden_states=True) for encoder, ids in zip(encoders, tokens, strict=True)
    ]
    return torch.cat([output.hidden_states[-2] for output in outputs], -1), outputs[1].text_embeds
