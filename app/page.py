"""The web page: settings on the left, pictures on the right. One pipeline, one picture at a time, everything local."""

import os

# Before Gradio is imported: nothing is reported to anybody, and no version is looked up.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")

import html
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.themes import Base

from lorablend.adapters import Blend, BlendItem, load_adapter
from lorablend.adapters.errors import Cancelled, LorablendError, RequestError
from lorablend.app.folder import adapter_files
from lorablend.app.stage import step_stage, text_stage
from lorablend.app.studio import Picture, Studio
from lorablend.engine import ModelFolder, Pipeline
from lorablend.engine.attach import check_attach
from lorablend.engine.schedulers import SCHEDULERS, SPACINGS

__all__ = ["build_page", "serve"]

_KEPT_PICTURES = 100  # in a session's gallery; all stay on disk
_MODEL_DEFAULT = ("the model's own", "")
# Fonts that the system has: Gradio's own themes name fonts that a browser asks a server for.
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "monospace")

Values = dict[Any, Any]  # component -> value, as Gradio hands them over and takes them


@dataclass(frozen=True)
class _AdapterRow:
    path: Path
    on: gr.Checkbox
    weight: gr.Slider
    note: gr.HTML


@dataclass(frozen=True)
class _Controls:
    """The left column."""

    prompt: gr.Textbox
    negative: gr.Textbox
    adapters: list[_AdapterRow]
    width: gr.Slider
    height: gr.Slider
    steps: gr.Slider
    guidance: gr.Slider
    scheduler: gr.Dropdown
    spacing: gr.Dropdown
    count: gr.Slider
    seed: gr.Number
    new_seed: gr.Checkbox

    def boxes(self) -> set[Any]:
        """All whose values a drawing needs."""
        own = {getattr(self, field.name) for field in fields(self) if field.name != "adapters"}
        return own | {box for row in self.adapters for box in (row.on, row.weight)}

    def settings(self, values: Values) -> dict[str, Any]:
        """The arguments for `Studio.draw`."""
        return {
            "count": int(values[self.count]),
            "seed": None if values[self.new_seed] else values[self.seed],
            "prompt": values[self.prompt],
            "negative_prompt": values[self.negative] or None,
            "blend": [(row.path, values[row.weight]) for row in self.adapters if values[row.on]],
            "width": int(values[self.width]),
            "height": int(values[self.height]),
            "steps": int(values[self.steps]),
            "guidance_scale": values[self.guidance],
            "scheduler": values[self.scheduler] or None,
            "spacing": values[self.spacing] or None,
        }


@dataclass(frozen=True)
class _Results:
    """The right column. pictures holds (path, settings as text), newest first."""

    start: gr.Button
    stop: gr.Button
    stage: gr.HTML
    gallery: gr.Gallery
    text: gr.Textbox
    pictures: gr.State


