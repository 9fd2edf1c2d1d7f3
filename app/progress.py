"""How far the work is, on stderr: a bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lorablend.engine.request import Step

__all__ = ["stage_bar", "step_bar"]


@contextmanager
def step_bar(label: str) -> Iterator[Callable[[Step], None]]:
    """Steps and seconds of one picture; gives the callback for `Pipeline.generate`."""
    started = time.perf_counter()
    console = Console(stderr=True)
    with _bar(console) as bar:
        task = bar.add_task(f"{label}: getting ready", total=None)
        steps = 0

        def callback(step: Step) -> None:
            nonlocal steps
            steps = step.index + 1
            bar.update(task, description=label, completed=steps, total=step.steps)

        yield callback
        bar.update(task, description=label)
    if not console.is_terminal:
        seconds = time.perf_counter() - started
        typer.echo(f"{label}: {steps} step{'' if steps == 1 else 's'}, {seconds:.1f} s", err=True)


@contextmanager
def stage_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Stages of a conversion; gives its progress callback (stage, stages done, stages in all)."""
    console = Console(stderr=True)
    with _bar(console) as bar:
        task = bar.add_task("getting ready", total=None)

        def callback(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)
            if not console.is_terminal:
                typer.echo(f"{done} of {total}: {stage}", err=True)

        yield callback


def _bar(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # stdout is for the results alone; a pipe must get them, not this console.
    return Progress(*columns, console=console, disable=not console.is_terminal, redirect_stdout=False)
