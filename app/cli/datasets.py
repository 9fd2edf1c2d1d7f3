"""`lorablend dataset prepare|check`: look at a data set before training, and make it ready."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorablend.adapters.errors import RequestError
from lorablend.app.cli import options

if TYPE_CHECKING:
    from lorablend.train.plan import Machine

__all__ = ["dataset_app"]

dataset_app = typer.Typer(help="Look at a data set before training, and make it ready.", rich_markup_mode=None)

Data = Annotated[Path, options.argument("DATA")]
Trigger = Annotated[
    str | None,
    options.option("--trigger", "WORD", "Put before captions that lack it. Default: what the folders' names say."),
]
Resolution = Annotated[
    int, options.option("--resolution", "N", "Pixels: pictures get about N×N of them.", min=64, max=8192)
]
Square = Annotated[bool, options.option("--square", None, "Cut all to squares, instead of the nearest shape.")]
Captions = Annotated[
    str | None,
    options.option(
        "--captions",
        "files|folders",
        "Caption pictures that have no text by their file's or their folder's name. Default: whichever tells more.",
    ),
]
SkipBad = Annotated[bool, options.option("--skip-bad", None, "Leave out, and list, what is damaged; no error.")]
ModelName = Annotated[
    str,
    options.option(
        "--model",
        "MODEL",
        "What is to be trained: a diffusers folder, a Hugging Face id, a .safetensors checkpoint, or the word demo.",
    ),
]
Repeats = Annotated[
    int | None,
    options.option("--repeats", "N", "Of every picture per epoch. Default: what the folders' names say.", min=1),
]
OwnResolution = Annotated[
    int | None, options.option("--resolution", "N", "Pixels. Default: the model's own.", min=64, max=8192)
]
Batch = Annotated[
    int | None, options.option("--batch", "N", "Pictures at once. Default: as many of 4 as fit the memory.", min=1)
]
Steps = Annotated[
    int | None, options.option("--steps", "N", "Of the training. Default: by the number of pictures.", min=1)
]


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
    """Write a data set anew: cut to sizes for training, without near-duplicates, each picture with its caption.

    DATA is a folder of pictures in any common layout, a .zip or .tar file, or a file that lists pictures; it stays as
    it is. OUT is a folder that is new or empty. Contact sheets to look at are written beside it. Where there is a
    trigger, repeats or regularization, the pictures lie in kohya's folders, which carry these to the training.

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
) -> None:
    """Say what a training would do with a data set, or what has to be mended first; nothing heavy is loaded.

    DATA is what "lorablend train" takes: a folder of pictures in any common layout, a .zip or .tar file, or a file that
    lists pictures.

    \b
    Example:
      lorablend dataset check photos --model stabilityai/stable-diffusion-xl-base-1.0 --trigger sks
    """
    from lorablend.train.base import find_base
    from lorablend.train.config import TrainConfig
    from lorablend.train.data.duplicates import near_duplicates
    from lorablend.train.data.layouts import find_examples
    from lorablend.train.duration import measure_speed
    from lorablend.train.plan import make_plan
    from lorablend.train.preflight import check_captions, check_files, preflight

    dataset = find_examples(data, trigger=trigger, repeats=repeats)
    check_files(dataset)  # before the model: it may have to be fetched
    check_captions(dataset)
    given: dict[str, Any] = {"resolution": resolution, "batch": batch, "steps": steps}
    config = TrainConfig(data=data, model=model, out=Path("adapter.safetensors"), **given)
    base = find_base(model)
    plan = make_plan(config, base, len(dataset.examples), _machine())
    try:
        speed = measure_speed(plan.precision)
    except ImportError:  # no torch
        speed = None
    for line in preflight(dataset, config, base, plan, speed=speed).lines:
        typer.echo(line)
    examples = list(dict.fromkeys(dataset.examples))
    twins = near_duplicates(examples)
    for twin, original in twins:
        typer.echo(
            f"note: {dataset.name(examples[twin].path)} looks like {dataset.name(examples[original].path)}; "
            '"lorablend dataset prepare" leaves it out'
        )


def _machine() -> "Machine":
    """The device that would train; without torch, this computer's memory."""
    import psutil

    from lorablend.train.plan import Machine, find_machine

    try:
        return find_machine()
    except ImportError:
        return Machine("cpu", "this computer", psutil.virtual_memory().available, False)
