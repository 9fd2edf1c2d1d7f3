"""The tab of models and devices: what there is, and what draws."""

from __future__ import annotations

import html

import gradio as gr

from lorablend.adapters.errors import LorablendError
from lorablend.app.page_create import Create
from lorablend.app.page_say import CHANGING, saying
from lorablend.app.service import Service
from lorablend.engine.devices import devices

__all__ = ["make_settings_tab"]


def make_settings_tab(service: Service, create: Create) -> None:
    """Lay out the tab and wire it."""
    names = service.models.names
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            gr.HTML("<h2>Model</h2>")
            model = gr.Radio(names, value=names[0], label="Draw with")
            facts = gr.HTML(_model_facts(service, names[0]))
        with gr.Column(min_width=280):
            gr.HTML(f"<h2>Devices</h2>{_device_table(service)}")

    def switch(name: str) -> dict[object, object]:
        with saying(service):
            said = _model_facts(service, name)
            width, height = service.models.get(name).model.default_size
        return {facts: said, create.form.model: name, create.form.width: width, create.form.height: height}

    model.input(switch, model, [facts, create.form.model, create.form.width, create.form.height], **CHANGING)


def _model_facts(service: Service, name: str) -> str:
    pipe = service.models.get(name)
    width, height = pipe.model.default_size
    lines = {
        "Name": name,
        "Family": pipe.model.family,
        "Trained at": f"{width} × {height} pixels",
        "Scheduler": pipe.model.scheduler_class,
        "Runs on": f"{pipe.device}, runtime {pipe.runtime}",
        "Precision": pipe.precision or "the device's own choice",
        "Highest rank": pipe.max_rank or "as the adapters are",
    }
    rows = "".join(f"<dt>{key}</dt><dd>{html.escape(str(value))}</dd>" for key, value in lines.items())
    return f"<dl>{rows}</dl>"


def _device_table(service: Service) -> str:
    """What OpenVINO sees; the device that draws is marked."""
    used = service.models.get().device
    try:
        found = devices()
    except (LorablendError, RuntimeError) as error:
        return f'<p role="alert">{html.escape(str(error))}</p>'
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(words)}</td>"
        f"<td>{'draws' if name == used else ''}</td>"
        f"<td>{'live and genai' if name == 'CPU' else 'genai'}</td></tr>"
        for name, words in found
    )
    return (
        "<table><thead><tr><th>Device</th><th>Name</th><th>Use</th><th>Runtimes</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        "<p>The device is chosen when the program starts: <code>--device</code> and <code>--runtime</code>.</p>"
    )
