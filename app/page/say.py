"""Options of the page's event listeners, and its error messages: one line, without this machine's folders."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from pydantic import ValidationError

from lorablend.adapters.errors import LorablendError
from lorablend.app.service import Service

__all__ = ["AT_ONCE", "CHANGING", "CHOOSING", "GREY", "HIDDEN", "NOW", "saying", "size_text"]

AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For listeners that never raise `gr.Error`; without the queue, the browser would take it for a broken server."""
CHANGING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
"""For all other listeners, and those that change a State with listeners, which only Gradio's queue calls."""
CHOOSING: dict[str, Any] = CHANGING | {"trigger_mode": "always_last", "concurrency_limit": 1}
"""For listeners of a choice. Without `always_last`, Gradio drops a choice that is made before the answer to the
previous one; and without the limit, the answer to an earlier choice may come last. The page would show, use or delete
the wrong item."""
GREY = "() => ({__type__: 'update', interactive: false})"
"""Disables a pressed button in the browser. A listener's answer could arrive after the check that found the next job,
and the button would stay disabled during all of it."""
NOW = "performance.now(), null"
"""For the inputs of a choice: when it was made, and a State."""
HIDDEN = "() => ({__type__: 'update', visible: false})"
"""Hides a question in the browser. A listener's late answer could hide the next question."""


@contextmanager
def saying(service: Service) -> Iterator[None]:
    """Turn exceptions into `gr.Error`: the user's mistakes with their own message, bugs with a line that says so."""
    try:
        yield
    except gr.Error:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise gr.Error(html.escape(f"{place}: {first['msg'].lower()}"), print_exception=False) from None
    except (LorablendError, OSError) as error:
        raise gr.Error(html.escape(service.public(str(error))), print_exception=False) from None
    except Exception as error:  # otherwise the button would seem to do nothing
        raise gr.Error("an internal error occurred; see the program's log") from error


def size_text(size: int) -> str:
    """A size in bytes for people: "0.3 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.1f} kB"
