"""Show names from untrusted files in one-line messages."""

from collections.abc import Collection

__all__ = ["listed", "shown"]

_LONGEST_NAME = 160
_LISTED = 3


def shown(name: object) -> str:
    """Return `name` on one line: control characters and stray surrogates escaped, a very long name shortened."""
    text = str(name)
    if len(text) > _LONGEST_NAME:
        text = f"{text[: _LONGEST_NAME // 2]}…{text[-_LONGEST_NAME // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def listed(names: Collection[str], unit: str = "tensor") -> str:
    """Return the count and the first few names: "5 tensors: a, b, c, …"."""
    first = ", ".join(shown(name) for name in list(names)[:_LISTED])
    return f"{len(names)} {unit}{'s' * (len(names) != 1)}: {first}{', …' * (len(names) > _LISTED)}"
