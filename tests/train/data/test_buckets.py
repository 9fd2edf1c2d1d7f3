"""Buckets and crops."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorablend.adapters.errors import DataError
from lorablend.train.data.buckets import Crop, assign, bucket_sizes, bucket_step


def test_the_sizes_that_sdxl_was_trained_at() -> None:
    sizes = bucket_sizes(1024, 64)
    # arXiv:2307.01952, appendix I: the rows of these widths
    assert {(1024, 1024), (960, 1088), (896, 1152), (832, 1216), (768, 1344), (704, 1472)} <= {*sizes}
    assert {(height, width) for width, height in sizes} == {*sizes}
    assert (512, 2048) in sizes


@given(st.integers(64, 2048), st.sampled_from([8, 16, 32, 64]))
def test_every_bucket_is_a_multiple_and_no_larger_than_asked(resolution: int, step: int) -> None:
    for width, height in bucket_sizes(resolution, step):
        assert width % step == height % step == 0
        assert 0 < width * height <= resolution**2
        assert max(width, height) <= 4 * min(width, height) + 4 * step


def test_too_small_a_resolution() -> None:
    with pytest.raises(DataError) as caught:
        bucket_sizes(32, 64)
    assert str(caught.value) == "resolution is 32, the model needs a multiple of 64 pixels; give a larger one"


def test_step() -> None:
    assert (bucket_step(32, 256), bucket_step(32, 1024), bucket_step(64, 512), bucket_step(24, 512)) == (32, 64, 64, 72)


def test_nearest_shape_and_crop_from_the_middle() -> None:
    square, wide, tall = assign([(700, 700), (1920, 1080), (333, 1000)], 512, 64)
    assert square == Crop((700, 700), (512, 512), 0, 0, 512, 512)
    assert (wide.bucket, wide.scaled, wide.left, wide.top) == ((640, 384), (683, 384), 21, 0)
    assert wide.time_ids() == (1080, 1920, 0, 21, 384, 640)
    assert wide.flipped().left == 683 - 640 - 21
    assert tall.bucket == (320, 768)
    assert [crop.enlarged for crop in (square, wide, tall)] == [False, False, False]
    assert assign([(200, 200)], 512, 64)[0].enlarged


@given(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), st.booleans())
def test_a_crop_lies_in_its_picture(size: tuple[int, int], buckets: bool) -> None:
    (crop,) = assign([size], 256, 32, buckets=buckets)
    assert crop.left >= 0
    assert crop.top >= 0
    assert crop.left + crop.width <= crop.scaled[0]
    assert crop.top + crop.height <= crop.scaled[1]
    assert crop.left == 0 or crop.top == 0  # only what the shape requires is cropped
    if not buckets:
        assert crop.bucket == (256, 256)
    if math.isclose(size[0] / size[1], 1, abs_tol=0.05):
        assert crop.bucket == (256, 256)
