"""The command line: each command reads its options, makes one call, and says what came of it. Help is the reference.

What is heavy to import (OpenVINO, Gradio, torch) is imported by the command that needs it, so that the help is quick.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorablend.adapters.errors import LorablendError, RequestError
from lorablend.app import options
from lorablend.app.adapter_commands import adapters_app

if TYPE_CHECKING:
    from lorablend.engine import Pipeline

__all__ = ["main", "run"]

app = typer.Typer(
    name="lorablend",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: the same in a terminal, a file and a test
)
app.add_typer(adapters_app, name="adapters")


def main() -> None:
    """The program `lorablend`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code: 0, 1 after an error (one line on stderr), 130 after Ctrl-C."""
    try:
        code = app(list(arguments), prog_name="lorablend", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        typer.echo(f"error: {message}", err=True)
        return 1
    if code == 130:
        typer.echo("stopped", err=True)
    return code or 0


def _message(error: Exception) -> str | None:
    """One line for a mistake of the user's or a trouble of the machine's; None for a bug of ours."""
    if isinstance(error, LorablendError):
        return str(error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{error.filename}: {reason}" if error.filename else reason
    # The exceptions of the command-line parser: Click's own class, or Typer's copy of it from 0.26 on.
    describe = getattr(error, "format_message", None)
    if describe is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "lorablend"
    text = " ".join(describe().split()).rstrip(".")
    return f'{text[:1].lower()}{text[1:]}; see "{command} --help"'


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"lorablend {version('lorablend')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _lorablend(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Blend LoRA adapters into Stable Diffusion XL on OpenVINO, and change the blend without recompiling.

    \b
    Example:
      lorablend demo --out demo
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def convert(
    source: options.Source,
    out: options.NewFolder,
    weights: options.Weights = "fp16",
    config: options.Config = None,
) -> None:
    """Convert a model to OpenVINO. Needs lorablend[convert].

    SOURCE is a Hugging Face id (owner/name), a diffusers folder, or a .safetensors checkpoint of SDXL or SD 1.x; OUT a
    folder that is new or empty. One network after the other is exported, so the memory needed is about the largest's.

    \b
    Example:
      lorablend convert stabilityai/stable-diffusion-xl-base-1.0 sdxl-int8 --weights int8
    """
    from lorablend.app.progress import stage_bar
    from lorablend.convert import convert as convert_model

    with stage_bar() as progress:
        convert_model(source, out, weights=weights, config=config, progress=progress)  # pyright: ignore[reportArgumentType] - it checks
    peaks = json.loads((out / "lorablend.json").read_text(encoding="utf-8"))["peak_memory_bytes"]
    for network, peak in peaks.items():
        typer.echo(f"{network}: {peak / 1e9:.1f} GB of memory at most", err=True)
    typer.echo(out)


@app.command()
def generate(
    model: options.Model,
    prompt: options.Prompt,
    lora: options.Lora = None,
    lora_dir: options.LoraDir = None,
    negative: options.Negative = None,
    size: options.Size = None,
    steps: options.Steps = 20,
    guidance: options.Guidance = 5.0,
    seed: options.Seed = None,
    scheduler: options.Scheduler = None,
    spacing: options.Spacing = None,
    count: options.Count = 1,
    image: options.Image = None,
    strength: options.Strength = None,
    mask: options.Mask = None,
    device: options.Device = "CPU",
    runtime: options.Runtime = "auto",
    precision: options.Precision = None,
    out: options.Out = Path("pictures"),
) -> None:
    """Draw pictures, and print their paths.

    MODEL is a folder written by "lorablend convert", or the word demo for the small model of random weights that is
    shipped. Tags in the PROMPT, such as <lora:ink:0.8>, add adapters from --lora-dir. Each PNG holds its settings, as
    text that other programs read and as JSON.

    \b
    Example:
      lorablend generate sdxl-int8 "a fox <lora:ink:0.8>" --lora-dir adapters --size 1024x1024 --seed 7 --count 4
    """
    from lorablend.adapters import parse_lora_option
    from lorablend.app.png import check_folder, open_picture, save_result
    from lorablend.app.progress import step_bar
    from lorablend.app.seeds import seeds

    width, height = _parse_size(size) if size else (None, None)
    check_folder(out)
    settings: dict[str, Any] = {
        "blend": [parse_lora_option(text) for text in lora or ()],
        "width": width,
        "height": height,
        "steps": steps,
        "guidance_scale": guidance,
        "scheduler": scheduler,
        "spacing": spacing,
        "image": open_picture(image) if image else None,
        "strength": strength,
        "mask": open_picture(mask) if mask else None,
    }
    pipe = _pipeline(model, lora_dir, device, runtime, precision)
    for index, one_seed in enumerate(seeds(seed, count)):
        with step_bar(f"picture {index + 1} of {count}") as callback:
            result = pipe.generate(prompt, negative, seed=one_seed, callback=callback, **settings)
        for warning in result.warnings if index == 0 else ():
            typer.echo(f"warning: {warning}", err=True)
        for path in save_result(result, pipe, out):
            typer.echo(path)


@app.command()
def bake(
    model: options.Model,
    out: options.NewFolder,
    lora: options.Lora = None,
    lora_dir: options.LoraDir = None,
) -> None:
    """Write a copy of a model with adapters added to its weights.

    MODEL is a folder written by "lorablend convert", or the word demo; OUT a folder that is new or empty. Any OpenVINO
    GenAI program runs the copy, without lorablend. 8-bit models stay 8-bit.

    \b
    Example:
      lorablend bake sdxl-int8 sdxl-ink --lora ink.safetensors:0.8 --lora neon.safetensors:0.4
    """
    from lorablend.adapters import parse_lora_option
    from lorablend.engine.bake import bake as bake_model

    if not lora:
        raise RequestError("there is nothing to bake; give at least one --lora FILE:WEIGHT")
    folder, lora_dir = _resolve_demo(model, lora_dir)
    started = time.perf_counter()
    bake_model(folder, [parse_lora_option(text) for text in lora], out, lora_dir=lora_dir)
    typer.echo(f"baked in {time.perf_counter() - started:.1f} s", err=True)
    typer.echo(out)


@app.command()
def devices() -> None:
    """List the devices that can compute.

    \b
    Example:
      lorablend devices
    """
    from lorablend.engine.devices import devices as list_devices

    for name, full_name in list_devices():
        typer.echo(f"{name:<8} {full_name}")


@app.command()
def demo(out: options.Out = Path("demo")) -> None:
    """Draw with the demo model, without and with adapters.

    The shipped demo model is a stand-in with random weights: it shows that all works, not what SDXL can draw. Several
    pictures and one sheet with all of them, sheet.png, are written.

    \b
    Example:
      lorablend demo --out demo
    """
    from lorablend.app.folder import adapter_files
    from lorablend.app.png import check_folder
    from lorablend.app.showcase import draw_showcase

    check_folder(out)
    _, lora_dir = _resolve_demo("demo", None)
    draw_showcase(_pipeline("demo", lora_dir), adapter_files(lora_dir), out, say=typer.echo)


@app.command()
def ui(
    model: options.Model = "demo",
    lora_dir: options.LoraDir = None,
    device: options.Device = "CPU",
    runtime: options.Runtime = "auto",
    precision: options.Precision = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = None,
    out: options.Out = Path("pictures"),
) -> None:
    """Serve the web page to this machine's browsers, until Ctrl-C.

    MODEL is a folder written by "lorablend convert"; without it, or with the word demo, the small model of random
    weights that is shipped.

    \b
    Example:
      lorablend ui sdxl-int8 --lora-dir adapters
    """
    from lorablend.app.png import check_folder

    check_folder(out)
    pipe = _pipeline(model, lora_dir, device, runtime, precision)
    _, lora_dir = _resolve_demo(model, lora_dir)
    from lorablend.app.page import serve  # after the checks: Gradio takes seconds to import

    serve(pipe, lora_dir, out, host=host, port=port, say=typer.echo)


def _pipeline(
    model: str, lora_dir: Path | None, device: str = "CPU", runtime: str = "auto", precision: str | None = None
) -> "Pipeline":
    from lorablend.engine import Pipeline

    folder, lora_dir = _resolve_demo(model, lora_dir)
    return Pipeline(folder, device, runtime, precision, lora_dir=lora_dir)


def _resolve_demo(model: str, lora_dir: Path | None) -> tuple[Path, Path | None]:
    """The model's folder and the adapters', with the word demo resolved."""
    if model != "demo":
        return Path(model), lora_dir
    from lorablend.demo import adapters_dir, model_dir

    return model_dir(), adapters_dir() if lora_dir is None else lora_dir


def _parse_size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise RequestError(f"size is {text!r}; write WIDTHxHEIGHT, such as 1024x1024")
    return int(width), int(height)
