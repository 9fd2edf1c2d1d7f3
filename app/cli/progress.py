"""Progress on stderr: a bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lorablend.app.jobs.channel import Stage, tell
from lorablend.engine.request import Step

__all__ = ["byte_bar", "file_bar", "stage_bar", "step_bar"]


@contextmanager
def step_bar(label: str) -> Iterator[Callable[[Step], None]]:
    """Show the steps and seconds of one picture; yields the callback for `Pipeline.generate`."""
    started = time.perf_counter()
    with _bar(SpinnerColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task(f"{label}: getting ready", total=None)
        steps = 0

        def callback(step: Step) -> None:
            nonlocal steps
            steps = step.index + 1
            bar.update(task, description=label, completed=steps, total=step.steps)

        yield callback
        bar.update(task, description=label)
    if not bar.console.is_terminal:
        seconds = time.perf_counter() - started
        typer.echo(f"{label}: {steps} step{'' if steps == 1 else 's'}, {seconds:.1f} s", err=True)


@contextmanager
def stage_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show the stages of a conversion; yields its progress callback (stage, stages done, stages in all)."""
    with _bar(SpinnerColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("getting ready", total=None)

        def callback(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)
            tell(Stage(stage=stage, done=done, stages=total))
            if not bar.console.is_terminal:
                typer.echo(f"{done} of {total}: {stage}", err=True)

        yield callback


@contextmanager
def byte_bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the bytes of one file; yields the progress callback of `Library.add`."""
    with _bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def file_bar() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show files being read; yields a function from a label to the callback of `Library.scan` or `hash_files`."""
    with _bar(MofNCompleteColumn(), TimeRemainingColumn()) as bar:

        def labelled(label: str) -> Callable[[int, int], None]:
            task = bar.add_task(label, total=None, visible=False)
            return lambda done, total: bar.update(task, completed=done, total=total, visible=True)

        yield labelled


def _bar(*columns: ProgressColumn) -> Progress:
    """A progress display with a label, a bar and the columns; a spinner comes first."""
    spinner = [column for column in columns if isinstance(column, SpinnerColumn)]
    rest = [column for column in columns if not isinstance(column, SpinnerColumn)]
    console = Console(stderr=True)
    return Progress(
        *spinner,
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *rest,
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=False,  # stdout is for results only, and must reach a pipe unchanged
    )
