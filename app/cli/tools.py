"""`lorablend adapters merge|resize|extract|convert|compare`: tools for adapter files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorablend.adapters.errors import RequestError
from lorablend.app.cli.options import AdapterFile

if TYPE_CHECKING:
    from lorablend.adapters.tools.changes import WeightReader
    from lorablend.adapters.tools.compare import Comparison
    from lorablend.adapters.tools.lora_file import LoraReport

__all__ = ["register"]


def _option(flag: str, metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, **more)


_Files = Annotated[list[Path], typer.Argument(metavar="FILE", hidden=True)]
_Weighted = Annotated[list[str], typer.Argument(metavar="FILE", hidden=True)]
_Base = Annotated[Path, typer.Argument(metavar="BASE", hidden=True)]
_Tuned = Annotated[Path, typer.Argument(metavar="TUNED", hidden=True)]
_OutFile = Annotated[Path, _option("--out", "FILE", "The .safetensors file to write; it must not exist yet.")]
_Rank = Annotated[int | None, _option("--rank", "N", "Highest rank of each module, 1 to 4096.")]
_MergeRank = Annotated[
    int | None,
    _option(
        "--rank",
        "N",
        "Highest rank of each module, 1 to 4096. Default: the highest in any of the files; for concat their sum.",
    ),
]
_Keep = Annotated[
    float | None,
    _option(
        "--keep",
        "X",
        "Use the lowest rank that keeps this share of each change's squared norm, above 0 to 1; with 0.99 the error is "
        "at most 10 %.",
    ),
]
_Method = Annotated[
    str,
    _option(
        "--method",
        "svd|concat|ties|dare",
        "svd is the best approximation of the given rank; concat is exact, with the sum of the ranks; ties and dare "
        "make the adapters interfere less (arXiv 2306.01708, 2311.03099), but are slow.",
    ),
]
_Density = Annotated[
    float, _option("--density", "X", "For ties and dare: the share of each change that is kept, above 0 to 1.")
]
_Seed = Annotated[int, _option("--seed", "N", "For dare: seed of the random choice of what is dropped, 0 or more.")]
_Names = Annotated[str, _option("--names", "kohya|diffusers", "Naming of the tensors; most programs read kohya's.")]
_Dtype = Annotated[str | None, _option("--dtype", "f32|f16|bf16", "Number format of the file. Default: the input's.")]
_HalfDtype = Annotated[str, _option("--dtype", "f32|f16|bf16", "Number format of the file.")]
_ModelDir = Annotated[
    str | None,
    _option(
        "--model",
        "MODEL",
        'Folder written by "lorablend convert", or the word demo; needed for algorithms that depend on its weights '
        "(DoRA, OFT…).",
    ),
]
_CompareModel = Annotated[
    str | None,
    _option(
        "--model",
        "MODEL",
        'Folder written by "lorablend convert", or the word demo: sizes are then relative to its weights. Needed for '
        "algorithms that depend on the weights (DoRA, OFT…). Default: none.",
    ),
]
_To = Annotated[str, _option("--to", "kohya|diffusers", "Naming of the tensors in the new file.")]
_Png = Annotated[Path | None, _option("--png", "FILE", "Also draw the table as a heat map.")]
_AsJson = Annotated[bool, _option("--json", None, "Print all details as JSON.")]


def register(adapters_app: typer.Typer) -> None:
    """Add the commands to `lorablend adapters`."""
    for command in (merge, resize, extract, convert, compare):
        adapters_app.command()(command)


def merge(
    files: _Weighted,
    out: _OutFile,
    rank: _MergeRank = None,
    method: _Method = "svd",
    density: _Density = 0.5,
    seed: _Seed = 0,
    names: _Names = "kohya",
    dtype: _Dtype = None,
    model: _ModelDir = None,
) -> None:
    """Merge adapters into one LoRA file.

    Each FILE is a .safetensors file, followed by a colon and its weight, which is 1 by default. Any algorithm that has
    factors can be merged; others need --model. The error from approximating with a lower rank is summarized on stderr.

    \b
    Example:
      lorablend adapters merge ink.safetensors:0.8 neon.safetensors:0.4 --rank 32 --out both.safetensors
    """
    from lorablend.adapters import load_adapter
    from lorablend.adapters.tools.merge import merge as merge_adapters
    from lorablend.app.cli.progress import stage_bar

    items = [(load_adapter(name), weight) for name, weight in map(_weighted, files)]
    with stage_bar() as progress:
        report = merge_adapters(
            items,
            out,
            rank=rank,
            method=method,  # pyright: ignore[reportArgumentType] - it checks
            density=density,
            seed=seed,
            naming=names,  # pyright: ignore[reportArgumentType]
            dtype=dtype,
            weights=_weights(model),
            progress=progress,
        )
    _say(report)


def resize(
    file: AdapterFile,
    out: _OutFile,
    rank: _Rank = None,
    keep: _Keep = None,
    names: _Names = "kohya",
    dtype: _Dtype = None,
    model: _ModelDir = None,
) -> None:
    """Write an adapter as a LoRA of lower rank.

    FILE is a .safetensors file of any algorithm; one without factors needs --model. Give --rank, --keep or both.

    \b
    Example:
      lorablend adapters resize ink.safetensors --keep 0.99 --out ink-small.safetensors
    """
    from lorablend.adapters import load_adapter
    from lorablend.adapters.tools.resize import resize as resize_adapter

    weights = _weights(model)
    _say(resize_adapter(load_adapter(file), out, rank=rank, keep=keep, naming=names, dtype=dtype, weights=weights))  # pyright: ignore[reportArgumentType]


def extract(
    base: _Base,
    tuned: _Tuned,
    out: _OutFile,
    rank: _Rank = None,
    keep: _Keep = None,
    names: _Names = "kohya",
    dtype: _HalfDtype = "f16",
) -> None:
    """Write the difference between two models as a LoRA.

    BASE and TUNED are diffusers folders or .safetensors checkpoints of the same kind: SDXL, SD 1.x or SD 2.x. Give
    --rank, --keep or both. Differences that a LoRA cannot represent, such as in norms and biases, are listed.

    \b
    Example:
      lorablend adapters extract sd_xl_base_1.0.safetensors tuned.safetensors --rank 64 --out tuned-lora.safetensors
    """
    from lorablend.adapters.tools.extract import extract as extract_lora
    from lorablend.app.cli.progress import stage_bar

    with stage_bar() as progress:
        report = extract_lora(base, tuned, out, rank=rank, keep=keep, naming=names, dtype=dtype, progress=progress)  # pyright: ignore[reportArgumentType]
    _say(report)


def convert(file: AdapterFile, out: _OutFile, to: _To) -> None:
    """Rename an adapter's tensors for other programs, without changing its effect.

    FILE is a .safetensors file. The names of diffusers can express LoRA and DoRA; kohya's can express all algorithms of
    LyCORIS.

    \b
    Example:
      lorablend adapters convert pytorch_lora_weights.safetensors --to kohya --out ink.safetensors
    """
    from lorablend.adapters import load_adapter
    from lorablend.adapters.tools.rename import rename

    report = rename(load_adapter(file), out, to)  # pyright: ignore[reportArgumentType] - it checks
    for name in report.left_out:
        typer.echo(f"left out: {name}, which changes nothing", err=True)
    typer.echo(f"{report.tensors} tensors", err=True)
    typer.echo(report.path)


def compare(
    files: _Files,
    model: _CompareModel = None,
    png: _Png = None,
    as_json: _AsJson = False,
) -> None:
    """Show how much adapters change each part of the model, and which of them work against each other.

    Give 1 to 16 adapter files; each FILE is in .safetensors format. A cosine of +1 means the same direction, 0
    independent, -1 opposite directions. The suggested weights scale all adapters to the size of the smallest.

    \b
    Example:
      lorablend adapters compare ink.safetensors neon.safetensors --model sdxl-int8 --png heat.png
    """
    from lorablend.adapters import load_adapter
    from lorablend.adapters.files.write import check_new
    from lorablend.adapters.tools.compare import compare as compare_adapters

    if png:
        check_new(png)
    comparison = compare_adapters([load_adapter(file) for file in files], _weights(model))
    if png:
        from lorablend.app.pictures.heatmap import draw_heatmap

        draw_heatmap(comparison, png)
    if as_json:
        typer.echo(json.dumps(comparison.to_json(), indent=2, ensure_ascii=False))
    else:
        _print_table(comparison)
    if png:
        typer.echo(png, err=as_json)


def _weighted(text: str) -> tuple[str, float]:
    from lorablend.adapters import parse_lora_option

    entry = parse_lora_option(text)
    if not isinstance(entry, tuple):
        raise RequestError(f"{text}: a merge takes one weight per file; write FILE:WEIGHT")
    return entry


def _weights(model: str | None) -> "WeightReader | None":
    """Read the weights of a model folder, or of the demo model."""
    if model is None:
        return None
    from lorablend.engine.model_weights import model_weights

    if model == "demo":
        from lorablend.shipped import model_dir

        return model_weights(model_dir())
    return model_weights(Path(model))


def _say(report: "LoraReport") -> None:
    for text in report.left_out:
        typer.echo(f"left out: {text}", err=True)
    ranks = report.ranks.values()
    rank = f"rank {max(ranks)}" if len(set(ranks)) == 1 else f"rank {min(ranks)} to {max(ranks)}"
    worst = max(report.errors, key=lambda module: report.errors[module])
    typer.echo(
        f"{len(report.ranks)} modules, {rank}, {report.dtype}; error {report.mean:.2%} on average, "
        f"{report.worst:.2%} at most ({' '.join(worst)})",
        err=True,
    )
    typer.echo(report.path)


def _print_table(comparison: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lorablend.app.pictures.heatmap import numbers, suggestions

    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width, so nothing must be cut off
        console = Console(highlight=False, width=240)
    write: Callable[..., None] = console.print
    for text in suggestions(comparison):
        write(Text(text))
    heads, rows = numbers(comparison)
    table = Table(box=None, pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < 2 else "right")
    for row in rows:
        table.add_row(*row)
    write(table)
    for text in comparison.left_out:
        write(Text(f"left out: {text}"))
