"""What transformers' CLIP tokenizer knows of Unicode. Run it to write engine/graph/clip_unicode.json again:

    python tests/engine/graph/clip_unicode.py

The tables are found by asking the tokenizers library itself. It is of several ages: 0.22.2 composes by Unicode 9, has
the small letters of Unicode 17, and its regular expressions know other letters than OpenVINO's.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as op
from openvino_tokenizers.utils import create_string_constant_node
from tokenizers import Regex, normalizers, pre_tokenizers

from lorablend.engine.graph.clip_tokenizer import operation
from lorablend.engine.graph.operations import new_model

FILE = Path(__file__).parents[3] / "engine/graph/clip_unicode.json"
CHARACTERS = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]

nfc: Callable[[str], str] = normalizers.NFC().normalize_str
nfd: Callable[[str], str] = normalizers.NFD().normalize_str
lowercase: Callable[[str], str] = normalizers.Lowercase().normalize_str


def ranges(characters: Iterable[str]) -> str:
    """Characters as hexadecimal numbers and spans of them: "300-314 31b"."""
    spans: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if spans and spans[-1][1] == code - 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return " ".join(f"{first:x}" if first == last else f"{first:x}-{last:x}" for first, last in spans)


def marks() -> dict[str, str]:
    """Canonical combining class -> its characters, without those that the library does not know."""
    classes: dict[int, list[str]] = {}
    for character in CHARACTERS:
        number = unicodedata.combining(character)
        if not number or len(nfd(character)) > 1:
            continue
        # Class 1 goes before all others; its own marks go before one of 230.
        known = nfd(f"a{character}\u0334") == f"a\u0334{character}" if number > 1 else True
        if known and (number > 1 or nfd(f"a\u0301{character}") == f"a{character}\u0301"):
            classes.setdefault(number, []).append(character)
    return {str(number): ranges(classes[number]) for number in sorted(classes)}


def composed() -> str:
    """The characters that canonical composition makes, without Hangul syllables, which have a rule of their own."""
    hangul = range(0xAC00, 0xD7A4)
    return ranges(c for c in CHARACTERS if ord(c) not in hangul and nfd(c) != c and nfc(nfd(c)) == c)


def small_letters() -> dict[str, str]:
    """Span of letters, all of them or every second one -> the distance to its small letters; or the small text."""
    pairs = {ord(c): lowercase(c) for c in CHARACTERS if lowercase(c) != c}
    spans: list[list[int]] = []  # first, last, step, distance
    table = {}
    for code, text in pairs.items():
        if len(text) > 1:
            table[f"{code:x}"] = text
            continue
        distance = ord(text) - code
        span = spans[-1] if spans else None
        if span and span[3] == distance and code - span[1] in (1, 2) and span[2] in (0, code - span[1]):
            span[1], span[2] = code, code - span[1]
        else:
            spans.append([code, code, 0, distance])
    for first, last, step, distance in spans:
        table[f"{first:x}-{last:x}/{step or 1}"] = str(distance)
    return table


def not_in_classes() -> dict[str, str]:
    r"""The characters that \p{L} and \p{N} of OpenVINO's expressions have beyond the library's."""
    return {name: ranges(_beyond(rf"\p{{{name}}}")) for name in ("L", "N")}


def _beyond(expression: str) -> list[str]:
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    library = {c for c in CHARACTERS if len(split.pre_tokenize_str(f"\0{c}")) == 2}
    texts = op.parameter([-1], ov.Type.string)
    parts = operation("StringTensorUnpack", [texts.output(0)], {})
    expressions = [*create_string_constant_node(expression), *create_string_constant_node("")]
    removed = operation("RegexNormalization", [*parts, *expressions], {"global_replace": True})
    model = new_model([operation("StringTensorPack", removed, {})[0].get_node()], [texts], "expression")
    left = ov.compile_model(model, "CPU")([np.array(CHARACTERS)])[0]
    openvino = {c for c, text in zip(CHARACTERS, left, strict=True) if not text}
    assert library <= openvino, "a character that only the library's expressions know"
    return sorted(openvino - library)


def tables() -> dict[str, object]:
    return {
        "marks": marks(),
        "composed": composed(),
        "small letters": small_letters(),
        "not in classes": not_in_classes(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(tables(), indent=1, ensure_ascii=True) + "\n")
