"""The command line. `main` is what the installed program `lorablend` calls."""

from lorablend.app.cli.commands import main, run

__all__ = ["main", "run"]
