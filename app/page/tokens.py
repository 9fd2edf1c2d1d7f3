"""The number of tokens in a prompt, so that people see in advance what is cut off."""

from __future__ import annotations

import threading

from lorablend.adapters import parse_prompt
from lorablend.adapters.errors import BlendError
from lorablend.engine import ModelFolder
from lorablend.engine.graph.clip_tokenizer import ClipTokenizer
from lorablend.engine.prompt_syntax import unescaped

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
        """Tokens that the model can read, without those that mark the beginning and the end."""
        return self._tokenizer.max_length - 2

    def count(self, text: str) -> int:
        """Count the tokens of a text without tags."""
        with self._lock:
            if self._clip is None:
                self._clip = ClipTokenizer(self._tokenizer.xml)
            return len(self._clip.ids(unescaped(text))) - 2

    def line(self, prompt: str) -> str:
        """The line below the prompt: the count, or what is wrong with a tag."""
        try:
            text, tags = parse_prompt(prompt)
        except BlendError as error:
            return str(error)
        count = self.count(text)
        words = f"{count} of {self.room} tokens"
        if count > self.room:
            words += f"; the last {count - self.room} are cut off"
        return words + (f" · {len(tags)} adapter{'s' if len(tags) > 1 else ''} by tag" if tags else "")
