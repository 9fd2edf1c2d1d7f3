"""The command line: each command reads its options, makes one call, and reports the result. The help is the reference.

Heavy packages (OpenVINO, Gradio, torch) are imported by the commands that need them, so that the help is quick.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lorablend.adapters.errors import LorablendError, RequestError
from lorablend.app.cli import arguments, grid, models, options
from lorablend.app.cli.adapters import adapters_app
from lorablend.app.cli.datasets import dataset_app
from lorablend.app.cli.picture import picture
from lorablend.app.cli.train import refuse_foreign_options, train
from lorablend.app.jobs.jobs import HISTORY

__all__ = ["main", "run"]

app = typer.Typer(
    name="lorablend",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: the same in a terminal, a file and a test
)
app.add_typer(adapters_app, name="adapters")
app.add_typer(dataset_app, name="dataset")


def main() -> None:
    """The program `lorablend`."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # else it reports which of optimum's packages it found
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], failed: Callable[[Exception], object] = lambda error: None) -> int:
    """Run one command line; the exit code: 0, 1 after an error (one line on stderr), 130 after Ctrl-C.

    failed: called with the error.
    """
    try:
        if list(arguments[:1]) == ["train"]:
            refuse_foreign_options(arguments[1:])
        code = app(list(arguments), prog_name="lorablend", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        typer.echo(f"error: {message}", err=True)
        failed(error)
        return 1
    if code == 130:
        typer.echo("stopped", err=True)
    return code or 0


def _message(error: Exception) -> str | None:
    """One line for a user's mistake or a failure of the machine; None for a bug."""
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

    SOURCE is a Hugging Face id (owner/name), a diffusers folder, or a .safetensors checkpoint of SDXL or SD 1.x; OUT is
    a new or empty folder. The networks are exported one after the other, so memory is needed for the largest one only.

    \b
    Example:
      lorablend convert stabilityai/stable-diffusion-xl-base-1.0 sdxl-int8 --weights int8
    """
    from lorablend.app.cli.progress import stage_bar
    from lorablend.convert import convert as convert_model

    with stage_bar() as progress:
        convert_model(source, out, weights=weights, config=config, progress=progress)  # pyright: ignore[reportArgumentType] - it checks
    peaks = json.loads((out / "lorablend.json").read_text(encoding="utf-8"))["peak_memory_bytes"]
    for network, peak in peaks.items():
        typer.echo(f"{network}: {peak / 1e9:.1f} GB of memory at most", err=True)
    typer.echo(out)


@app.command()
@options.with_settings
def generate(
    model: options.Model,
    prompt: options.Prompt,
    lora: options.Lora = None,
    lora_dir: options.LoraDir = None,
    blend: options.Blend = None,
    blend_mode: options.BlendMode = None,
    max_rank: options.MaxRank = None,
    lenient: options.Lenient = False,
    preset: options.Preset = None,
    count: options.Count = 1,
    image: options.Image = None,
    mask: options.Mask = None,
    device: options.Device = "CPU",
    runtime: options.Runtime = "auto",
    precision: options.Precision = None,
    out: options.Out = Path("pictures"),
    as_json: options.AsDocument = False,
    **settings: Any,
) -> None:
    """Draw pictures, and print their paths.

    MODEL is a folder written by "lorablend convert", or the word demo for the small model that is shipped, which
    draws simple scenes of twelve objects. Tags in the PROMPT, such as <lora:ink:0.8>, add adapters from --lora-dir;
    they may have weights per block, steps and everything else that A1111 and its extensions support. Each PNG holds
    its settings, as text that other programs read and as JSON. With --json, a list has path, seed, seconds and warnings
    of each picture.

    \b
    Example:
      lorablend generate sdxl-int8 "a fox <lora:ink:0.8>" --lora-dir adapters --size 1024x1024 --seed 7 --count 4
    """
    from lorablend.app.cli.progress import step_bar
    from lorablend.app.cli.seeds import seeds
    from lorablend.app.files import check_folder
    from lorablend.app.library.use import note_used
    from lorablend.app.pictures.png import open_picture, save_result

    drawn = arguments.with_preset(preset, arguments.settings_of(settings))
    drawn |= {"image": open_picture(image) if image else None, "mask": open_picture(mask) if mask else None}
    check_folder(out)
    first_seed, entries = drawn.pop("seed", None), arguments.entries(lora, blend, blend_mode)
    folder, lora_dir = arguments.folders(model, lora_dir)
    pipe = arguments.open_pipeline(folder, lora_dir, device, runtime, precision, max_rank=max_rank, lenient=lenient)
    pictures: list[dict[str, Any]] = []
    try:
        for index, seed in enumerate(seeds(first_seed, count)):
            with step_bar(f"picture {index + 1} of {count}") as callback:
                result = pipe.generate(prompt, blend=entries, seed=seed, callback=callback, **drawn)
            if index == 0:
                for line in arguments.notes(result):
                    typer.echo(line, err=True)
            (path,) = save_result(result, pipe, out)
            seconds, warnings = round(result.timings["total"], 3), list(result.warnings)
            pictures.append({"path": str(path), "seed": result.seeds[0], "seconds": seconds, "warnings": warnings})
            if not as_json:
                typer.echo(path)
            if index == 0:
                note_used(lora_dir, result.blend)
    finally:  # also with what was drawn before an error
        if as_json:
            typer.echo(json.dumps(pictures, indent=2, ensure_ascii=False))


grid.register(app)
models.register(app)
app.command()(train)
app.command()(picture)


@app.command()
def bake(
    model: options.Model,
    out: options.NewFolder,
    lora: options.Lora = None,
    lora_dir: options.LoraDir = None,
    blend: options.Blend = None,
    lenient: options.Lenient = False,
) -> None:
    """Write a copy of a model with adapters added to its weights.

    MODEL is a folder written by "lorablend convert", or the word demo; OUT is a new or empty folder. Any OpenVINO GenAI
    program runs the copy, without lorablend. 8-bit models stay 8-bit.

    \b
    Example:
      lorablend bake sdxl-int8 sdxl-ink --lora ink.safetensors:0.8 --lora neon.safetensors:0.4
    """
    from functools import partial

    from lorablend.adapters import load_adapter, resolve_blend
    from lorablend.app.jobs.channel import Note, tell
    from lorablend.engine.bake import bake as bake_model

    if not (lora or blend):
        raise RequestError("there is nothing to bake; give at least one --lora FILE:WEIGHT")
    folder, lora_dir = arguments.folders(model, lora_dir)
    started = time.perf_counter()
    resolved = resolve_blend(arguments.entries(lora, blend), lora_dir, load=partial(load_adapter, lenient=lenient))
    for sentence in bake_model(folder, resolved, out):
        typer.echo(f"note: {sentence}", err=True)
        tell(Note(text=sentence))
    for item in resolved:
        for warning in item.adapter.warnings:
            typer.echo(f"warning: {item.adapter.name}: {warning}", err=True)
            tell(Note(text=f"{item.adapter.name}: {warning}"))
    typer.echo(f"baked in {time.perf_counter() - started:.1f} s", err=True)
    typer.echo(out)


@app.command()
def devices(as_json: options.AsDocument = False) -> None:
    """List the devices that can compute.

    \b
    Example:
      lorablend devices
    """
    from lorablend.engine.devices import devices as list_devices

    found = list_devices()
    if as_json:
        forms = [{"name": name, "full_name": full_name} for name, full_name in found]
        typer.echo(json.dumps(forms, indent=2, ensure_ascii=False))
        return
    for name, full_name in found:
        typer.echo(f"{name:<8} {full_name}")


@app.command()
def demo(out: options.Out = Path("demo")) -> None:
    """Draw one prompt with the demo model, without an adapter, with each, and with two at a time.

    The demo model has SDXL's architecture at a small size; it was trained on drawn scenes of twelve objects. Writes
    each picture, and a sheet with all of them, sheet.png.

    \b
    Example:
      lorablend demo --out demo
    """
    from lorablend.app.cli.showcase import draw_showcase
    from lorablend.app.files import check_folder
    from lorablend.app.library.folder import adapter_files
    from lorablend.app.pictures.showcase import read_showcase
    from lorablend.shipped import adapters_dir

    check_folder(out)
    showcase = read_showcase(adapters_dir() / "showcase.json")
    folder, lora_dir = arguments.folders("demo", None)
    draw_showcase(arguments.open_pipeline(folder, lora_dir), showcase, adapter_files(lora_dir), out, say=typer.echo)


@app.command()
def ui(
    model: options.AnyModel = None,
    served: options.ServedModel = None,
    lora_dir: options.LoraDir = None,
    data: options.Data = None,
    device: options.Device = "CPU",
    runtime: options.Runtime = "auto",
    precision: options.Precision = None,
    host: options.Host = None,
    port: options.Port = None,
    listen: options.Listen = False,
    token: options.Token = None,
    users: options.Users = None,
    offline: options.Offline = False,
    history: options.History = HISTORY,
) -> None:
    """Serve the web page, and everything that "lorablend serve" serves, until Ctrl-C.

    MODEL is a folder written by "lorablend convert"; without it, or with the word demo, it is the small model that is
    shipped. Pictures and the queue are kept in the --data folder. Only browsers on this machine can connect, unless
    --listen is given.

    \b
    Example:
      lorablend ui sdxl-int8 --lora-dir adapters
    """
    device_options = {"device": device, "runtime": runtime, "precision": precision}
    where = {"host": arguments.host(host, listen), "port": port, "token": token, "users": users, "offline": offline}
    where |= {"history": history}
    _serve(arguments.served_model(model, served), lora_dir, data, device_options, with_page=True, **where)


@app.command()
def serve(
    model: options.AnyModel = None,
    served: options.ServedModel = None,
    lora_dir: options.LoraDir = None,
    data: options.Data = None,
    device: options.Device = "CPU",
    runtime: options.Runtime = "auto",
    precision: options.Precision = None,
    host: options.Host = None,
    port: options.Port = None,
    listen: options.Listen = False,
    token: options.Token = None,
    users: options.Users = None,
    offline: options.Offline = False,
    history: options.History = HISTORY,
) -> None:
    """Serve REST to programs, until Ctrl-C.

    OpenAI's /v1/images, AUTOMATIC1111's /sdapi/v1, and /api, all described by /openapi.json. MODEL is a folder written
    by "lorablend convert"; without it, or with the word demo, it is the small model that is shipped. Pictures and the
    queue are kept in the --data folder. Only programs on this machine can connect, unless --listen is given.

    \b
    Example:
      lorablend serve sdxl-int8 --lora-dir adapters --port 8000
    """
    device_options = {"device": device, "runtime": runtime, "precision": precision}
    where = {"host": arguments.host(host, listen), "port": port, "token": token, "users": users, "offline": offline}
    where |= {"history": history}
    _serve(arguments.served_model(model, served), lora_dir, data, device_options, with_page=False, **where)


def _serve(
    model: str,
    lora_dir: Path | None,
    data: Path | None,
    device_options: dict[str, Any],
    *,
    with_page: bool,
    host: str,
    port: int | None,
    token: str | None,
    users: Path | None,
    offline: bool,
    history: int,
) -> None:
    """Serve, with or without the page."""
    if offline:
        from lorablend.app.library.download import OFFLINE

        os.environ.update({OFFLINE: "1", "HF_HUB_OFFLINE": "1"})  # before the Hub's library is imported
    if users is not None:  # what the owner may download from the Hub is not everybody's, unless the owner says so
        os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    own = model == "demo" and lora_dir is None
    folder, lora_dir = arguments.folders(model, lora_dir)
    _guard_downloads(host, token, users)
    from lorablend.app import server  # after the quick checks: its imports take a second
    from lorablend.app.library.folder import adapter_files
    from lorablend.app.pictures.record import model_name
    from lorablend.app.service import Service
    from lorablend.engine import ModelFolder

    ModelFolder(folder)  # to fail before anything is written
    adapter_files(lora_dir)
    server.check_login(host, token, users)
    socket = server.listen(host, port)
    data = data or server.default_data()
    with server.hold(data):
        if own:  # the shipped ones must not change, and new ones need a place
            lora_dir = server.own_adapters(data)
        service = Service(data, {model_name(folder): folder}, lora_dir, history=history, **device_options)
        page: dict[str, Any] = {}
        if with_page:
            server.own_cache(data)
            from lorablend.app.page.page import build_page, mount_options  # Gradio takes seconds to import

            page = {"page": build_page(service), "page_options": mount_options()}
        hosts = [host] if server.is_loopback(host) else None
        app = server.create_app(service, token=token, users=users, hosts=hosts, offline=offline, **page)
        server.run_server(app, service, socket, host=host, say=typer.echo)


def _guard_downloads(host: str, token: str | None, users: Path | None) -> None:
    """On a server that others can use, only public addresses are downloaded from: its network is not theirs."""
    from lorablend.app.auth import is_loopback
    from lorablend.app.library.public import PUBLIC_ONLY, guard_hub

    if token is not None or users is not None or not is_loopback(host):
        # Before the Hub's library is imported. Xet's connections could not be checked.
        os.environ.update({PUBLIC_ONLY: "1", "HF_HUB_DISABLE_XET": "1"})
        guard_hub()
