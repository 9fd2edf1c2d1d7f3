"""The number of tokens in a prompt, as people of other programs know it."""

from __future__ import annotations

import threading

from lorablend.adapters import parse_prompt
from lorablend.adapters.errors import BlendError
from lorablend.engine import ModelFolder
from lorablend.engine.graph.clip_tokenizer import ClipTokenizer
from lorablend.engine.prompt.chunks import Token, make_chunks
from lorablend.engine.prompt.weights import read_weights

__all__ = ["TokenCounter"]


class TokenCounter:
    """Counts the tokens of one model's first tokenizer, which is compiled for the first prompt. Safe for threads.

    Words that stand for bundled embeddings count as text.
    """

    def __init__(self, model: ModelFolder) -> None:
        self._tokenizer = model.tokenizers["tokenizer"]
        self._clip: ClipTokenizer | None = None
        self._lock = threading.Lock()

    @property
    def room(self) -> int:
        """Tokens of a chunk, without those that mark its start and its end."""
        return self._tokenizer.max_length - 2

    def count(self, text: str) -> tuple[int, int]:
        """Count the tokens of a text without tags, and the chunks that they need."""
        with self._lock:
            if self._clip is None:
                self._clip = ClipTokenizer(self._tokenizer.xml)
            comma = int(self._clip.ids(",")[1])
            sections = [
                [[Token(int(number)) for number in self._clip.ids(part.text)[1:-1]] for part in section]
                for section in read_weights(text, "a1111")
            ]
        chunks = make_chunks(sections, self.room, comma, "a1111")
        return sum(map(len, chunks)), len(chunks)

    def line(self, prompt: str) -> str:
        """The line below the prompt: the count, or what is wrong with a tag."""
        try:
            text, tags = parse_prompt(prompt)
        except BlendError as error:
            return str(error)
        count, chunks = self.count(text)
        words = f"{count} of {self.room * chunks} tokens" + (f" in {chunks} chunks" if chunks > 1 else "")
        return words + (f" · {len(tags)} adapter{'s' if len(tags) > 1 else ''} by tag" if tags else "")
