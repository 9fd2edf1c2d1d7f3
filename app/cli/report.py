"""Text reports: the details of one adapter file, and a library as a table."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lorablend.adapters.wording import shown

if TYPE_CHECKING:
    from lorablend.app.library.entry import Entry

__all__ = ["adapter_report", "library_report"]

_BASE_MODELS = {"sd15": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL"}
_WORDS = 60  # characters of trigger words in the table, at most


def adapter_report(report: dict[str, Any]) -> str:
    """Format the result of `inspect_adapter`, one item per line, with aligned names."""
    tensors = f"{report['tensor_count']} tensors: {report['covered']} covered, {len(report['ignored'])} ignored"
    rows = [
        ("file", shown(report["file"])),
        ("title", shown(report["title"] or "")),
        ("base model", _BASE_MODELS.get(report["base_model"], report["base_model"])),
        ("algorithm", ", ".join(f"{name} ({count} modules)" for name, count in report["algorithms"].items())),
        ("trigger words", ", ".join(map(shown, report["trigger_words"])) or "none in the file"),
        ("size", f"{_bytes(report['size'])}, {tensors}, {len(report['refused'])} refused"),
    ]
    for component, facts in report["components"].items():
        modules = f"{len(facts['modules'])} modules"
        numbers = f"rank {_listed(facts['ranks'], 'none')}, alpha {_listed(facts['alphas'], 'not given')}"
        rows.append((component, f"{modules}, {numbers}, {_listed(facts['dtypes'])}"))
    rows += [(component, f"{count} biases") for component, count in report["biases"].items()]
    for token, parts in report["embeddings"].items():
        vectors = ", ".join(f"{count} vectors for {component}" for component, count in parts.items())
        rows.append(("embedding", f"{shown(token)}: {vectors}"))
    rows += report["hashes"].items()
    rows += [("ignored", shown(name)) for name in report["ignored"]]
    rows += [("refused", shown(name)) for name in report["refused"]]
    rows += [("warning", text) for text in report["warnings"]]
    return "\n".join(f"{name:<14} {value}" for name, value in rows if value)


def library_report(entries: "Sequence[Entry]") -> str:
    """Format one line per adapter, in columns, followed by the unusable adapters with the reason."""
    rows = [_row(entry) for entry in entries if not entry.error]
    if rows:
        rows.insert(0, ("name", "base model", "algorithm", "rank", "size", "trigger words"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{shown(entry.name)}: cannot be used: {entry.error}" for entry in entries if entry.error]
    return "\n".join(lines)


def _row(entry: "Entry") -> tuple[str, ...]:
    words = ", ".join(entry.trigger_words)
    return (
        shown(entry.name) + " ★" * entry.favourite,
        entry.base_model,
        "+".join(entry.algorithms),
        _range(entry.ranks),
        _bytes(entry.size),
        words if len(words) <= _WORDS else f"{words[: _WORDS - 1]}…",
    )


def _range(ranks: Sequence[int]) -> str:
    return "" if not ranks else str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}–{ranks[-1]}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _listed(values: Iterable[Any], none: str = "") -> str:
    """Join values as in "1, 4, 8", without trailing zeros and with `none` in place of None."""
    return ", ".join(none if v is None else f"{v:g}" if isinstance(v, float) else str(v) for v in values)
