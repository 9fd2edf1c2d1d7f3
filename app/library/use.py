"""Note in the library which of its adapters a picture was drawn with."""

from contextlib import suppress
from pathlib import Path

from lorablend.adapters import Blend
from lorablend.adapters.errors import LorablendError
from lorablend.app.library.library import Library

__all__ = ["note_used"]


def note_used(lora_dir: Path | None, blend: Blend) -> None:
    """Call it when the pictures are saved: nothing that goes wrong here costs one, and no file is read again.

    A folder that is no library, such as the demo's, is left as it is.
    """
    if not blend or lora_dir is None or not Library.is_at(lora_dir):
        return
    with suppress(LorablendError, OSError):  # a folder that cannot be written to, marks that somebody broke
        Library(lora_dir).note_used(item.adapter for item in blend)
