"""`lorablend dataset prepare|check`: look at a data set before training, and make it ready."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorablend.adapters.errors import DataError, RequestError
from lorablend.app.cli import options
from lorablend.app.cli.train import setting_option

if TYPE_CHECKING:
    from lorablend.train.data.layouts import DataSet
    from lorablend.train.plan import Machine

__all__ = ["dataset_app"]

dataset_app = typer.Typer(help="Look at a data set before training, and make it ready.", rich_markup_mode=None)

Data = Annotated[Path, options.argument("DATA")]
Trigger = Annotated[str | None, setting_option("trigger")]
Resolution = Annotated[
    int, options.option("--resolution", "N", "Pixels; each picture is scaled to about N×N of them.", min=64, max=8192)
]
Square = Annotated[bool, options.option("--square", None, "Crop all pictures to squares instead of the nearest shape.")]
Captions = Annotated[
    str | None,
    options.option(
        "--captions",
        "files|folders",
        "Caption pictures without text by the name of their file or folder. Default: whichever tells more.",
    ),
]
SkipBad = Annotated[bool, options.option("--skip-bad", None, "Leave out and list damaged pictures instead of failing.")]
ModelName = Annotated[str, setting_option("model")]
Repeats = Annotated[int | None, setting_option("repeats", min=1)]
OwnResolution = Annotated[int | None, setting_option("resolution", min=64, max=8192)]
Batch = Annotated[int | None, setting_option("batch", min=1)]
Steps = Annotated[int | None, setting_option("steps", min=1)]


@dataset_app.callback(invoke_without_command=True)
def _dataset(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@dataset_app.command()
def prepare(
    data: Data,
    out: options.NewFolder,
    resolution: Resolution = 1024,
    square: Square = False,
    trigger: Trigger = None,
    captions: Captions = None,
    skip_bad: SkipBad = False,
) -> None:
    """Write a copy of a data set: cropped for training, without near-duplicates, each picture with its caption.

    DATA is a folder of pictures in any common layout, a .zip or .tar archive, or a file that lists pictures; it does
    not change. OUT is a folder that is new or empty. Contact sheets are written next to it. If the data set has a
    trigger, repeats or regularization pictures, OUT has kohya's folders, whose names pass them on to the training.

    \b
    Example:
      lorablend dataset prepare photos ready --resolution 512 --trigger sks
    """
    from lorablend.app.cli.progress import stage_bar
    from lorablend.train.prepare import prepare as prepare_data

    if captions not in (None, "files", "folders"):
        raise RequestError(f"captions is {captions}; give files or folders")
    with stage_bar() as progress:
        result = prepare_data(
            data,
            out,
            resolution=resolution,
            buckets=not square,
            trigger=trigger,
            caption_from=captions,  # pyright: ignore[reportArgumentType] - checked above
            skip_bad=skip_bad,
            progress=lambda done, total: progress("pictures", done, total),
        )
    for line in result.lines:
        typer.echo(line, err=True)
    for path in (result.folder, *result.sheets):
        typer.echo(path)


@dataset_app.command()
def check(
    data: Data,
    model: ModelName,
    trigger: Trigger = None,
    repeats: Repeats = None,
    resolution: OwnResolution = None,
    batch: Batch = None,
    steps: Steps = None,
    as_json: options.AsDocument = False,
) -> None:
    """Print what a training would do with a data set, or what has to be fixed first; no model is loaded.

    DATA is what "lorablend train" takes: a folder of pictures in any common layout, a .zip or .tar archive, or a file
    that lists pictures. With --json: the number of pictures, problems, notes, and the lines of the summary.

    \b
    Example:
      lorablend dataset check photos --model stabilityai/stable-diffusion-xl-base-1.0 --trigger sks
    """
    from lorablend.train.data.layouts import find_examples
    from lorablend.train.preflight import check_captions, check_files

    pictures, problems = 0, list[str]()
    try:
        dataset = find_examples(data, trigger=trigger, repeats=repeats)
        pictures, problems = len(dataset.examples), list(dataset.problems)
        check_files(dataset)  # before the model, which may have to be downloaded
        check_captions(dataset)
    except DataError as error:
        if as_json:
            _print({"pictures": pictures, "problems": problems or [str(error)], "notes": [], "summary": []})
        raise
    summary = _summary(dataset, data, model, {"resolution": resolution, "batch": batch, "steps": steps})
    twins = _twins(dataset)
    if as_json:
        _print({"pictures": pictures, "problems": [], "notes": [*dataset.notes, *twins], "summary": summary})
        return
    for line in (*summary, *(f"note: {twin}" for twin in twins)):
        typer.echo(line)


def _print(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _summary(dataset: "DataSet", data: Path, model: str, given: dict[str, Any]) -> list[str]:
    from lorablend.train.base import find_base
    from lorablend.train.config import TrainConfig
    from lorablend.train.duration import measure_speed
    from lorablend.train.plan import make_plan
    from lorablend.train.preflight import preflight

    config = TrainConfig(data=data, model=model, out=Path("adapter.safetensors"), **given)
    base = find_base(model)
    plan = make_plan(config, base, len(dataset.examples), _machine())
    try:
        speed = measure_speed(plan.precision)
    except ImportError:  # no torch
        speed = None
    return list(preflight(dataset, config, base, plan, speed=speed).lines)


def _twins(dataset: "DataSet") -> list[str]:
    from lorablend.train.data.duplicates import near_duplicates

    examples = list(dict.fromkeys(dataset.examples))
    return [
        f"{dataset.name(examples[twin].path)} looks like {dataset.name(examples[original].path)}; "
        '"lorablend dataset prepare" leaves it out'
        for twin, original in near_duplicates(examples)
    ]


def _machine() -> "Machine":
    """The device that would train; without torch, a CPU with this computer's memory."""
    import psutil

    from lorablend.train.plan import Machine, find_machine

    try:
        return find_machine()
    except ImportError:
        return Machine("cpu", "this computer", psutil.virtual_memory().available, False)
