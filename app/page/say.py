"""What the page says when something is wrong: one line, without this machine's folders."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from pydantic import ValidationError

from lorablend.adapters.errors import LorablendError
from lorablend.app.service import Service

__all__ = ["AT_ONCE", "CHANGING", "CHOOSING", "GREY", "HIDDEN", "saying", "size_text"]

AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Of event listeners that raise no `gr.Error`, which a browser would take for a broken server without a queue."""
CHANGING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
"""Of all others, and of those that change a State that others listen to: only Gradio's queue tells them."""
CHOOSING: dict[str, Any] = CHANGING | {"trigger_mode": "always_last"}
"""Of those that follow on a choice: Gradio forgets one that is made before the answer to the choice before has come,
and the page would show, draw with or delete what was chosen first."""
GREY = "() => ({__type__: 'update', interactive: false})"
"""For a button that is pressed, by the browser itself: what a listener answers may come after the look that found the
next job, and would leave the button grey for all of it."""
HIDDEN = "() => ({__type__: 'update', visible: false})"
"""For the question whether one is sure, by the browser itself: a late answer would hide the next one."""


@contextmanager
def saying(service: Service) -> Iterator[None]:
    """Turn errors into `gr.Error`: a person's mistakes by their own words, faults of ours by a line that says so."""
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
    except Exception as error:  # without this the button would seem to do nothing
        raise gr.Error("something went wrong in the program; its log says what") from error


def size_text(size: int) -> str:
    """Bytes for a person: "0.3 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.1f} kB"
