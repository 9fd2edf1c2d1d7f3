"""`lorablend grid`: a study of settings on one sheet."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lorablend.adapters.errors import RequestError
from lorablend.app.cli import options
from lorablend.engine.settings import SETTINGS

__all__ = ["register"]

_VALUES = (
    "Names and forms: weight:ink=0,0.5,1 (an adapter's) or weight=0..1:5 (a factor for all; five values), "
    f"{', '.join(f'{setting.axis}={setting.sweep}' for setting in SETTINGS.values() if setting.sweep)}, "
    "checkpoint=run/*.safetensors (adapter files, or names in --lora-dir; weight:checkpoint is theirs), "
    "prompt=fox|wolf|bear (words to replace)."
)
_Columns = Annotated[str, options.option("-x", "NAME=VALUES", f"The setting the columns sweep. {_VALUES}")]
_Rows = Annotated[str | None, options.option("-y", "NAME=VALUES", "The setting the rows sweep. Default: none.")]
_Tables = Annotated[str | None, options.option("-z", "NAME=VALUES", "The setting the tables sweep. Default: none.")]
_OutFile = Annotated[Path, options.option("--out", "FILE", "The .png file to write; it must not exist yet.")]
_Pictures = Annotated[
    Path | None,
    options.option(
        "--pictures", "DIR", "Folder for every picture by itself, saved as soon as it is done. Default: only the sheet."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to `lorablend`."""
    app.command()(grid)


@options.with_settings
def grid(
    model: options.Model,
    prompt: options.Prompt,
    *,
    x: _Columns,
    y: _Rows = None,
    z: _Tables = None,
    out: _OutFile,
    pictures: _Pictures = None,
    lora: options.Lora = None,
    lora_dir: options.LoraDir = None,
    blend: options.Blend = None,
    blend_mode: options.BlendMode = None,
    max_rank: options.MaxRank = None,
    lenient: options.Lenient = False,
    preset: options.Preset = None,
    image: options.Image = None,
    mask: options.Mask = None,
    device: options.Device = "CPU",
    runtime: options.Runtime = "auto",
    precision: options.Precision = None,
    **settings: Any,
) -> None:
    """Draw one labelled sheet of pictures that differ in up to three settings.

    MODEL, PROMPT and the options are those of "lorablend generate"; all pictures have one seed. At most 100 pictures.
    The sheet keeps the settings of each.

    \b
    Example:
      lorablend grid demo "a red boat" -x weight:watercolour=0,0.5,1 -y steps=4,8,20 --seed 7 --out sheet.png
    """
    from lorablend.app.cli.arguments import entries, folders, notes, open_pipeline, settings_of, with_preset
    from lorablend.app.cli.progress import stage_bar
    from lorablend.app.files import check_folder
    from lorablend.app.grid.axes import parse_axis
    from lorablend.app.grid.grid import Cell, draw_grid
    from lorablend.app.library.use import note_used
    from lorablend.app.pictures.png import open_picture, save_png, text_chunks

    if out.suffix.lower() != ".png":
        raise RequestError(f"{out} is not the name of a PNG; give one that ends in .png")
    if out.exists():
        raise RequestError(f"{out} is already there; choose another name or delete it")
    check_folder(out.parent)
    if pictures:
        check_folder(pictures)
    folder, lora_dir = folders(model, lora_dir)
    axes = [parse_axis(text, lora_dir) for text in (x, y, z) if text]
    # The axes count as given, so that a preset leaves them alone.
    own = settings_of(settings) | {axis.argument: axis.values[0] for axis in axes if axis.argument}
    drawn = with_preset(preset, own)
    drawn |= {"image": open_picture(image) if image else None, "mask": open_picture(mask) if mask else None}
    pipe = open_pipeline(folder, lora_dir, device, runtime, precision, max_rank=max_rank, lenient=lenient)
    noted: set[str] = set()

    def keep(cell: Cell) -> None:
        for note in notes(cell.result):
            if note not in noted:
                typer.echo(note, err=True)
        noted.update(notes(cell.result))
        if pictures:
            chunks = text_chunks(cell.result, cell.result.request.seed, pipe)
            typer.echo(save_png(cell.result.images[0], pictures, cell.stem, chunks))

    with stage_bar() as progress:
        sheet = draw_grid(
            pipe,
            prompt,
            axes=axes,
            blend=entries(lora, blend, blend_mode),
            lora_dir=lora_dir,
            progress=progress,
            each=keep,
            **drawn,
        )
    typer.echo(save_png(sheet.sheet, out.parent, out.stem, {"lorablend-grid": sheet.to_json(pipe)}))
    blends = {tuple(item.adapter.path for item in cell.result.blend): cell.result.blend for cell in sheet.cells}
    for used in blends.values():
        note_used(lora_dir, used)
