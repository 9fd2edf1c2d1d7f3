"""The part of the page that shows a job, as HTML: a preview, a progress bar and a line of text."""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Sequence

from lorablend.app.jobs.jobs import GETTING_READY, Job

__all__ = ["job_stage", "text_stage"]

_LONGEST = 240  # characters of a warning


def text_stage(text: str, *, alarm: bool = False) -> str:
    """A line of text; `alarm` marks it as an error."""
    role = "alert" if alarm else "status"
    return f'<div class="stage"><p role="{role}">{html.escape(text)}</p></div>'


def job_stage(job: Job | None, waiting: int, prompt: str = "") -> str:
    """The running job, or how the last one ended; `waiting` is the number of jobs after it."""
    if job is None:
        return text_stage("Your pictures appear here.")
    behind = f" · {waiting} waiting" if waiting else ""
    if job.state == "queued":
        return _bar(f"job {job.number} waits for its turn{behind}", None, b"", prompt)
    if job.state == "running":
        return _running(job, behind, prompt)
    if job.state == "failed":
        return text_stage(f"failed: {job.reason}", alarm=True)
    if job.state == "cancelled":
        return text_stage("stopped")
    return text_stage(_summary(job))


def _running(job: Job, behind: str, prompt: str) -> str:
    progress = job.progress
    seconds = f"{max(0.0, time.time() - job.started) if job.started else 0.0:.0f} s"
    if progress is None or not progress.steps:
        stage = "stopping" if job.stopping else GETTING_READY
        return _bar(f"{stage} · {seconds}{behind}", None, b"", prompt)
    count = max(1, int((job.request or {}).get("count", 1))) if isinstance(job.request, dict) else 1
    each = max(1, progress.steps // count)
    done = progress.step if progress.text == GETTING_READY else max(progress.step - 1, 0)
    # Decoding a picture counts as one more step.
    decoded, decodings = (done // each, count) if job.kind == "draw" else (0, 0)
    bar = (progress.step + decoded, progress.steps + decodings)
    if job.stopping:
        return _bar(f"stopping · {seconds}{behind}", bar, progress.preview or b"", prompt)
    words = f"picture {min(done // each + 1, count)} of {count} · " if count > 1 else ""
    words += progress.text or f"step {done % each + 1} of {each}"
    words += f" · {seconds}"
    if progress.eta is not None:
        words += f" · about {max(progress.eta, 0):.0f} s to go"
    return _bar(words + behind, bar, progress.preview or b"", prompt)


def _bar(text: str, done: tuple[int, int] | None, preview: bytes, prompt: str) -> str:
    """A progress bar, of unknown length if `done` is None; the browser scales the preview."""
    value = "" if done is None else f' value="{done[0]}" max="{done[1]}"'
    source = f"data:image/png;base64,{base64.b64encode(preview).decode()}"
    picture = f'<img alt="Preview" src="{source}">' if preview else '<div class="blank"></div>'
    title = f'<p class="prompt">{html.escape(prompt[:160])}</p>' if prompt else ""
    return (
        f'<div class="stage"><p role="status">{html.escape(text)}</p>'
        f'<progress aria-label="Progress"{value}></progress>{title}{picture}</div>'
    )


def _cut(text: str) -> str:
    """A warning, shortened: one about a long prompt quotes everything that was cut off."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _summary(job: Job) -> str:
    pictures: Sequence[dict[str, float]] = (job.result or {}).get("pictures", ())
    count = f"{len(pictures)} picture{'' if len(pictures) == 1 else 's'}"
    seconds = f"{(job.ended or 0) - (job.started or 0):.1f} s"
    warnings = "".join(f" · {_cut(str(warning))}" for warning in (job.result or {}).get("warnings", ()))
    return f"{count} in {seconds}{warnings}"
