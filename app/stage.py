"""The part of the page that shows the work: a preview, a progress bar, a line of text; as HTML."""

import base64
import html
import io

from lorablend.engine import Step

__all__ = ["step_stage", "text_stage"]


def text_stage(text: str, *, busy: bool = False) -> str:
    """A line of text; with a bar of unknown length if `busy`."""
    bar = '<progress aria-label="Progress"></progress>' if busy else ""
    return f'<div class="stage"><p role="status">{html.escape(text)}</p>{bar}</div>'


def step_stage(step: Step, seconds: float) -> str:
    """The step's preview, stretched by the browser; seconds since the start."""
    buffer = io.BytesIO()
    step.preview().save(buffer, "PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    picture = f"picture {step.picture + 1} of {step.pictures} · " if step.pictures > 1 else ""
    done = step.picture * step.steps + step.index + 1
    return (
        f'<div class="stage"><p>{picture}step {step.index + 1} of {step.steps} · {seconds:.1f} s</p>'
        f'<progress aria-label="Progress" value="{done}" max="{step.steps * step.pictures}"></progress>'
        f'<img alt="Preview" src="data:image/png;base64,{source}"></div>'
    )
