"""`lorablend picture`: what a picture says about how it was made."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lorablend.app.cli import arguments, options

__all__ = ["picture"]

_File = Annotated[Path, options.argument("FILE")]
_Model = Annotated[
    str | None,
    options.option(
        "--model",
        "MODEL",
        "Model that would draw it again: a folder, or the word demo. Default: the picture's, unchecked.",
    ),
]
_AsJson = Annotated[bool, options.option("--json", None, "Print it as JSON, as POST /api/pictures/read does.")]


def picture(file: _File, model: _Model = None, lora_dir: options.LoraDir = None, as_json: _AsJson = False) -> None:
    """Print what a picture says: the program, the settings, and what is missing here.

    FILE is a PNG, JPEG or WebP picture of lorablend, AUTOMATIC1111, Forge, ComfyUI, SwarmUI, Fooocus, InvokeAI,
    NovelAI, Easy Diffusion, Draw Things, Civitai, or a program that writes in the form of one of them. Adapters are
    looked up in --lora-dir. The settings have the names of an order for /api/jobs.

    \b
    Example:
      lorablend picture boat.png --json
    """
    from lorablend.app.library.shelf import Shelf
    from lorablend.app.orders.reuse import order_of
    from lorablend.app.pictures.metadata.programs import read_metadata
    from lorablend.app.pictures.record import model_name

    folder, lora_dir = arguments.folders(model or "", lora_dir)
    shelf = None if lora_dir is None else Shelf(lora_dir)
    models = None if model is None else {model: model_name(folder)}
    form = order_of(read_metadata(file, str(file)), shelf, models).to_json()
    if as_json:
        typer.echo(json.dumps(form, indent=2, ensure_ascii=False))
        return
    typer.echo(f"program: {form['program']}")
    blend = form["settings"].pop("blend", {})
    for name, value in form["settings"].items():
        typer.echo(f"{name}: {value}")
    for name, value in blend.items():
        if name != "items":
            typer.echo(f"blend {name}: {value}")
    for item in blend.get("items", ()):
        typer.echo(f"adapter: {_adapter(item)}")
    for line in form["missing"]:
        typer.echo(f"missing: {line}")


def _adapter(item: dict[str, Any]) -> str:
    others = {key: value for key, value in item.items() if key not in ("adapter", "weight")}
    return " ".join([f"{item['adapter']}: {item['weight']:g}", *(f"{key}={value}" for key, value in others.items())])
