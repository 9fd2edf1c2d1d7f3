"""Texts in the lowest bits of the pixels."""

from __future__ import annotations

import gzip
import io
import json

import numpy as np
import pytest
from PIL import Image

from lorablend.adapters.errors import RequestError
from lorablend.app.pictures.metadata.programs import read_metadata
from tests.app.pictures.metadata.test_programs import NOVELAI, NOVELAI_CHUNKS, WANTED
from tests.app.pictures.metadata.written import A1111

RANDOM = np.random.default_rng(0)


def hide(signature: str, body: bytes, *, length: int | None = None, kind: str = "PNG") -> bytes:
    """A picture with a text in its lowest bits, bit by bit as the format's writers do it."""
    in_alpha = "png" in signature
    pixels = RANDOM.integers(0, 256, (96, 64, 4), np.uint8)
    pixels[..., 3] |= 0xFE
    data = signature.encode() + (8 * len(body) if length is None else length).to_bytes(4, "big") + body
    bits = [byte >> shift & 1 for byte in data for shift in range(7, -1, -1)]
    places = [(y, x, c) for x in range(64) for y in range(96) for c in ((3,) if in_alpha else (0, 1, 2))]
    for (y, x, c), bit in zip(places, bits, strict=False):
        pixels[y, x, c] = pixels[y, x, c] & 0xFE | bit
    picture = Image.fromarray(pixels if in_alpha else pixels[..., :3])
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


@pytest.mark.parametrize("signature", ["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_hidden_texts(signature: str, kind: str) -> None:
    body = gzip.compress(A1111.encode()) if signature.endswith("comp") else A1111.encode()
    found = read_metadata(hide(signature, body, kind=kind), "a.png")
    assert {key: found.settings[key] for key in WANTED} == WANTED
    assert found.settings["blend"]["items"] == [{"adapter": "ink", "weight": 0.8}]


def test_novelai_without_its_chunks() -> None:
    texts = NOVELAI_CHUNKS | {"Comment": json.dumps(NOVELAI)}
    found = read_metadata(hide("stealth_pngcomp", gzip.compress(json.dumps(texts).encode())), "a.png")
    assert found.program == "NovelAI"
    assert {key: found.settings[key] for key in WANTED} == WANTED


@pytest.mark.parametrize(
    "data",
    [
        hide("stealth_pngcomp", b"no gzip"),
        hide("stealth_pnginfo", b"\xff\xff"),
        hide("stealth_pnginfo", b"text", length=2**32 - 1),
        hide("stealth_rgbinfo", b""),
        hide("another_pnginfo", A1111.encode()),
    ],
)
def test_bits_that_are_no_text(data: bytes) -> None:
    with pytest.raises(RequestError, match="says nothing about how it was made"):
        read_metadata(data, "a.png")
