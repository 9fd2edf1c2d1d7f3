"""An adapter's report as a page of text."""

from collections.abc import Iterable
from typing import Any

__all__ = ["adapter_report"]

_BASE_MODELS = {"sd15": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL"}


def adapter_report(report: dict[str, Any]) -> str:
    """What `inspect_adapter` found, one thing a line, names aligned."""
    rows = [
        ("file", report["file"]),
        ("title", report["title"] or ""),
        ("base model", _BASE_MODELS.get(report["base_model"], report["base_model"])),
        ("algorithm", ", ".join(f"{name} ({count} modules)" for name, count in report["algorithms"].items())),
        ("trigger words", ", ".join(report["trigger_words"]) or "none named in the file"),
        ("size", f"{_bytes(report['size'])}, {report['tensor_count']} tensors"),
    ]
    for component, found in report["components"].items():
        modules = f"{len(found['modules'])} modules"
        numbers = f"rank {_listed(found['ranks'])}, alpha {_listed(found['alphas'])}, {_listed(found['dtypes'])}"
        rows.append((component, f"{modules}, {numbers}"))
    rows += report["hashes"].items()
    rows += [("ignored", name) for name in report["ignored"]]
    rows += [("warning", text) for text in report["warnings"]]
    return "\n".join(f"{name:<14} {value}" for name, value in rows if value)


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _listed(values: Iterable[Any]) -> str:
    """1, 4, 8; a number without its empty decimals; None as "not given"."""
    return ", ".join("not given" if v is None else f"{v:g}" if isinstance(v, float) else str(v) for v in values)
