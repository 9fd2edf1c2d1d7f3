"""Turn options of the command line into arguments of the library, for all commands that draw."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorablend.adapters.errors import BlendError, RequestError
from lorablend.engine.settings import SETTINGS

if TYPE_CHECKING:
    from lorablend.engine import Pipeline, Result

__all__ = [
    "entries",
    "folders",
    "host",
    "notes",
    "open_pipeline",
    "served_model",
    "settings_of",
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
    """What the user should know about a picture: its warnings, and the cost of --max-rank."""
    lines = [f"warning: {warning}" for warning in result.warnings]
    if errors := result.rank_errors:
        worst = max(errors, key=lambda path: errors[path])
        mean = sum(errors.values()) / len(errors)
        lines.append(
            f"recompressed {len(errors)} modules; error {mean:.2%} in the mean, {errors[worst]:.2%} at most ({worst})"
        )
    return lines


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the user gave, as `Pipeline.generate` takes them. options: see `options.with_settings`."""
    settings = {name: value for name, value in options.items() if value is not None}
    if "size" in settings:
        settings["width"], settings["height"] = _parse_size(settings.pop("size"))
    for name, value in settings.items():
        if SETTINGS[name].kind is tuple:
            settings[name] = _parse_numbers(name, value)
    return settings


def with_preset(name: str | None, own: dict[str, Any]) -> dict[str, Any]:
    """The settings of --preset, replaced by the user's own."""
    if name is None:
        return own
    from lorablend.engine.presets import find_preset

    return find_preset(name).settings(own)


def entries(lora: list[str] | None, blend: Path | None, mode: str | None = None) -> list[Any]:
    """The blend of --blend, --lora and --blend-mode, for `resolve_blend`."""
    from lorablend.adapters import parse_lora_option, read_blend_json

    entries: list[Any] = []
    if blend is not None:
        try:
            entries.append(read_blend_json(blend.read_text(encoding="utf-8")))
        except (BlendError, UnicodeDecodeError) as error:
            reason = error if isinstance(error, BlendError) else "not text in UTF-8"
            raise BlendError(f"{blend}: {reason}") from error
        if mode is not None:
            entries[0] = {"items": entries[0]["items"]}  # the option wins
    entries += [parse_lora_option(text) for text in lora or ()]
    return entries if mode is None else [*entries, {"mode": mode, "items": []}]


def folders(model: str, lora_dir: Path | None) -> tuple[Path, Path | None]:
    """The folders of the model ("demo" is the shipped one) and of the adapters (the library if none is given)."""
    if model == "demo":
        from lorablend.shipped import adapters_dir, model_dir

        return model_dir(), lora_dir or adapters_dir()
    from lorablend.app.library.folder import default_folder

    library = default_folder()
    return Path(model), lora_dir or (library if library.is_dir() else None)


def served_model(model: str | None, named: str | None) -> str:
    """The model of MODEL or --model, else "demo"."""
    if model is not None and named is not None and model != named:
        raise RequestError(f"the model is {model} and --model {named}; give one of the two")
    return model or named or "demo"


def host(address: str | None, listen: bool) -> str:
    """The address of --host or --listen, else this machine's own."""
    if address not in (None, "0.0.0.0") and listen:
        raise RequestError(f"--host {address} and --listen are both given; --listen means --host 0.0.0.0, give one")
    return "0.0.0.0" if listen else address or "127.0.0.1"


def _parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels."""
    width, x, height = text.lower().partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise RequestError(f"size is {text!r}; write WIDTHxHEIGHT, such as 1024x1024")
    return int(width), int(height)


def _parse_numbers(name: str, text: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        example = SETTINGS[name].placeholder.replace(" ", "")
        raise RequestError(f"{name} is {text!r}; write numbers with commas, such as {example}") from None
