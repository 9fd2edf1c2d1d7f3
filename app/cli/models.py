"""`lorablend compress`: write a smaller copy of a model folder."""

import typer

from lorablend.app.cli import options

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to `lorablend`."""
    app.command()(compress)


def compress(model: options.Model, out: options.NewFolder) -> None:
    """Write a copy of a model with its weights in 8 bits. Needs lorablend[convert].

    MODEL is a folder written by "lorablend convert" with --weights fp16 or fp32, or the word demo; OUT is a new or
    empty folder. The result is the same as from "lorablend convert --weights int8", but the original model is not
    needed.

    \b
    Example:
      lorablend compress sdxl-fp16 sdxl-int8
    """
    from lorablend.app.cli.arguments import folders
    from lorablend.app.cli.progress import stage_bar
    from lorablend.convert.compress import compress as compress_model

    folder, _ = folders(model, None)
    with stage_bar() as progress:
        compress_model(folder, out, progress=progress)
    typer.echo(out)
