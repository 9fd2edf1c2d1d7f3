"""The demo: one prompt and seed drawn without an adapter, with each, and with blends of two, all on one sheet."""

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from lorablend.adapters.errors import ModelError
from lorablend.app.cli.progress import step_bar
from lorablend.app.pictures.png import save_png, text_chunks
from lorablend.app.pictures.sheet import Table, draw_sheet
from lorablend.app.pictures.showcase import Showcase, ShowcaseEntry, Weights
from lorablend.engine import Pipeline, Result

__all__ = ["draw_showcase"]

_COLUMNS = 7  # pictures in a row, at most


def draw_showcase(
    pipe: Pipeline, showcase: Showcase, adapters: Sequence[Path], folder: Path, say: Callable[[str], None]
) -> Path:
    """Draw all pictures of the showcase, save them and `sheet.png` to `folder`, and return the path of the sheet.

    Args:
        pipe: The demo's pipeline.
        showcase: What to draw.
        adapters: The adapter files, which the showcase names without their suffix.
        folder: Where the pictures go.
        say: Called with each line of output.
    """
    started = time.perf_counter()
    files = _files(showcase, adapters)
    say(showcase.about)
    results: dict[tuple[str, Weights], Result] = {}

    def draw(label: str, prompt: str | None, weights: Weights) -> Result:
        """Draw a picture, or reuse one drawn before: a blend begins with its first adapter alone."""
        used = tuple((name, weight) for name, weight in weights if weight)
        key = (prompt or showcase.prompt, used)
        if key not in results:
            with step_bar(label) as callback:
                results[key] = pipe.generate(
                    key[0],
                    blend=[(files[name], weight) for name, weight in used],
                    steps=showcase.steps,
                    guidance_scale=showcase.guidance,
                    seed=showcase.seed,
                    callback=callback,
                )
            _save(results[key], label, showcase.seed, pipe, folder, say)
        return results[key]

    alone = [("no adapter", draw("no adapter", None, ()))]
    for entry in showcase.adapters:
        alone.append((entry.label, draw(entry.label, entry.prompt, ((entry.adapters[0], 1.0),))))
    blends = [
        [
            draw(f"{entry.label} {_weights_label(share)}", entry.prompt, _weights(entry, share))
            for share in showcase.shares
        ]
        for entry in showcase.blends
    ]
    seconds = time.perf_counter() - started
    title = f"“{showcase.prompt}”"
    subtitle = f"one prompt, one seed, {showcase.steps} steps"
    if any(entry.prompt for entry in (*showcase.adapters, *showcase.blends)):
        subtitle += ", plus the trigger words of each adapter"
    tables = [*_alone(alone), *_blended(showcase, blends)]
    caption = (showcase.about, _timings(list(results.values()), seconds))
    sheet = save_png(draw_sheet(tables, title=title, subtitle=subtitle, caption=caption), folder, "sheet")
    say(caption[1])
    say(f"side by side: {sheet}")
    return sheet


def _files(showcase: Showcase, adapters: Sequence[Path]) -> dict[str, Path]:
    """The files by name. Raises ModelError if the showcase names a missing one."""
    files = {path.stem: path for path in adapters}
    for entry in (*showcase.adapters, *showcase.blends):
        for name in entry.adapters:
            if name not in files:
                raise ModelError(f'the demo has no adapter "{name}"; reinstall lorablend')
    return files


def _weights(entry: ShowcaseEntry, share: float) -> Weights:
    """The weights of a blend's two adapters, rounded so that 0.7 is not shown as 0.7000000000000001."""
    first, second = entry.adapters
    return (first, round(1 - share, 6)), (second, float(share))


def _weights_label(share: float) -> str:
    return f"{round(1 - share, 6):g} + {share:g}"


def _save(result: Result, label: str, seed: int, pipe: Pipeline, folder: Path, say: Callable[[str], None]) -> None:
    stem = re.sub(r"[^A-Za-z0-9_.]+", "-", label)
    path = save_png(result.images[0], folder, stem, text_chunks(result, seed, pipe))
    seconds = result.timings
    say(
        f"{path.name:<40} {seconds['total']:6.2f} s, including {seconds['load']:5.2f} s to compile and "
        f"{seconds['blend'] * 1000:4.0f} ms to change the blend"
    )


def _alone(pictures: list[tuple[str, Result]]) -> list[Table]:
    """Rows of about the same length, each picture below its label."""
    rows = -(-len(pictures) // _COLUMNS)
    columns = -(-len(pictures) // rows)
    parts = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    return [
        Table(
            heading="" if index else "Without an adapter, then with each one alone",
            columns=[label for label, _ in part],
            pictures=[[result.images[0] for _, result in part]],
        )
        for index, part in enumerate(parts)
    ]


def _blended(showcase: Showcase, pictures: list[list[Result]]) -> list[Table]:
    if not pictures:
        return []
    return [
        Table(
            heading="Blends of two, from one to the other",
            columns=[_weights_label(share) for share in showcase.shares],
            rows=[entry.label for entry in showcase.blends],
            rows_title="weights",
            pictures=[[result.images[0] for result in row] for row in pictures],
        )
    ]


def _timings(results: list[Result], seconds: float) -> str:
    """A line about the time taken."""
    timings = [result.timings for result in results]
    load = sum(timing["load"] for timing in timings)
    each = median(timing["total"] - timing["load"] for timing in timings)
    blend = median(timing["blend"] for timing in timings)
    return (
        f"{len(results)} pictures in {seconds:.0f} s on {os.cpu_count()} cores: {load:.1f} s to compile, then "
        f"{each:.2f} s per picture, including {blend * 1000:.0f} ms to change the blend"
    )
