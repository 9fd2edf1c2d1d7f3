"""The demo: one prompt and seed, without an adapter, with each, and with two at a time, side by side on one sheet."""

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

_COLUMNS = 7  # pictures beside each other, at most


def draw_showcase(
    pipe: Pipeline, showcase: Showcase, adapters: Sequence[Path], folder: Path, say: Callable[[str], None]
) -> Path:
    """Draw all that the showcase names, save the pictures and `sheet.png` to `folder`, and return the sheet's path.

    adapters: the files that it may name, by the names without their suffix. `say` gets what happens, line by line.
    """
    started = time.perf_counter()
    files = _files(showcase, adapters)
    say(showcase.about)
    drawn: dict[tuple[str, Weights], Result] = {}

    def draw(label: str, prompt: str | None, weights: Weights) -> Result:
        """A picture that was drawn before is shown again: a blend begins with its first adapter alone."""
        used = tuple((name, weight) for name, weight in weights if weight)
        key = (prompt or showcase.prompt, used)
        if key not in drawn:
            with step_bar(label) as callback:
                drawn[key] = pipe.generate(
                    key[0],
                    blend=[(files[name], weight) for name, weight in used],
                    steps=showcase.steps,
                    guidance_scale=showcase.guidance,
                    seed=showcase.seed,
                    callback=callback,
                )
            _save(drawn[key], label, showcase.seed, pipe, folder, say)
        return drawn[key]

    alone = [("no adapter", draw("no adapter", None, ()))]
    for variant in showcase.adapters:
        alone.append((variant.label, draw(variant.label, variant.prompt, ((variant.adapters[0], 1.0),))))
    blends = [
        [
            draw(f"{variant.label} {_weights_label(share)}", variant.prompt, _weights(variant, share))
            for share in showcase.shares
        ]
        for variant in showcase.blends
    ]
    seconds = time.perf_counter() - started
    title = f"“{showcase.prompt}”"
    subtitle = f"one prompt, one seed, {showcase.steps} steps"
    if any(variant.prompt for variant in (*showcase.adapters, *showcase.blends)):
        subtitle += ", and the words that each adapter listens to"
    tables = [*_alone(alone), *_blended(showcase, blends)]
    caption = (showcase.about, _timings(list(drawn.values()), seconds))
    sheet = save_png(draw_sheet(tables, title=title, subtitle=subtitle, caption=caption), folder, "sheet")
    say(caption[1])
    say(f"side by side: {sheet}")
    return sheet


def _files(showcase: Showcase, adapters: Sequence[Path]) -> dict[str, Path]:
    """The files by name. Raises ModelError if the showcase names one that is not there."""
    files = {path.stem: path for path in adapters}
    for variant in (*showcase.adapters, *showcase.blends):
        for name in variant.adapters:
            if name not in files:
                raise ModelError(f'the demo has no adapter "{name}"; reinstall lorablend')
    return files


def _weights(variant: ShowcaseEntry, share: float) -> Weights:
    """Of a blend's two adapters; numbers as a person writes them, 0.7 and not 0.7000000000000001."""
    first, second = variant.adapters
    return (first, round(1 - share, 6)), (second, float(share))


def _weights_label(share: float) -> str:
    return f"{round(1 - share, 6):g} + {share:g}"


def _save(result: Result, label: str, seed: int, pipe: Pipeline, folder: Path, say: Callable[[str], None]) -> None:
    stem = re.sub(r"[^A-Za-z0-9_.]+", "-", label)
    path = save_png(result.images[0], folder, stem, text_chunks(result, seed, pipe))
    seconds = result.timings
    say(
        f"{path.name:<40} {seconds['total']:6.2f} s, of which {seconds['load']:5.2f} s to compile and "
        f"{seconds['blend'] * 1000:4.0f} ms to change the blend"
    )


def _alone(pictures: list[tuple[str, Result]]) -> list[Table]:
    """Rows of about equally many, each picture below its label."""
    rows = -(-len(pictures) // _COLUMNS)
    columns = -(-len(pictures) // rows)
    parts = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    return [
        Table(
            heading="" if index else "Without an adapter, and with each alone",
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
            heading="Two at a time, from one to the other",
            columns=[_weights_label(share) for share in showcase.shares],
            rows=[variant.label for variant in showcase.blends],
            rows_title="weights",
            pictures=[[result.images[0] for result in row] for row in pictures],
        )
    ]


def _timings(results: list[Result], seconds: float) -> str:
    """What it took, in one line."""
    timings = [result.timings for result in results]
    load = sum(one["load"] for one in timings)
    each = median(one["total"] - one["load"] for one in timings)
    blend = median(one["blend"] for one in timings)
    return (
        f"{len(results)} pictures in {seconds:.0f} s on {os.cpu_count()} cores: {load:.1f} s to compile, then "
        f"{each:.2f} s for a picture, {blend * 1000:.0f} ms of them to change the blend"
    )
