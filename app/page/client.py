"""Who presses the page's buttons: whose turn it is in the queue, and whose jobs may be stopped."""

from __future__ import annotations

from typing import Any

import gradio as gr

__all__ = ["client_of", "user_of"]


def client_of(request: gr.Request) -> str:
    """The user, where users log in by name, whatever tab or program it is; else the tab."""
    return user_of(request) or str(request.session_hash)


def user_of(request: gr.Request) -> str:
    """The name that the user logged in by, "" for who has the token, and where nobody logs in."""
    asked: Any = request.request
    return asked.scope.get("lorablend.user") or ""
