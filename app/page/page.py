"""The web page in front of the service. Everything is local, and all work is done in jobs."""

import os

# Before Gradio is imported: it must not send reports or look for new versions.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")

import html
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.themes import Base

from lorablend.app.page.adapters import make_adapters
from lorablend.app.page.board import BOARD_STYLE
from lorablend.app.page.create import make_create
from lorablend.app.page.gallery import make_gallery
from lorablend.app.page.grid import make_grid
from lorablend.app.page.models import make_models
from lorablend.app.page.say import CHANGING
from lorablend.app.page.tools import make_tools
from lorablend.app.page.train import make_train
from lorablend.app.service import Service

__all__ = ["build_page", "mount_options"]

# System fonts, because Gradio's own themes make the browser load fonts from a server.
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "monospace")
_LARGEST_UPLOAD = "4gb"  # an adapter of a full fine-tuning


def build_page(service: Service) -> gr.Blocks:
    """Build the page for a running service; mount it with `mount_options`."""
    processing_utils.async_ssrf_protected_get = _refuse
    shelf = service.shelf
    pipe = service.models.get()
    subtitle = html.escape(f"{service.models.names[0]} · {pipe.device} · {pipe.runtime}")
    with gr.Blocks(title="lorablend", fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.HTML(f"<h1>lorablend</h1><p>{subtitle}</p>", elem_id="title")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Create", id="create") as tab:
                create = make_create(service, shelf, page)
            # Other tabs, trainings and programs may have added adapters.
            tab.select(lambda: [gr.Dropdown(shelf.names())] * 2, None, [create.add, create.tag], **CHANGING)
            with gr.Tab("Gallery", id="gallery") as tab:
                make_gallery(service, shelf, create, tabs, tab)
            with gr.Tab("Adapters", id="adapters") as tab:
                make_adapters(service, shelf, create, tab)
            with gr.Tab("Grid", id="grid") as tab:
                make_grid(service, shelf, create, page, tab)
            with gr.Tab("Train", id="train") as tab:
                make_train(service, shelf, create, page, tab)
            with gr.Tab("Models and devices", id="models") as tab:
                make_models(service, create, tab)
        make_tools(service, page)
    page.queue(max_size=64)
    # Gradio's own server would say so; files in requests are to be checked as it does.
    page.has_launched = True
    return page


async def _refuse(url: str) -> Any:
    """In place of Gradio's own downloads: a request could name an address where a file is expected.

    It would be read into memory, of any size and also offline.
    """
    raise gr.Error(f"{html.escape(url[:80])} is an address; upload the file itself", print_exception=False)


def mount_options() -> dict[str, Any]:
    """Options of `gr.mount_gradio_app`: the theme, and nothing that sends data to other machines."""
    return {
        "theme": _theme(),
        "css_paths": [Path(__file__).with_name("page.css"), BOARD_STYLE],
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "max_file_size": _LARGEST_UPLOAD,
        "ssr_mode": False,
        "enable_monitoring": False,
        "pwa": False,
        "mcp_server": True,
    }


def _theme() -> Base:
    return Base(
        primary_hue="indigo", neutral_hue="slate", radius_size="lg", spacing_size="md", font=_FONT, font_mono=_MONO
    ).set(
        body_background_fill="*neutral_50",
        block_border_width="1px",
        block_shadow="none",
        block_title_text_color="*neutral_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_title_text_weight="500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        button_cancel_background_fill="*neutral_100",
        slider_color="*primary_500",
        color_accent="*primary_600",  # the default is too pale for text; for dark mode see page.css
    )
