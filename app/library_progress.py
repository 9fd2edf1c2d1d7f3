"""How far the library's work is, as a bar on stderr where that is a terminal; elsewhere nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

__all__ = ["byte_bar", "file_bar"]


@contextmanager
def byte_bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Bytes of one file; gives the progress callback of `Library.add`."""
    with _bar(DownloadColumn(), TransferSpeedColumn()) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def file_bar() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Files that are read; gives, for a label, a progress callback of `Library.scan` and `Library.hash_files`."""
    with _bar(MofNCompleteColumn()) as bar:

        def labelled(label: str) -> Callable[[int, int], None]:
            task = bar.add_task(label, total=None, visible=False)
            return lambda done, total: bar.update(task, completed=done, total=total, visible=True)

        yield labelled


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    # stdout is for the results alone; a pipe must get them, not this console.
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=False,
    )
