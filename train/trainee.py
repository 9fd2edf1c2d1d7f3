"""Everything that is trained as one torch module, and its optimizer."""

from __future__ import annotations

from typing import Any

import torch

from lorablend.train.base import BaseNetworks
from lorablend.train.config import TrainConfig
from lorablend.train.text import encode

__all__ = ["Trainee", "make_optimizer"]


class Trainee(torch.nn.Module):
    """UNet and trained text encoders in one module.

    Wrapping it for several devices then wraps everything, and nothing has to look through the wrapper.
    """

    def __init__(self, models: BaseNetworks) -> None:
        super().__init__()
        self.unet = models.unet
        self.text_encoders = torch.nn.ModuleList(models.text_encoders)
        self._sdxl = models.family == "sdxl"

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, text: tuple[torch.Tensor, ...], time_ids: torch.Tensor
    ) -> torch.Tensor:
        """Predict the noise, or the velocity, in `noisy`.

        Args:
            text: Embeddings, and for SDXL the pooled ones; or, if text encoders are trained, the tokens for each of
                them and a boolean per text that replaces its embedding by zeros.
        """
        if len(self.text_encoders):
            *tokens, zero = text
            hidden, pooled = encode(list(self.text_encoders), tokens)
            hidden = hidden.masked_fill(zero[:, None, None], 0)
            pooled = None if pooled is None else pooled.masked_fill(zero[:, None], 0)
        else:
            hidden, pooled = text[0], text[1] if self._sdxl else None
        added = {"text_embeds": pooled, "time_ids": time_ids} if self._sdxl else None
        return self.unet(noisy, timesteps, hidden, added_cond_kwargs=added, return_dict=False)[0]


def make_optimizer(config: TrainConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make the optimizer that the configuration names, for groups as `Network.parameters` gives them."""
    if config.optimizer == "prodigy":
        from prodigyopt import Prodigy  # pyright: ignore[reportMissingImports] - users install it themselves

        return Prodigy(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            use_bias_correction=True,
            safeguard_warmup=True,
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
