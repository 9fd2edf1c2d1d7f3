"""What prompts written for other programs mean here: escaped brackets, and syntax that is drawn as plain text."""

import re

__all__ = ["syntax_warnings", "unescaped"]

# In A1111 and ComfyUI a backslash makes a bracket plain text, and goes away; booru tags are written so.
_ESCAPED = re.compile(r"\\([()\[\]\\])")
_SYNTAX = re.compile(r"(?<!\\)\([^()]*(?<!\\)\)|(?<!\\)\[[^\[\]]*(?<!\\)\]|\b(?:BREAK|AND)\b")
_OPEN = re.compile(r"(?<!\\)[(\[]")  # A1111 takes all of the rest for the bracket's


def unescaped(text: str) -> str:
    """The text as the tokenizer should see it, without the backslashes that other programs take away."""
    return _ESCAPED.sub(r"\1", text)


def syntax_warnings(*texts: str | None) -> list[str]:
    """A warning if a text without tags has syntax of other programs that is drawn as plain text here."""
    found = next(
        (found for pattern in (_SYNTAX, _OPEN) for text in texts if text and (found := pattern.search(text))), None
    )
    text = "is drawn as plain text; weights of words, [a:b:0.5] and BREAK are not supported"
    return [f"{found[0][:80]!r} {text}"] if found else []
