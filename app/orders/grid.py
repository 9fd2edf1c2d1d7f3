"""The order of a grid."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lorablend.app.orders.draw import Draw

__all__ = ["DrawGrid"]


class DrawGrid(Draw, frozen=True):
    """A drawing whose settings are swept.

    Attributes:
        axes: Columns, rows and tables, as `lorablend grid -x` reads them. Their values replace the drawing's own
            settings; adapters are names in the library here too.
    """

    axes: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(min_length=1, max_length=3)]
