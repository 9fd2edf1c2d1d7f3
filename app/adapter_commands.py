"""`lorablend adapters …`: commands on adapter files."""

import json

import typer

from lorablend.app import options

__all__ = ["adapters_app"]

adapters_app = typer.Typer(help="Look into adapter files.", rich_markup_mode=None)


@adapters_app.callback(invoke_without_command=True)
def _adapters(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@adapters_app.command()
def inspect(
    file: options.AdapterFile,
    as_json: options.AsJson = False,
) -> None:
    """Show what an adapter file is for and what is in it.

    FILE is a .safetensors file.

    \b
    Example:
      lorablend adapters inspect ink.safetensors
    """
    from lorablend.adapters import inspect_adapter, load_adapter
    from lorablend.app.report import adapter_report

    report = inspect_adapter(load_adapter(file))
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else adapter_report(report))
