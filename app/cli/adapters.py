"""`lorablend adapters …`: commands on adapter files, and on the folder that they are kept in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorablend.app.cli import options, tools

if TYPE_CHECKING:
    from lorablend.app.library.library import Entry, Library

__all__ = ["adapters_app"]

adapters_app = typer.Typer(
    help="Look into adapter files, combine them, and keep a library of them.", rich_markup_mode=None
)

Name = Annotated[str, options.argument("NAME")]
Words = Annotated[list[str] | None, options.argument("WORDS")]
LibraryDir = Annotated[
    Path | None,
    options.option(
        "--lora-dir",
        "DIR",
        "Folder of the library. Default: $LORABLEND_ADAPTERS, else a folder of your own data.",
    ),
]
EntriesAsJson = Annotated[
    bool, options.option("--json", None, "Print all there is to know as JSON, hashes and tags included.")
]
Hashes = Annotated[
    bool,
    options.option(
        "--hashes", None, "First read the files that were not read whole yet; a stopped run goes on the next time."
    ),
]
NewName = Annotated[str | None, options.option("--name", "NAME", "What to call it. Default: as the source does.")]
Sha256 = Annotated[
    str | None,
    options.option("--sha256", "HEX", "What the file must have, 64 hex digits. Default: the Hub's, if any."),
]
BaseModel = Annotated[str | None, options.option("--base-model", "NAME", "Only those for sd15, sd2, sdxl or unknown.")]
Algorithm = Annotated[
    str | None,
    options.option("--algorithm", "NAME", "Only those with lora, loha, lokr, dora, oft and so on."),
]
Tag = Annotated[str | None, options.option("--tag", "TEXT", "Only those with this tag of yours.")]
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
    """Show what an adapter file is for and what is in it.

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

    Name, base model, algorithm, rank, size and trigger words, of new files from their headers. Those that cannot be
    used come last, with the reason.

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

    Every one of the WORDS occurs in the name, title, trigger words or tags, or begins one of the hashes.

    \b
    Example:
      lorablend adapters search ink --base-model sdxl
    """
    library = _open(lora_dir, hashes)
    found = library.search(
        " ".join(words or ()), base_model=base_model, algorithm=algorithm, tag=tag, favourite=favourite or None
    )
    _print(library, found, as_json)


@adapters_app.command()
def add(
    source: options.Source,
    name: NewName = None,
    sha256: Sha256 = None,
    lora_dir: LibraryDir = None,
) -> None:
    """Bring an adapter into the library, and print its path.

    SOURCE is a .safetensors file, which is copied; an http or https address; or hf:owner/repo or hf:owner/repo/file on
    the Hugging Face Hub, for which `hf auth login` keeps the token. A download that was cut off goes on where it
    stopped when the same command is given again.

    \b
    Example:
      lorablend adapters add hf:latent-consistency/lcm-lora-sdxl --name lcm
    """
    from lorablend.app.cli.progress import byte_bar

    library = _open(lora_dir, make=True)
    with byte_bar(source.partition("?")[0]) as progress:
        entry = library.add(source, name=name, sha256=sha256, progress=progress)
    if entry.error:
        typer.echo(f"warning: added, but cannot be used as it is: {entry.error}", err=True)
    typer.echo(entry.path)


@adapters_app.command()
def remove(name: Name, lora_dir: LibraryDir = None) -> None:
    """Take an adapter out of the library, and print where it is now.

    NAME is the adapter's, as "lorablend adapters list" shows it. Nothing is deleted: the file goes to the library's
    bin.

    \b
    Example:
      lorablend adapters remove ink
    """
    typer.echo(_open(lora_dir).remove(name))


tools.register(adapters_app)


def _open(folder: Path | None, hashes: bool = False, make: bool = False) -> "Library":
    """The library as it is now. The default folder is made if it is not there, any other only with `make`."""
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
        more = f"none of the {count} fits" if count else 'there is none; bring one in with "lorablend adapters add"'
        typer.echo(f"adapters in {library.folder}: {more}", err=True)
    found: list[dict[str, Any]] = [entry.to_dict() for entry in entries]
    text = json.dumps(found, indent=2, ensure_ascii=False) if as_json else library_report(entries)
    if text:
        typer.echo(text)