def serve(
    pipe: Pipeline, lora_dir: Path | None, out: Path, *, host: str, port: int | None, say: Callable[[str], None]
) -> None:
    """Serve the page until interrupted. Raises RequestError if it cannot listen there."""
    page = build_page(pipe, lora_dir, out)
    _check_address(host, port)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            theme=_theme(),
            css_paths=Path(__file__).with_name("page.css"),
        )
    except OSError as error:
        raise RequestError(
            f"cannot listen at {host}: all ports from 7860 on are taken; give one with --port"
        ) from error
    say(f"open {url} (Ctrl-C ends it)")
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def build_page(pipe: Pipeline, lora_dir: Path | None, out: Path) -> gr.Blocks:
    """The page for one pipeline and the adapters of a folder; pictures are written to `out`."""
    studio = Studio(pipe, out, lora_dir)
    model = html.escape(pipe.model.path.resolve().name)
    with gr.Blocks(title="lorablend", fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.HTML(f"<h1>lorablend</h1><p>{model} · {pipe.device} · {pipe.runtime}</p>", elem_id="title")
        with gr.Row(equal_height=False, elem_id="columns"):
            with gr.Column(scale=1, min_width=360):
                controls = _controls(pipe, lora_dir)
            with gr.Column(scale=1, min_width=360, elem_id="results"):
                results = _results()
        _wire(studio, pipe.model, controls, results, hide=(pipe.model.path, lora_dir, out))
    page.queue(max_size=64)
    return page


def _controls(pipe: Pipeline, lora_dir: Path | None) -> _Controls:
    width, height = pipe.model.default_size
    schedulers = [_MODEL_DEFAULT, *((info.label, name) for name, info in SCHEDULERS.items())]
    prompt = gr.Textbox(label="Prompt", lines=3, autofocus=True)
    negative = gr.Textbox(label="Negative prompt", lines=1)
    adapters = _adapter_rows(lora_dir)
    with gr.Group():
        with gr.Row():
            width_box = gr.Slider(64, 2048, width, step=8, label="Width (pixels)")
            height_box = gr.Slider(64, 2048, height, step=8, label="Height (pixels)")
        with gr.Row():
            steps = gr.Slider(1, 100, 20, step=1, label="Steps")
            guidance = gr.Slider(0, 20, 5, step=0.5, label="Guidance (≤ 1: none)")
        with gr.Row():
            scheduler = gr.Dropdown(schedulers, value="", label="Scheduler")
            spacing = gr.Dropdown(_spacings(""), value="", label="Spacing of noise levels")
        with gr.Row():
            count = gr.Slider(1, 16, 1, step=1, label="Pictures")
            seed = gr.Number(0, precision=0, minimum=0, label="Seed")
        new_seed = gr.Checkbox(True, label="New seed each time")
    return _Controls(
        prompt=prompt,
        negative=negative,
        adapters=adapters,
        width=width_box,
        height=height_box,
        steps=steps,
        guidance=guidance,
        scheduler=scheduler,
        spacing=spacing,
        count=count,
        seed=seed,
        new_seed=new_seed,
    )


def _adapter_rows(lora_dir: Path | None) -> list[_AdapterRow]:
    """A switch and a slider for every adapter, and room for its trigger words."""
    files = adapter_files(lora_dir)
    if lora_dir is None or not files:
        gr.HTML(
            "<p>No adapters. Add some to the library with <code>lorablend adapters add</code>, "
            "or start with --lora-dir and a folder of .safetensors files.</p>",
            padding=True,
        )
        return []
    rows = []
    with gr.Column(elem_id="adapters", elem_classes="block"):
        for path in files:
            name = path.relative_to(lora_dir).with_suffix("").as_posix()
            with gr.Row(elem_classes="adapter", equal_height=False):
                on = gr.Checkbox(False, label=name, container=False, min_width=140)
                weight = gr.Slider(
                    -2, 2, 1, step=0.05, label=f"Weight of {name}", show_label=False, container=False, min_width=200
                )
            rows.append(_AdapterRow(path, on, weight, gr.HTML(visible=False, elem_classes="note")))
    return rows


def _results() -> _Results:
    with gr.Row():
        start = gr.Button("Generate", variant="primary", scale=3)
        stop = gr.Button("Stop", variant="stop", interactive=False, scale=1)
    return _Results(
        start=start,
        stop=stop,
        stage=gr.HTML(text_stage("Your pictures appear here."), elem_id="stage"),
        gallery=gr.Gallery(
            label="Pictures",
            columns=4,
            height=600,
            object_fit="contain",
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
        ),
        text=gr.Textbox(label="Settings", lines=5, max_lines=12, visible=False),  # a copy button would take the label
        pictures=gr.State([]),
    )


def _wire(
    studio: Studio, model: ModelFolder, controls: _Controls, results: _Results, hide: tuple[Path | None, ...]
) -> None:
    """What happens on a click. hide: folders that no message may name."""

    def begin(request: gr.Request) -> Values:
        try:
            studio.begin(str(request.session_hash))
        except RequestError as error:  # Shift+Enter in the prompt, when the button is off
            raise gr.Error(str(error), print_exception=False) from None
        return {
            results.start: gr.Button(interactive=False),
            results.stop: gr.Button(interactive=True),
            results.stage: text_stage("getting ready", busy=True),
            results.gallery: gr.Gallery(visible=False),
        }

    def draw(values: Values, request: gr.Request) -> Iterator[Values]:
        started = time.perf_counter()
        shown: list[tuple[str, str]] = values[results.pictures]
        drawn: list[Picture] = []
        failure: Exception | None = None
        try:
            for event in studio.draw(str(request.session_hash), **controls.settings(values)):
                if isinstance(event, Picture):
                    drawn.append(event)
                    # A copy that Gradio may serve, byte for byte; the folder itself stays closed to browsers.
                    copy = save_file_to_cache(event.path, results.gallery.GRADIO_CACHE)
                    shown = [(copy, event.parameters), *shown][:_KEPT_PICTURES]
                else:
                    yield {results.stage: step_stage(event, time.perf_counter() - started)}
        except Exception as error:  # raised again below, when the buttons are ready for the next attempt
            failure = error
        yield {
            results.start: gr.Button(interactive=True),
            results.stop: gr.Button(interactive=False),
            results.stage: text_stage(_summary(drawn, stopped=isinstance(failure, Cancelled))),
            results.gallery: gr.Gallery([path for path, _ in shown], selected_index=0, visible=bool(shown)),
            results.text: gr.Textbox(shown[0][1] if shown else "", visible=bool(shown)),
            results.pictures: shown,
            controls.seed: drawn[0].seed if drawn else gr.skip(),
        }
        for warning in drawn[0].warnings if drawn else ():
            gr.Warning(html.escape(warning))
        if isinstance(failure, LorablendError | OSError) and not isinstance(failure, Cancelled):
            raise gr.Error(html.escape(_without_folders(str(failure), hide)), print_exception=False)
        if failure and not isinstance(failure, Cancelled):
            raise failure

    def give_up(request: gr.Request) -> Values:
        """After any error, also one of Gradio's own before `draw` was called."""
        studio.end(str(request.session_hash))
        return {
            results.start: gr.Button(interactive=True),
            results.stop: gr.Button(interactive=False),
            results.stage: text_stage("failed"),
        }

    def halt(request: gr.Request) -> gr.Button:
        studio.stop(str(request.session_hash))
        return gr.Button(interactive=False)

    def select(shown: list[tuple[str, str]], event: gr.SelectData) -> str:
        return shown[event.index][1]

    def new_spacings(scheduler: str) -> gr.Dropdown:
        return gr.Dropdown(_spacings(scheduler), value="")

    # Nothing but drawing waits in a queue, and only one drawing runs at a time.
    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    drawing = gr.on(
        [results.start.click, controls.prompt.submit],
        begin,
        None,
        {results.start, results.stop, results.stage, results.gallery},
        **at_once,
    ).success(
        draw,
        controls.boxes() | {results.pictures},
        {getattr(results, field.name) for field in fields(results)} | {controls.seed},
        show_progress="hidden",
        api_visibility="private",
        concurrency_id="pipeline",
        concurrency_limit=1,
    )
    drawing.failure(give_up, None, {results.start, results.stop, results.stage}, **at_once)
    results.stop.click(halt, None, results.stop, **at_once)
    results.gallery.select(select, results.pictures, results.text, **at_once)
    controls.scheduler.change(new_spacings, controls.scheduler, controls.spacing, **at_once)
    for row in controls.adapters:
        row.on.change(_note_for(row.path, model, hide), row.on, row.note, **at_once)


def _check_address(host: str, port: int | None) -> None:
    """Raise RequestError if the server could not listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"{host}, port {port}" if port else host
        raise RequestError(f"cannot listen at {where}: {str(error.strerror).lower()}") from error


def _note_for(path: Path, model: ModelFolder, hide: tuple[Path | None, ...]) -> Callable[[bool], gr.HTML]:
    """What to show below an adapter that is switched on: its trigger words, or why this model cannot use it."""

    def note(on: bool) -> gr.HTML:
        if not on:
            return gr.HTML(visible=False)
        try:
            adapter = load_adapter(path)
            check_attach(Blend((BlendItem(adapter),)), model.parameters, model.family)
        except LorablendError as error:
            return gr.HTML(html.escape(_without_folders(str(error), hide)), visible=True)
        words = ", ".join(adapter.trigger_words) or "none named in the file"
        return gr.HTML(html.escape(f"trigger words: {words}"), visible=True)

    return note


def _spacings(scheduler: str) -> list[tuple[str, str]]:
    return [_MODEL_DEFAULT, *((name, name) for name in (SCHEDULERS[scheduler].spacings if scheduler else SPACINGS))]


def _summary(drawn: list[Picture], *, stopped: bool) -> str:
    count = f"{len(drawn)} picture{'' if len(drawn) == 1 else 's'}"
    return f"stopped, {count} done" if stopped else f"{count} in {sum(picture.seconds for picture in drawn):.1f} s"


def _without_folders(text: str, folders: tuple[Path | None, ...]) -> str:
    """The message without this machine's folders, which are no business of the page's visitors."""
    for folder in folders:
        for path in (folder, folder.resolve()) if folder else ():
            text = text.replace(f"{path}{os.sep}", "").replace(str(path), path.name)
    return text


def _theme() -> Base:
    return Base(primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=_FONT, font_mono=_MONO).set(
        body_background_fill="*neutral_50",
        block_border_width="1px",
        block_shadow="none",
        block_title_text_color="*neutral_700",
        body_text_color_subdued="*neutral_600",
        block_title_text_weight="500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        slider_color="*primary_500",
    )
