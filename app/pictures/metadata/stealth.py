"""Texts in the lowest bits of the pixels, which survive where a site strips all others.

NovelAI writes them into the alpha channel, and an extension of A1111 into any: a signature, the length of the rest in
bits as 32 bits, and the text, which is compressed with gzip or not. Bits run down the columns.
"""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from lorablend.app.pictures.metadata.mentions import read_json

__all__ = ["hidden_texts"]

_SIGNATURES = {  # of 15 bytes each: whether it is in alpha, and whether it is compressed
    b"stealth_pnginfo": (True, False),
    b"stealth_pngcomp": (True, True),
    b"stealth_rgbinfo": (False, False),
    b"stealth_rgbcomp": (False, True),
}
_LENGTH = 32  # bits
_LONGEST = 4 << 20  # bytes of a text


def hidden_texts(picture: Image.Image) -> dict[str, str]:
    """The texts hidden in a loaded picture, by their names; {} if there are none."""
    channels = [picture.getchannel("A")] if picture.mode == "RGBA" else []
    channels += [picture.convert("RGB")] if picture.mode in ("RGB", "RGBA") else []
    for place, channel in enumerate(channels):
        text = _read(channel, in_alpha=picture.mode == "RGBA" and place == 0)
        value = read_json(text)
        if isinstance(value, dict) and all(isinstance(part, str) for part in value.values()):
            return value
        if text:
            return {"parameters": text}
    return {}


def _read(channel: Image.Image, *, in_alpha: bool) -> str:
    columns = np.asarray(channel.crop((0, 0, min(channel.width, 64), channel.height))).swapaxes(0, 1) & 1
    start = np.packbits(columns.reshape(-1)[: (15 * 8) + _LENGTH]).tobytes()
    is_alpha, is_compressed = _SIGNATURES.get(start[:15], (not in_alpha, False))
    if is_alpha is not in_alpha:
        return ""
    length = int.from_bytes(start[15:19], "big") // 8
    if not 0 < length <= _LONGEST:
        return ""
    bits = (np.asarray(channel).swapaxes(0, 1) & 1).reshape(-1)[15 * 8 + _LENGTH :][: length * 8]
    body = np.packbits(bits).tobytes()
    try:
        if is_compressed:
            body = zlib.decompressobj(wbits=31).decompress(body, _LONGEST)
        return body.decode()
    except (zlib.error, UnicodeError):
        return ""
