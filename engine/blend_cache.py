"""Model folders with a blend baked into their weights, kept on disk."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from lorablend.adapters import Blend
from lorablend.adapters.errors import ResourceError
from lorablend.engine.bake import write_model
from lorablend.engine.disk_cache import make_room
from lorablend.engine.genai_scheduler import genai_scheduler
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.parts import Changes, Parts, changes_of, content_of

__all__ = ["BlendCache"]

_VERSION = 3  # of the folders' contents; raise it when they change


class BlendCache:
    """Model folders with a blend baked in, by content: <root>/<key>/model, and next to it the graphs compiled from it.

    Each takes about as much disk as the UNet. When all of them together take more than half of the space that would be
    free without them, those used longest ago are removed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, model: ModelFolder, blend: Blend, parts: Parts, *, turned: bool = False) -> tuple[Path, Path]:
        """Return the model folder with the parts in its weights, baked if new, and the folder for compiled models.

        Without anything to change, it is the model's own folder.

        Args:
            model: The model without any blend.
            blend: The blend of the parts; it is only recorded in the folder.
            parts: What to bake.
            turned: Whether to exchange width and height, see `_turn_size`.
        """
        content = json.dumps([_VERSION, model.fingerprint, turned, content_of(parts)])
        entry = self._root / hashlib.sha256(content.encode()).hexdigest()[:32]
        entry.mkdir(parents=True, exist_ok=True)
        os.utime(entry)
        make_room(self._root, keep=entry)
        exact = all(tokenizer.exact for tokenizer in model.tokenizers.values())
        if not parts and not turned and exact and genai_scheduler(model.scheduler_config)[0] is None:
            return model.path, entry / "compiled"
        if not (entry / "model").exists():
            changes = changes_of(parts)
            if turned:
                _turn_size(model, changes)
            try:
                write_model(model, changes, entry / "model", blend, link=True)
            except ResourceError:
                if not (entry / "model").exists():  # otherwise another process was faster
                    raise
        return entry / "model", entry / "compiled"


def _turn_size(model: ModelFolder, changes: Changes) -> None:
    """Add the change that exchanges width and height in SDXL's input for the picture's size.

    The UNet takes the size as six numbers (original size, crop corner, target size; arXiv:2307.01952, section 2.2),
    each pair with the height first, but GenAI gives the width first. In the first layer that sees them, each number's
    embedding is multiplied with columns of its own, the last ones, so exchanging the columns exchanges the numbers.
    """
    name, columns = "add_embedding.linear_1.weight", int(model.configs["unet"]["addition_time_embed_dim"])
    unet = changes.setdefault("unet", {})
    before = unet.get(name)

    def turn(weight: np.ndarray) -> np.ndarray:
        new = weight.copy() if before is None else before(weight)
        pairs = new[:, -6 * columns :].reshape(-1, 3, 2, columns)
        new[:, -6 * columns :] = pairs[:, :, ::-1].reshape(-1, 6 * columns)
        return new

    unet[name] = turn
