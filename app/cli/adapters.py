"""`lorablend adapters …`: commands for adapter files and for the library that holds them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorablend.app.cli import options, tools

if TYPE_CHECKING:
    from lorablend.app.library.entry import Entry
    from lorablend.app.library.library import Library

__all__ = ["adapters_app"]

adapters_app = typer.Typer(help="Inspect and combine adapter files, and keep a library of them.", rich_markup_mode=None)

Name = Annotated[str, options.argument("NAME")]
Words = Annotated[list[str] | None, options.argument("WORDS")]
LibraryDir = Annotated[
    Path | None,
    options.option(
        "--lora-dir",
        "DIR",
        "Folder of the library. Default: $LORABLEND_ADAPTERS, else a folder in your data directory.",
    ),
]
EntriesAsJson = Annotated[bool, options.option("--json", None, "Print all details as JSON, including hashes and tags.")]
Hashes = Annotated[
    bool,
    options.option(
        "--hashes", None, "First hash the files that are not hashed yet; if stopped, the next run continues."
    ),
]
NewName = Annotated[str | None, options.option("--name", "NAME", "Name for the adapter. Default: the source's name.")]
Sha256 = Annotated[
    str | None,
    options.option("--sha256", "HEX", "Expected SHA-256 of the file, 64 hex digits. Default: the Hub's, if any."),
]
BaseModel = Annotated[
    str | None, options.option("--base-model", "NAME", "Only adapters for this model: sd15, sd2, sdxl or unknown.")
]
Algorithm = Annotated[
    str | None,
    options.option("--algorithm", "NAME", "Only adapters of this algorithm: lora, loha, lokr, dora, oft and so on."),
]
Tag = Annotated[str | None, options.option("--tag", "TEXT", "Only adapters that you gave this tag.")]
Favourite = Annotated[bool, options.option("--favourite", None, "Only your favourites.")]


@adapters_app.callback(invoke_without_command=True)
def _adapters(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@adapters_app.command()
def inspect(
    file: options.AdapterFile,
    lenient: options.Lenient = False,
    as_json: options.AsJson = False,
) -> None:
    """Show the base model, algorithm, ranks and trigger words of an adapter file.

    FILE is a .safetensors file.

    \b
    Example:
      lorablend adapters inspect ink.safetensors
    """
    from lorablend.adapters import inspect_adapter, load_adapter
    from lorablend.app.cli.report import adapter_report

    report = inspect_adapter(load_adapter(file, lenient=lenient))
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else adapter_report(report))


@adapters_app.command("list")
def list_adapters(
    lora_dir: LibraryDir = None,
    hashes: Hashes = False,
    as_json: EntriesAsJson = False,
) -> None:
    """List the adapters of the library.

    Shows name, base model, algorithm, rank, size and trigger words, which are read from the headers of new files.
    Adapters that cannot be used come last, with the reason.

    \b
    Example:
      lorablend adapters list --lora-dir loras
    """
    library = _open(lora_dir, hashes)
    _print(library, library.entries(), as_json)


@adapters_app.command()
def search(
    words: Words = None,
    base_model: BaseModel = None,
    algorithm: Algorithm = None,
    tag: Tag = None,
    favourite: Favourite = False,
    lora_dir: LibraryDir = None,
    hashes: Hashes = False,
    as_json: EntriesAsJson = False,
) -> None:
    """Search the library.

    Each of the WORDS must occur in the name, title, trigger words or tags, or begin one of the hashes.

    \b
    Example:
      lorablend adapters search ink --base-model sdxl
    """
    library = _open(lora_dir, hashes)
    entries = library.search(
        " ".join(words or ()), base_model=base_model, algorithm=algorithm, tag=tag, favourite=favourite or None
    )
    _print(library, entries, as_json)


@adapters_app.command()
def add(
    source: options.Source,
    name: NewName = None,
    sha256: Sha256 = None,
    lora_dir: LibraryDir = None,
) -> None:
    """Add an adapter to the library, and print its path.

    SOURCE is a .safetensors file, which is copied; an http or https address; or hf:owner/repo or hf:owner/repo/file on
    the Hugging Face Hub, for which `hf auth login` stores a token. To continue an interrupted download, give the same
    command again.

    \b
    Example:
      lorablend adapters add hf:latent-consistency/lcm-lora-sdxl --name lcm
    """
    from lorablend.app.cli.progress import byte_bar

    library = _open(lora_dir, make=True)
    with byte_bar(source.partition("?")[0]) as progress:
        entry = library.add(source, name=name, sha256=sha256, progress=progress)
    if entry.error:
        typer.echo(f"warning: the adapter was added, but cannot be used: {entry.error}", err=True)
    typer.echo(entry.path)


@adapters_app.command()
def remove(name: Name, lora_dir: LibraryDir = None) -> None:
    """Move an adapter to the library's bin, and print its folder there.

    NAME is the adapter's name as shown by "lorablend adapters list".

    \b
    Example:
      lorablend adapters remove ink
    """
    typer.echo(_open(lora_dir).remove(name))


tools.register(adapters_app)


def _open(folder: Path | None, hashes: bool = False, make: bool = False) -> "Library":
    """Open and scan the library. The default folder is created if it does not exist, any other only with `make`."""
    from lorablend.app.cli.progress import file_bar
    from lorablend.app.library.folder import default_folder
    from lorablend.app.library.library import Library

    if folder is None or make:
        folder = folder or default_folder()
        folder.mkdir(parents=True, exist_ok=True)
    library = Library(folder)
    with file_bar() as labelled:
        library.scan(labelled("headers"))
        if hashes:
            library.hash_files(labelled("whole files"))
    return library


def _print(library: "Library", entries: "Sequence[Entry]", as_json: bool) -> None:
    from lorablend.app.cli.report import library_report

    if not entries:
        count = len(library.entries())
        more = f"none of the {count} matches" if count else 'there are none; add one with "lorablend adapters add"'
        typer.echo(f"adapters in {library.folder}: {more}", err=True)
    forms: list[dict[str, Any]] = [entry.to_dict() for entry in entries]
    text = json.dumps(forms, indent=2, ensure_ascii=False) if as_json else library_report(entries)
    if text:
        typer.echo(text)
