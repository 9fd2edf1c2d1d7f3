"""What MkDocs needs to build these pages: packages to read docstrings from, the commands, and the colours of code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shipped", "adapters", "engine", "convert", "train", "demo", "app")
WIDTH = 96  # characters of a line of help
_LAYOUT = """
.highlight { background: transparent; }
.highlight pre { white-space: pre; overflow-x: auto; border: 1px solid var(--bs-border-color); padding: .6em .8em; }
.highlight pre code { font-size: 14px; }
h1, h2, h3 { margin-top: 1.2em; }
td, th { padding: .25em .8em .25em 0; vertical-align: top; }
.doc-contents { margin-left: 1.2em; }
"""


def on_startup(command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Link the folders under their packages' names: mkdocstrings reads files and cannot see an editable install.

    Before mkdocstrings reads its settings, for it forgets a path that is not there then.
    """
    links = ROOT / "build" / "docs-links" / "lorablend"
    links.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        link = links / name
        if not link.is_symlink():
            link.symlink_to(Path("../../..") / name)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the page of all commands, and the colours of code."""
    files.append(File.generated(config, "commands.md", content=commands_page()))
    files.append(File.generated(config, "code.css", content=code_css()))


def commands_page() -> str:
    """The help of every command, as Markdown."""
    parts = ["# Commands", "The help of each command, as `--help` prints it."]
    for name, command in commands():
        context = command.make_context(name, [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
        parts += [f"## {name}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts) + "\n"


def code_css() -> str:
    """The colours of code, by day and by night, and sizes that fit code and tables."""
    day = HtmlFormatter(style="default").get_style_defs(".highlight")
    night = HtmlFormatter(style="github-dark").get_style_defs("[data-bs-theme=dark] .highlight")
    return f"{day}\n{night}\n{_LAYOUT}"


def commands() -> Iterator[tuple[str, Any]]:
    """The full name and the parser of every command and of every group of commands."""
    from typer.main import get_command

    from lorablend.app.cli.commands import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for word, below in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {word}", below)

    return walk("lorablend", get_command(app))
