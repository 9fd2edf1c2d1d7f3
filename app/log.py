"""The log of a server: what others send is not written to it at full length."""

from __future__ import annotations

from typing import Any, TextIO

__all__ = ["ShortLines", "shortened"]

_LONGEST = 500  # characters of a line
_MOST = 200  # lines of one message


class ShortLines:
    """A stream that writes shortened texts to another one.

    Tracebacks end with the text of the exception, which may repeat an argument of any size, and Gradio prints them
    without `logging`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(shortened(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shortened(text: str) -> str:
    """The text with the ends of long lines, and the middle of too many lines, replaced by how much is left out."""
    lines = text.split("\n") if len(text) > _LONGEST else [text]
    if len(lines) > _MOST:
        half = _MOST // 2
        lines = [*lines[:half], f"… ({len(lines) - 2 * half:,} lines left out)", *lines[-half:]]
    return "\n".join(
        line if len(line) <= _LONGEST else f"{line[:_LONGEST]}… ({len(line) - _LONGEST:,} characters left out)"
        for line in lines
    )
