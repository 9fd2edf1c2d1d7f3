"""Who uses the page, which decides whose turn it is in the queue and whose jobs may be stopped."""

from __future__ import annotations

from typing import Any

import gradio as gr

__all__ = ["client_of", "user_of"]


def client_of(request: gr.Request) -> str:
    """The user's name if users log in by name, the same in all tabs and programs; else an id of the tab."""
    return user_of(request) or str(request.session_hash)


def user_of(request: gr.Request) -> str:
    """The name of the user who logged in, or "" with a token only or without any login."""
    http_request: Any = request.request
    return http_request.scope.get("lorablend.user") or ""
