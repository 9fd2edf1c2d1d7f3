"""Drawing for many browsers with one pipeline: one picture at a time, seen step by step, and each can stop its own."""

import dataclasses
import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import Cancelled, RequestError
from lorablend.app.library_use import note_used
from lorablend.app.png import read_png, save_result
from lorablend.app.seeds import seeds
from lorablend.engine import Pipeline, Result, Step

__all__ = ["Picture", "Studio"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that is done and on disk; parameters is its settings as text, seconds what it took."""

    path: Path
    parameters: str
    seed: int
    seconds: float
    warnings: tuple[str, ...]


class Studio:
    """Pictures go to the folder `out`, their adapters come from `lora_dir`.

    A session is any text that tells one browser page from another.
    """

    def __init__(self, pipe: Pipeline, out: Path, lora_dir: Path | None = None) -> None:
        self._pipe = pipe
        self._out = out
        self._lora_dir = lora_dir
        self._drawing = threading.Lock()
        self._stops: dict[str, threading.Event] = {}

    def begin(self, session: str) -> None:
        """To be called before `draw`, at once: from here on `stop` has something to stop, a job that waits included.

        Raises RequestError if the session's last job is not at its end.
        """
        if session in self._stops:
            raise RequestError("a picture is being drawn already; wait for it, or stop it")
        self._stops[session] = threading.Event()

    def end(self, session: str) -> None:
        """Forget what `begin` began. `draw` does it itself; this is for when it is never called."""
        self.stop(session)
        self._stops.pop(session, None)

    def stop(self, session: str) -> None:
        """Let the session's job raise Cancelled after the present step."""
        if session in self._stops:
            self._stops[session].set()

    def draw(
        self, session: str, *, count: int, seed: int | None, **settings: Any
    ) -> Generator[Step | Picture, None, None]:
        """Draw `count` pictures with `Pipeline.generate`'s settings; yields steps, and each picture when it is saved.

        If nobody takes the next item any more, because the page was closed, the work stops by itself.
        """
        stop = self._stops.setdefault(session, threading.Event())
        try:
            for index, one_seed in enumerate(seeds(seed, count)):
                result = yield from self._draw_one(stop, index, count, settings | {"seed": one_seed})
                (path,) = save_result(result, self._pipe, self._out)
                if index == 0:
                    note_used(self._lora_dir, result.blend)
                yield Picture(
                    path=path,
                    parameters=read_png(path).parameters or "",
                    seed=one_seed,
                    seconds=result.timings["total"],
                    warnings=result.warnings,
                )
        finally:
            stop.set()
            if self._stops.get(session) is stop:
                del self._stops[session]

    def _draw_one(
        self, stop: threading.Event, index: int, count: int, settings: dict[str, Any]
    ) -> Generator[Step, None, Result]:
        """The pipeline calls back while it works, the page wants to be asked: a thread and a queue stand between."""
        events: queue.SimpleQueue[Step | Result | BaseException] = queue.SimpleQueue()

        def report(step: Step) -> bool:
            events.put(dataclasses.replace(step, picture=index, pictures=count))
            return not stop.is_set()

        def work() -> None:
            try:
                with self._drawing:
                    if stop.is_set():
                        raise Cancelled("stopped before the first step")
                    events.put(self._pipe.generate(callback=report, **settings))
            except BaseException as error:
                events.put(error)

        threading.Thread(target=work, daemon=True).start()
        while True:
            event = events.get()
            while isinstance(event, Step) and not events.empty():  # a slow page sees fewer steps, not late ones
                event = events.get()
            if isinstance(event, Result):
                return event
            if isinstance(event, BaseException):
                raise event
            yield event
