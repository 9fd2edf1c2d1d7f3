"""Syntax of other programs in prompts that is not acted on: it is drawn as plain text, and said."""

import re
from collections.abc import Sequence

__all__ = ["text_only_warnings", "unescaped", "unsupported_warnings"]

# In A1111 and ComfyUI a backslash makes a bracket plain text, and goes away; booru tags are written so.
_ESCAPED = re.compile(r"\\([()\[\]\\])")
_SYNTAX = re.compile(r"(?<!\\)\([^()]*(?<!\\)\)|(?<!\\)\[[^\[\]]*(?<!\\)\]|\b(?:BREAK|AND)\b")
_OPEN = re.compile(r"(?<!\\)[(\[]")  # A1111 takes all of the rest for the bracket's
_PARTS = re.compile(r"\bAND\b")  # one prompt AND another


def unescaped(text: str) -> str:
    """The text as the tokenizer should see it, without the backslashes that other programs take away."""
    return _ESCAPED.sub(r"\1", text)


def text_only_warnings(*texts: str | None) -> list[str]:
    """A warning if a text without tags has syntax, for a runtime that takes plain text only."""
    return _warning((_SYNTAX, _OPEN), "weights of words, [a:b:0.5] and BREAK need runtime=live", texts)


def unsupported_warnings(*texts: str | None) -> list[str]:
    """A warning if a text without tags has syntax of A1111 that nothing here acts on."""
    return _warning((_PARTS,), "it does not divide a prompt here", texts)


def _warning(patterns: Sequence[re.Pattern[str]], why: str, texts: Sequence[str | None]) -> list[str]:
    found = next((found for syntax in patterns for text in texts if text and (found := syntax.search(text))), None)
    return [f"{found[0][:80]!r} is drawn as plain text; {why}"] if found else []
