"""Facts about models and devices, as HTML."""

from __future__ import annotations

import html
from typing import Any

from lorablend.adapters.errors import LorablendError
from lorablend.app.page.say import size_text
from lorablend.app.service import Service
from lorablend.engine.devices import devices

__all__ = ["device_table", "disk_text", "model_facts", "model_table"]


def model_facts(service: Service, name: str) -> str:
    try:
        pipe = service.models.get(name)
    except LorablendError as error:  # another program changed it
        return f'<p class="trouble" role="alert">{html.escape(service.public(str(error)))}</p>'
    width, height = pipe.model.default_size
    lines = {
        "Name": name,
        "Family": pipe.model.family,
        "Trained at": f"{width} × {height} pixels",
        "Scheduler": pipe.model.scheduler_class,
        "Runs on": f"{pipe.device}, runtime {pipe.runtime}",
        "Precision": pipe.precision or "the device's own choice",
        "Highest rank": pipe.max_rank or "unlimited",
    }
    rows = "".join(f"<dt>{key}</dt><dd>{html.escape(str(value))}</dd>" for key, value in lines.items())
    return f"<dl>{rows}</dl>"


def model_table(service: Service) -> str:
    """All models with their size on disk, and the free space."""
    forms = service.building.models()
    rows = "".join(
        f"<tr><td>{html.escape(form['name'])}</td><td>{html.escape(form['family'])}</td>"
        f"<td>{disk_text(form['size'])}</td><td>{_origin(service, form)}</td></tr>"
        for form in forms
    )
    used = sum(form["size"] for form in forms)
    return (
        "<table><thead><tr><th>Model</th><th>Family</th><th>Disk</th><th>From</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><p>{disk_text(used)} used, {disk_text(service.building.free())} free</p>"
    )


def _origin(service: Service, form: dict[str, Any]) -> str:
    if form["error"]:
        return f'<span class="trouble" role="alert">{html.escape(service.public(form["error"]))}</span>'
    return html.escape(form["origin"] or ("made here" if form["own"] else "given at the start"))


def device_table(service: Service) -> str:
    """The devices that OpenVINO finds; the one that draws is marked."""
    used = service.models.get().device
    try:
        names = devices()
    except (LorablendError, RuntimeError) as error:
        return f'<p role="alert">{html.escape(str(error))}</p>'
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(words)}</td>"
        f"<td>{'draws' if name == used else ''}</td>"
        f"<td>{'live and genai' if name == 'CPU' else 'genai'}</td></tr>"
        for name, words in names
    )
    return (
        "<table><thead><tr><th>Device</th><th>Name</th><th>Use</th><th>Runtimes</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        "<p>The device is chosen when the program starts: <code>--device</code> and <code>--runtime</code>.</p>"
    )


def disk_text(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 950_000_000 else size_text(size)
