"""Character maps in the form that SentencePiece compiles and OpenVINO Tokenizers read."""

import struct
from collections.abc import Mapping
from typing import Any

__all__ = ["compile_charsmap"]

_BLOCK = 256  # units; the reader takes whole blocks only


def compile_charsmap(texts: Mapping[str, str]) -> bytes:
    """Compile a map from texts to what replaces them; a reader replaces the longest text first.

    The form is that of SentencePiece (src/normalizer.cc, DecodePrecompiledCharsMap): the size in bytes of a trie, u32;
    the trie; and the replacements, each with a NUL behind it. The trie is a double array of u32 units as Darts-clone
    writes it (include/darts.h, class DoubleArrayUnit): bits 0 to 7 are the byte that leads to a unit, bit 8 says that a
    text ends there, bits 10 to 30 are its number XOR that of its children's origin. A child's number is the origin XOR
    its byte; a text's end is the child of byte 0, which holds the place of the replacement, with bit 31 set.

    Args:
        texts: Not empty; the texts have no NUL.
    """
    replacements = bytearray()
    root: dict[int, Any] = {}
    for text, replacement in sorted(texts.items()):
        node = root
        for byte in text.encode():
            node = node.setdefault(byte, {})
        node[0] = len(replacements)
        replacements += replacement.encode() + b"\0"

    units, origins, first_free = {0: 0}, set[int](), 1
    nodes = [(root, 0)]
    for node, number in nodes:  # it grows: breadth first
        slot = first_free
        while True:
            origin = slot ^ min(node)
            if origin not in origins and not any(origin ^ byte in units for byte in node):
                break
            slot += 1
        origins.add(origin)
        units[number] |= (origin ^ number) << 10 | (0 in node) << 8
        for byte, child in node.items():
            if byte == 0:
                units[origin] = 1 << 31 | child
            else:
                units[origin ^ byte] = byte
                nodes.append((child, origin ^ byte))
        while first_free in units:
            first_free += 1
        if slot - first_free > 2 * _BLOCK:
            first_free += _BLOCK // 2  # its neighbourhood is nearly full; looking there again takes too long

    size = -(-(max(units) + 1) // _BLOCK) * _BLOCK
    trie = struct.pack(f"<{size}I", *(units.get(number, 0) for number in range(size)))
    return struct.pack("<I", len(trie)) + trie + replacements
