"""From the options of the command line to arguments of the library: read once, for all commands that draw."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorablend.adapters.errors import BlendError, RequestError

if TYPE_CHECKING:
    from lorablend.engine import Pipeline, Result

__all__ = [
    "entries",
    "folders",
    "host",
    "notes",
    "open_pipeline",
    "parse_size",
    "parse_timesteps",
    "said",
    "served_model",
    "with_preset",
]


def open_pipeline(
    folder: Path,
    lora_dir: Path | None,
    device: str = "CPU",
    runtime: str = "auto",
    precision: str | None = None,
    *,
    max_rank: int | None = None,
    lenient: bool = False,
) -> "Pipeline":
    """The pipeline of --device, --runtime, --precision, --max-rank and --lenient."""
    from lorablend.engine import Pipeline

    return Pipeline(folder, device, runtime, precision, lora_dir=lora_dir, max_rank=max_rank, lenient=lenient)


def notes(result: "Result") -> list[str]:
    """What the user should know of a picture, beside the picture: warnings, and what --max-rank cost."""
    lines = [f"warning: {warning}" for warning in result.warnings]
    if errors := result.rank_errors:
        worst = max(errors, key=lambda path: errors[path])
        mean = sum(errors.values()) / len(errors)
        lines.append(
            f"recompressed {len(errors)} modules; error {mean:.2%} in the mean, {errors[worst]:.2%} at most ({worst})"
        )
    return lines


def said(**options: Any) -> dict[str, Any]:
    """What the user said; for the rest the library has its own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def with_preset(name: str | None, own: dict[str, Any]) -> dict[str, Any]:
    """What --preset says, and what the user said himself."""
    if name is None:
        return own
    from lorablend.engine.presets import find_preset

    return find_preset(name).settings(own)


def entries(lora: list[str] | None, blend: Path | None, mode: str | None = None) -> list[Any]:
    """What --blend, --lora and --blend-mode say, for `resolve_blend`."""
    from lorablend.adapters import parse_lora_option, read_blend_json

    found: list[Any] = []
    if blend is not None:
        try:
            found.append(read_blend_json(blend.read_text(encoding="utf-8")))
        except (BlendError, UnicodeDecodeError) as error:
            reason = error if isinstance(error, BlendError) else "not text in UTF-8"
            raise BlendError(f"{blend}: {reason}") from error
        if mode is not None:
            found[0] = {"items": found[0]["items"]}  # what the command line says wins
    found += [parse_lora_option(text) for text in lora or ()]
    return found if mode is None else [*found, {"mode": mode, "items": []}]


def folders(model: str, lora_dir: Path | None) -> tuple[Path, Path | None]:
    """The model's folder and the adapters': the word demo resolved, the library where no folder is given."""
    if model == "demo":
        from lorablend.shipped import adapters_dir, model_dir

        return model_dir(), lora_dir or adapters_dir()
    from lorablend.app.library.folder import default_folder

    library = default_folder()
    return Path(model), lora_dir or (library if library.is_dir() else None)


def served_model(model: str | None, named: str | None) -> str:
    """What MODEL or --model says, else the word demo."""
    if model is not None and named is not None and model != named:
        raise RequestError(f"the model is {model} and --model {named}; give one of the two")
    return model or named or "demo"


def host(address: str | None, listen: bool) -> str:
    """What --host or --listen says, else this machine alone."""
    if address not in (None, "0.0.0.0") and listen:
        raise RequestError(f"--host {address} and --listen are both given; --listen means --host 0.0.0.0, give one")
    return "0.0.0.0" if listen else address or "127.0.0.1"


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels."""
    width, x, height = text.lower().partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise RequestError(f"size is {text!r}; write WIDTHxHEIGHT, such as 1024x1024")
    return int(width), int(height)


def parse_timesteps(text: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise RequestError(f"timesteps is {text!r}; write numbers with commas, such as 999,749,499,249") from None
