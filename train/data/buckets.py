"""Buckets: sizes of about one area but several shapes, to the nearest of which each picture is cropped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorablend.adapters.errors import DataError

__all__ = ["Crop", "assign", "bucket_sizes", "bucket_step"]

_WIDEST = 2  # the longest side of a bucket, as a multiple of the resolution: shapes up to 4:1


@dataclass(frozen=True)
class Crop:
    """How a picture gets to its bucket's size: scaled from `original` to `scaled`, then cropped at (left, top).

    All in pixels, sizes as (width, height), the original after EXIF rotation.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    left: int
    top: int
    width: int
    height: int

    @property
    def bucket(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def enlarged(self) -> bool:
        return self.scaled[0] > self.original[0]

    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """SDXL's size conditioning (arXiv:2307.01952, 2.2): original height, width, crop top, left, height, width."""
        return self.original[1], self.original[0], self.top, self.left, self.height, self.width

    def flipped(self) -> "Crop":
        """The same crop of the mirrored picture, for its `time_ids`."""
        return replace(self, left=self.scaled[0] - self.width - self.left)


def bucket_step(unit: int, resolution: int) -> int:
    """The step of widths and heights: the model's `unit`, but at least 64 for resolutions from 512 on.

    Coarser steps give fewer buckets, and so fewer batches that are not full.
    """
    return unit if resolution < 512 else math.ceil(64 / unit) * unit


def bucket_sizes(resolution: int, step: int) -> tuple[tuple[int, int], ...]:
    """List the (width, height) of every bucket: multiples of `step`, at most resolution² in area, up to 4:1 in shape.

    1024 in steps of 64 gives 1024×1024, 960×1088, 896×1152, 832×1216, 768×1344 and so on, and their transposes.
    """
    if step < 1 or resolution < step:
        raise DataError(f"resolution is {resolution}, the model needs a multiple of {step} pixels; give a larger one")
    area, most = resolution**2, _WIDEST * resolution
    side = resolution // step * step
    sizes = {(side, side)}
    for width in range(step, resolution + 1, step):
        height = min(area // width, most) // step * step
        if most >= height >= width and width * _WIDEST >= resolution:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def assign(sizes: Sequence[tuple[int, int]], resolution: int, step: int, *, buckets: bool = True) -> tuple[Crop, ...]:
    """Choose the crop of each picture: of its middle, to the bucket of the nearest shape, as kohya does.

    Args:
        sizes: (width, height) of the pictures.
        buckets: False crops all to one square.
    """
    shapes = bucket_sizes(resolution, step)
    if not buckets:
        side = resolution // step * step
        shapes = ((side, side),)
    return tuple(_crop(size, min(shapes, key=lambda shape: _distance(size, shape))) for size in sizes)


def _distance(size: tuple[int, int], bucket: tuple[int, int]) -> tuple[float, int]:
    """The distance of the shapes, symmetric in width and height; of two equally near buckets the larger comes first."""
    shape, wanted = math.log(size[0] / size[1]), math.log(bucket[0] / bucket[1])
    return round(abs(shape - wanted), 9), -bucket[0] * bucket[1]


def _crop(size: tuple[int, int], bucket: tuple[int, int]) -> Crop:
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    scaled = max(bucket[0], round(size[0] * scale)), max(bucket[1], round(size[1] * scale))
    return Crop(size, scaled, (scaled[0] - bucket[0]) // 2, (scaled[1] - bucket[1]) // 2, *bucket)
