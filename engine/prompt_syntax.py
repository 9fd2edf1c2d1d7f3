"""What prompts written for other programs mean here: escaped brackets, and syntax that is drawn as plain text."""

import re

__all__ = ["syntax_warnings", "unescaped"]

# In A1111 and ComfyUI a backslash makes a bracket plain text, and goes away; booru tags are written so.
_ESCAPED = re.compile(r"\\([()\[\]\\])")
_SYNTAX = re.compile(r"(?<!\\)\([^()]*(?<!\\)\)|(?<!\\)\[[^\[\]]*(?<!\\)\]|\bBREAK\b")


def unescaped(text: str) -> str:
    """The text as the tokenizer should see it, without the backslashes that other programs take away."""
    return _ESCAPED.sub(r"\1", text)


def syntax_warnings(*texts: str | None) -> list[str]:
    """A warning if a text without tags has syntax of other programs that is drawn as plain text here."""
    found = next((found for text in texts if text and (found := _SYNTAX.search(text))), None)
    text = "is drawn as plain text; weights of words, [a:b:0.5] and BREAK are not supported"
    return [f"{found[0][:80]!r} {text}"] if found else []
