"""Record in the library which of its adapters a picture was drawn with."""

from contextlib import suppress
from pathlib import Path

from lorablend.adapters import Blend
from lorablend.adapters.errors import LorablendError
from lorablend.app.library.library import Library

__all__ = ["note_used"]


def note_used(lora_dir: Path | None, blend: Blend) -> None:
    """Record the blend's adapters as used. Call it after the pictures are saved; errors are ignored.

    No file is read again, and a folder that is not a library, such as the demo's, is left unchanged.
    """
    if not blend or lora_dir is None or not Library.is_at(lora_dir):
        return
    with suppress(LorablendError, OSError):  # a read-only folder, or a damaged marks file
        Library(lora_dir).note_used(item.adapter for item in blend)
