"""A small network that recognizes a picture's object, colour, size, position, count, place, time and style.

train_judge.py trains it on drawn pictures; it scores the pictures of the demo model and its adapters. It runs on
OpenVINO, without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from PIL import Image
from safetensors import safe_open

from lorablend.adapters.errors import ModelError
from lorablend.demo.grammar import CHARACTERS, COLOURS, COUNTS, OBJECTS, PLACES, POSITIONS, SIZES, TIMES
from lorablend.demo.styles import STYLES

__all__ = ["ATTRIBUTES", "LAYERS", "PLAIN", "SIZE", "Judge", "Verdict", "to_input"]

PLAIN = "plain"
"""The name of the look of a picture without a style."""

ATTRIBUTES: Mapping[str, tuple[str | int, ...]] = MappingProxyType(
    {
        "object": (*OBJECTS, *CHARACTERS),
        "colour": COLOURS,
        "size": SIZES,
        "position": POSITIONS,
        "count": COUNTS,
        "place": PLACES,
        "time": TIMES,
        "style": (PLAIN, *STYLES),
    }
)

SIZE = 128
LAYERS = ((16, 2), (32, 2), (64, 2), (96, 1), (128, 2), (128, 1))
"""(channels, stride) of the 3×3 convolutions, each with a ReLU. Their input channels are the picture minus 0.5, and x
and y from -1 to 1; the mean and the maximum of their output over the picture go through one linear layer."""

_WEIGHTS = Path(__file__).resolve().parent / "judge.safetensors"


@dataclass(frozen=True)
class Verdict:
    """The judge's reading of a picture: for each attribute the probabilities of its values, which sum to 1."""

    object: Mapping[str, float]
    colour: Mapping[str, float]
    size: Mapping[str, float]
    position: Mapping[str, float]
    count: Mapping[int, float]
    place: Mapping[str, float]
    time: Mapping[str, float]
    style: Mapping[str, float]

    def best(self, attribute: str) -> str | int:
        """The most probable value of an attribute, which is the name of a field."""
        probabilities = getattr(self, attribute)
        return max(probabilities, key=probabilities.__getitem__)


class Judge:
    """The network, compiled; `Judge.load` makes it."""

    def __init__(self, network: ov.CompiledModel) -> None:
        self._network = network

    @classmethod
    def load(cls, path: Path | None = None) -> Judge:
        """Load a file of train_judge.py; None loads the shipped one."""
        path = path or _WEIGHTS
        with safe_open(path, "numpy") as file:
            weights = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            classes = json.loads((file.metadata() or {}).get("classes", "null"))
        if classes != {name: [str(value) for value in values] for name, values in ATTRIBUTES.items()}:
            raise ModelError(f"{path.name} has other classes than the demo's grammar; make it with train_judge.py")
        return cls(ov.Core().compile_model(_network(weights), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))

    def read(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """Read square pictures of any size."""
        verdicts: list[Verdict] = []
        for start in range(0, len(images), 32):
            pixels = np.stack([_pixels(image) for image in images[start : start + 32]])
            logits = self._network(to_input(pixels))[0]
            verdicts += map(_verdict, logits)
        return verdicts


def to_input(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8 [n, 128, 128, 3] to the network's input, float32 [n, 3, 128, 128], 0 to 1."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / 255


def _pixels(image: Image.Image) -> np.ndarray:
    image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(image)


def _verdict(logits: np.ndarray) -> Verdict:
    probabilities, start = {}, 0
    for name, values in ATTRIBUTES.items():
        part = logits[start : start + len(values)]
        start += len(values)
        odds = np.exp(part - part.max())
        probabilities[name] = MappingProxyType(dict(zip(values, (odds / odds.sum()).tolist(), strict=True)))
    return Verdict(**probabilities)


def _network(weights: Mapping[str, np.ndarray]) -> ov.Model:
    image = ops.parameter([-1, 3, SIZE, SIZE], np.float32, "image")
    at = np.linspace(-1, 1, SIZE, dtype=np.float32)
    place = np.stack([np.tile(at, (SIZE, 1)), np.tile(at[:, None], (1, SIZE))])[None]
    batch = ops.gather(ops.shape_of(image), np.int64([0]), np.int64(0))
    everywhere = ops.broadcast(place, ops.concat([batch, np.int64([2, SIZE, SIZE])], 0))
    x = ops.concat([ops.subtract(image, ops.constant(np.float32(0.5))), everywhere], 1)
    for i, (_, stride) in enumerate(LAYERS):
        x = ops.convolution(x, weights[f"convolution.{i}.weight"], [stride, stride], [1, 1], [1, 1], [1, 1])
        x = ops.relu(x + weights[f"convolution.{i}.bias"][None, :, None, None])
    over = np.int64([2, 3])
    x = ops.concat([ops.reduce_mean(x, over), ops.reduce_max(x, over)], 1)
    logits = ops.matmul(x, weights["head.weight"], False, True) + weights["head.bias"][None]
    return ov.Model([logits], [image], "judge")  # pyright: ignore[reportGeneralTypeIssues]
