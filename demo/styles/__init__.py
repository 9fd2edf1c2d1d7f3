"""Twelve styles for a drawn scene. A style is given the scene's layers, not its pixels, and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from lorablend.demo.canvas import Layer
from lorablend.demo.styles.blueprint import blueprint
from lorablend.demo.styles.chalk import chalk
from lorablend.demo.styles.comic import comic
from lorablend.demo.styles.glass import glass
from lorablend.demo.styles.knit import knit
from lorablend.demo.styles.marks import Array
from lorablend.demo.styles.mosaic import mosaic
from lorablend.demo.styles.neon import neon
from lorablend.demo.styles.paper import paper
from lorablend.demo.styles.pencil import pencil
from lorablend.demo.styles.pixel import pixel
from lorablend.demo.styles.riso import riso
from lorablend.demo.styles.watercolour import watercolour

__all__ = ["COLOURLESS_STYLES", "STYLES", "UNSEEN_STYLES", "Style"]

Style = Callable[[Sequence[Layer], int], Array]
"""Draws layers with a seed: sRGB 0 to 1, [size, size, 3]; the same arguments give the same bytes."""

STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "pixel": pixel,
        "blueprint": blueprint,
        "watercolour": watercolour,
        "glass": glass,
        "neon": neon,
        "pencil": pencil,
        "riso": riso,
        "mosaic": mosaic,
        "chalk": chalk,
        "comic": comic,
        "paper": paper,
        "knit": knit,
    }
)

UNSEEN_STYLES = ("paper", "knit")
"""Not used to train the demo model, its VAE and adapters, to show that an adapter can learn them."""

COLOURLESS_STYLES = ("blueprint", "pencil")
"""Styles that do not show the object's own colour."""
