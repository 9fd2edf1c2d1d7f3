"""Characters that the grammar does not have, so that an adapter has something to learn.

Each has its own face and belongings; its body has the caption's colour, so that the caption stays true.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lorablend.demo.canvas import box, curve, disc, rounded, stroke
from lorablend.demo.objects import Figure, Shape, tilted

__all__ = ["SUBJECTS"]


def _robot() -> Figure:
    """A robot with a red antenna, a screen for a face and a dial on its chest."""
    return Figure(
        (
            Shape("stone", stroke([(0, -0.22), (0, -0.42)], 0.04)),
            Shape("signal", (disc(0, -0.43, 0.07),)),
            Shape("shade", (box(-0.24, 0.36, -0.06, 0.5, 0.04), box(0.06, 0.36, 0.24, 0.5, 0.04))),
            Shape("stone", (*stroke([(-0.28, 0.16), (-0.4, 0.3)], 0.07), *stroke([(0.28, 0.16), (0.4, 0.02)], 0.07))),
            Shape("shade", (disc(-0.41, 0.31, 0.065), disc(0.41, 0.0, 0.065))),
            Shape("body", (box(-0.29, 0.06, 0.29, 0.42, 0.08), box(-0.36, -0.3, 0.36, 0.09, 0.13))),
            Shape("ink", (box(-0.28, -0.23, 0.28, 0.03, 0.1),)),
            Shape("scarf", (disc(-0.12, -0.11, 0.06), disc(0.12, -0.11, 0.06))),
            Shape("pale", (disc(0, 0.25, 0.09),)),
            Shape("signal", stroke([(0, 0.25), (0.045, 0.2)], 0.035)),
        )
    )


def _cat() -> Figure:
    """A sitting cat with stripes and a teal scarf."""
    return Figure(
        (
            Shape("body", stroke([(0.16, 0.42), (0.32, 0.4), (0.4, 0.28), (0.37, 0.14), (0.42, 0.04)], 0.1)),
            Shape(
                "body", (curve([(-0.2, 0.05), (-0.29, 0.34), (-0.22, 0.5), (0.22, 0.5), (0.29, 0.34), (0.2, 0.05)]),)
            ),
            Shape("shade", (*stroke([(0.27, 0.29), (0.15, 0.29)], 0.05), *stroke([(0.27, 0.4), (0.17, 0.4)], 0.05))),
            Shape(
                "shade", (*stroke([(-0.27, 0.29), (-0.15, 0.29)], 0.05), *stroke([(-0.27, 0.4), (-0.17, 0.4)], 0.05))
            ),
            Shape("pale", (disc(0, 0.38, 0.11, 0.12),)),
            Shape(
                "body",
                (
                    rounded([(-0.33, -0.1), (-0.31, -0.5), (-0.04, -0.3)], [0, 0.05, 0]),
                    rounded([(0.33, -0.1), (0.31, -0.5), (0.04, -0.3)], [0, 0.05, 0]),
                    disc(0, -0.12, 0.36, 0.26),
                ),
            ),
            Shape(
                "shade", tuple(part for x in (-0.1, 0.0, 0.1) for part in stroke([(x, -0.35), (x * 0.9, -0.25)], 0.045))
            ),
            Shape(
                "scarf",
                (
                    box(-0.27, 0.07, 0.27, 0.18, 0.055),
                    rounded([(0.04, 0.14), (0.17, 0.14), (0.2, 0.34), (0.07, 0.36)], 0.03),
                ),
            ),
            Shape(
                "ink", (disc(-0.15, -0.12, 0.05, 0.065), disc(0.15, -0.12, 0.05, 0.065), disc(0, -0.03, 0.04, 0.028))
            ),
        )
    )


def _whale() -> Figure:
    """A flying whale with cream wings."""
    feathers = [
        tilted(disc(0, -length, 0.09, length), angle, (0.04, 0.2))
        for angle, length in ((-52, 0.24), (-26, 0.3), (2, 0.33))
    ]
    fluke = [tilted(disc(0, -0.12, 0.065, 0.14), angle, (-0.4, 0.04)) for angle in (-52, 24)]
    body = [(-0.44, 0.0), (-0.3, 0.1), (-0.08, 0.02), (0.18, -0.06), (0.4, 0.0), (0.5, 0.17), (0.42, 0.35)]
    body += [(0.16, 0.46), (-0.12, 0.42), (-0.34, 0.26)]
    return Figure(
        (
            Shape("shade", tuple(fluke)),
            Shape("body", (curve(body),)),
            Shape(
                "pale", (curve([(0.465, 0.27), (0.3, 0.3), (0.02, 0.3), (-0.12, 0.35), (0.12, 0.435), (0.36, 0.38)]),)
            ),
            Shape("cream", tuple(feathers)),
            Shape("ink", (disc(0.33, 0.14, 0.045, 0.055),)),
        ),
        stands=False,
    )


SUBJECTS: Mapping[str, Figure] = MappingProxyType({"robot": _robot(), "cat": _cat(), "whale": _whale()})
