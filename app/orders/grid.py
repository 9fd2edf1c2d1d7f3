"""What a grid can be asked for."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from lorablend.app.orders.draw import Draw
from lorablend.app.pictures.uploads import Uploads

__all__ = ["DrawGrid"]


class DrawGrid(Draw):
    """A drawing whose settings are swept. axes: columns, rows and tables, as `lorablend grid -x` reads them.

    What the axes sweep wins over the drawing's own settings; adapters are names in the library here too.
    """

    axes: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(min_length=1, max_length=3)]

    def settings(self, uploads: Uploads) -> dict[str, Any]:
        """The arguments for `draw_grid` but for the axes."""
        return {key: value for key, value in super().settings(uploads).items() if key != "axes"}
