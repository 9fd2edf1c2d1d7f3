"""OpenVINO graphs, where its own type annotations are wrong."""

from collections.abc import Sequence

import openvino as ov

__all__ = ["new_model"]


def new_model(results: Sequence[ov.Node], parameters: Sequence[ov.Node], name: str) -> ov.Model:
    """The part of a graph between `parameters` and `results`."""
    return ov.Model(list(results), list(parameters), name)  # pyright: ignore
