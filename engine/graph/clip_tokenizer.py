r"""Makes the tokenizer graphs that OpenVINO Tokenizers write for CLIP give CLIP's own tokens for every text.

OpenVINO Tokenizers 2026.4 differ from transformers' CLIPTokenizer (tokenizers 0.22) in this:
- Letters are case-folded, not lower-cased: "ς" becomes "σ", "ſ" becomes "s", "İ" stays, Cherokee letters become large.
- Canonical composition (Unicode Standard Annex 15) neither orders combining marks nor composes in several steps.
- `\s` includes U+180E, and `\p{L}` and `\p{N}` know a newer Unicode.
- <|startoftext|> and <|endoftext|> in a text are followed by the tokens of "</w>".

What stands between the text and the byte-pair encoding is replaced; the vocabulary and the merges stay.
"""

import json
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op
from openvino_tokenizers import _get_factory  # there is no public way to make its operations
from openvino_tokenizers.utils import create_string_constant_node

from lorablend.engine.graph.charsmap import compile_charsmap
from lorablend.engine.graph.names import EXACT_TOKENS

__all__ = ["ClipTokenizer", "make_exact", "operation", "write_exact"]

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORD_END = "</w>"
# The longest run of marks that is put in order, as in bubble sort: that of stream-safe text (Annex 15, section 13).
_LONGEST_RUN = 30
# A letter takes up to three marks, such as α in ᾂ, and others that do not compose with it may stand between them.
_MARKS_OF_A_LETTER = 3
_SPACE = r"\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"

_log = logging.getLogger(__name__)


class ClipTokenizer:
    """A tokenizer graph, made exact if it is not. Only one thread may use it at a time."""

    def __init__(self, xml: Path) -> None:
        self._request = ov.Core().compile_model(_read_exact(xml), "CPU").create_infer_request()

    def ids(self, text: str) -> np.ndarray:
        """The tokens of a text between a start and an end token, i64 [tokens]; nothing is cut or filled up."""
        # NumPy takes NULs from the end of a text, so a special token is put there, and taken away again.
        guard = _SPECIAL[-1] if text.endswith("\0") else ""
        self._request.infer({0: np.array([text + guard])})
        ids = np.array(self._request.get_tensor("input_ids").data[0], np.int64)
        return np.delete(ids, -2) if guard else ids


def write_exact(xml: Path, out: Path) -> None:
    """Write a tokenizer graph, made exact if it is not, to `out` (.xml) and its .bin; it may be the same file."""
    ov.serialize(_read_exact(xml), out)


def _read_exact(xml: Path) -> ov.Model:
    core = ov.Core()
    core.set_property({"ENABLE_MMAP": False})  # otherwise the file could not be overwritten
    graph = core.read_model(xml)
    if not graph.has_rt_info(EXACT_TOKENS):
        try:
            make_exact(graph)
        except ValueError as error:
            _log.warning("%s: %s; rare letters may give other tokens than CLIP's; convert the model again", xml, error)
    return graph


def make_exact(graph: ov.Model) -> None:
    """Replace what stands between the text and the byte-pair encoding.

    Raises:
        ValueError: The graph is built in another way; it is unchanged.
    """
    split, encoder = _only(graph, "SpecialTokensSplit"), _only(graph, "BPETokenizer")
    characters = _characters()

    special = "|".join(map(re.escape, _SPECIAL))
    first, last, begins, ends, text, skips = operation("SpecialTokensSplit", [*_inputs(split)[:5], *_text(special)])
    pieces = _Pieces([begins, ends, text], skips)
    pieces.compose(characters)
    pieces.replace(f"[{_SPACE}]+", " ")
    pieces.map(characters.lowercase)

    # The expressions are those of CLIP's tokenizer.json: its own, then that of the byte-level step.
    letter, number, other = characters.letter, characters.number, characters.other
    endings = "'s|'t|'re|'ve|'m|'ll|'d"
    words = f"{special}|{endings}|{letter}+|{number}|{other}+"
    byte_level = rf"{endings}| ?{letter}+| ?{number}+| ?{other}+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    parts = [first, last, *pieces.parts, skips]
    for expression, attributes in (
        (words, {"behaviour": "remove", "invert": True}),
        (byte_level, {"behaviour": "isolate", "invert": False}),
    ):
        parts = operation("RegexSplit", [*parts, *_text(expression)], {**attributes, "max_splits": -1})

    vocabulary = [*_inputs(encoder)[5:-4], *_special_tokens(_inputs(encoder)[-4:])]
    tokens = operation("BPETokenizer", [*parts[:5], *vocabulary], encoder.get_attributes())
    for old, new in zip(encoder.outputs(), tokens, strict=True):
        old.replace(new)
    graph.validate_nodes_and_infer_types()
    graph.set_rt_info("1", EXACT_TOKENS)


class _Pieces:
    """A text in the middle of a graph: where its pieces begin and end, its bytes, and which pieces to leave alone."""

    def __init__(self, parts: list[ov.Output], skips: ov.Output) -> None:
        self.parts = parts
        self._skips = skips

    def compose(self, characters: "_Characters") -> None:
        """Canonical composition, NFC (Unicode Standard Annex 15): decompose, put the marks in order, compose."""
        self._map({"normalization_form": "nfd"})
        self.replace(characters.marks_out_of_order, "$2$1", _LONGEST_RUN)
        for _ in range(_MARKS_OF_A_LETTER):
            self.map(characters.composed)
            self.replace(characters.marks_apart, "$1$3$2")
        self.map(characters.composed)
        self._map({"normalization_form": "nfc"})  # Hangul

    def map(self, charsmap: bytes) -> None:
        self._map({}, op.constant(np.frombuffer(charsmap, np.uint8)).output(0))

    def _map(self, attributes: Mapping[str, str], *charsmap: ov.Output) -> None:
        off = ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces", "case_fold", "nmt")
        inputs = [*self.parts, self._skips, *charsmap]
        self.parts = operation(
            "CharsMapNormalization", inputs, {"normalization_form": "", **attributes, **dict.fromkeys(off, False)}
        )[:3]

    def replace(self, expression: str, replacement: str, times: int = 1) -> None:
        expressions = [*_text(expression), *_text(replacement)]
        for _ in range(times):
            inputs = [*self.parts, self._skips, *expressions]
            self.parts = operation("RegexNormalization", inputs, {"global_replace": True})[:3]


@dataclass(frozen=True)
class _Characters:
    """What CLIP's tokenizer knows of Unicode, as expressions (PCRE2) and character maps.

    Attributes:
        lowercase: Letters to small letters.
        composed: Letters and the marks right behind them to one letter.
        marks_out_of_order: Marks of one class and those behind them that belong before them.
        marks_apart: A letter, marks that belong between, and a mark that composes with the letter.
        letter: One letter, as a class.
        number: One digit or other number, as a class.
        other: One character that is neither of these nor a space.
    """

    lowercase: bytes
    composed: bytes
    marks_out_of_order: str
    marks_apart: str
    letter: str
    number: str
    other: str


@cache
def _characters() -> _Characters:
    tables = json.loads(Path(__file__).with_name("clip_unicode.json").read_text(encoding="utf-8"))
    order = {mark: int(number) for number, spans in tables["marks"].items() for mark in _in(spans)}
    composed = _in(tables["composed"])

    # Marks by their class (Unicode Standard, section 3.11); those of a higher class belong behind those of a lower one.
    below = {number: "".join(mark for mark in order if order[mark] < number) for number in sorted({*order.values()})}
    of_class = {number: "".join(mark for mark in order if order[mark] == number) for number in below}
    swapped = (f"({_class(of_class[number])}+)({_class(lower)}+)" for number, lower in below.items() if lower)

    letters: dict[str, str] = {}  # mark -> the letters with which it composes
    for character in composed:
        letter, mark = (chr(int(code, 16)) for code in unicodedata.decomposition(character).split())
        if order.get(mark, 0) > min(below):
            letters[mark] = letters.get(mark, "") + letter
    apart = (
        f"({_class(letters[mark])})({_class(below[order[mark]])}+)({_class(mark)})"
        for mark in sorted(letters, key=lambda mark: order[mark])  # the lowest class composes first
    )

    # With the letter in parts, and with some of the marks in it already.
    forms: dict[str, str] = {}
    for character in composed:
        parts = unicodedata.normalize("NFD", character)
        for length in range(1, len(parts)):
            start = unicodedata.normalize("NFC", parts[:length])
            if len(start) == 1:
                forms[start + parts[length:]] = character

    beyond = {name: _codes(_in(spans)) for name, spans in tables["not in classes"].items()}
    return _Characters(
        lowercase=compile_charsmap(_small_letters(tables["small letters"])),
        composed=compile_charsmap(forms),
        marks_out_of_order=f"(?|{'|'.join(swapped)})",
        marks_apart=f"(?|{'|'.join(apart)})",
        letter=rf"[^\P{{L}}{beyond['L']}]",
        number=rf"[^\P{{N}}{beyond['N']}]",
        other=rf"(?:[^{_SPACE}\p{{L}}\p{{N}}]|[{beyond['L']}{beyond['N']}])",
    )


def _small_letters(table: Mapping[str, str]) -> dict[str, str]:
    """From the spans of clip_unicode.json: "41-5a/1" -> "32" is A to Z, whose small letters are 32 characters on."""
    small = {}
    for span, value in table.items():
        if "/" not in span:
            small[chr(int(span, 16))] = value
            continue
        first, last, step = re.split("[-/]", span)
        for code in range(int(first, 16), int(last, 16) + 1, int(step)):
            small[chr(code)] = chr(code + int(value))
    return small


def _in(spans: str) -> str:
    """The characters of "300-314 31b"."""
    pairs = (span.split("-") for span in spans.split())
    return "".join(chr(code) for pair in pairs for code in range(int(pair[0], 16), int(pair[-1], 16) + 1))


def _codes(characters: str) -> str:
    r"""The inside of a class: "\x{300}-\x{314}\x{31b}-\x{31b}"."""
    codes = {*map(ord, characters)}
    firsts = sorted(code for code in codes if code - 1 not in codes)
    lasts = sorted(code for code in codes if code + 1 not in codes)
    return "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in zip(firsts, lasts, strict=True))


def _class(characters: str) -> str:
    return f"[{_codes(characters)}]"


def operation(name: str, inputs: Sequence[ov.Output], attributes: Mapping[str, Any] | None = None) -> list[ov.Output]:
    """An operation of OpenVINO Tokenizers; its outputs."""
    return _get_factory().create(name, list(inputs), dict(attributes or {})).outputs()


def _only(graph: ov.Model, kind: str) -> ov.Node:
    nodes = [node for node in graph.get_ops() if node.get_type_name() == kind]
    if len(nodes) != 1:
        raise ValueError(f"it has {len(nodes)} operations {kind}, not one")
    return nodes[0]


def _inputs(node: ov.Node) -> list[ov.Output]:
    return [value.get_source_output() for value in node.inputs()]


def _text(text: str) -> list[ov.Output]:
    return create_string_constant_node(text)


def _special_tokens(inputs: Sequence[ov.Output]) -> list[ov.Output]:
    """The special tokens of the byte-pair encoding, each a second time with the end of a word, which is added to it.

    Args:
        inputs: Where they begin and end in the text of all, i32 each; the text, u8; and their numbers, i32.
    """
    begins, ends, text, numbers = (value.get_node().data for value in inputs)
    words = [bytes(text[begin:end]).decode() for begin, end in zip(begins, ends, strict=True)]
    tokens = dict(zip(words, numbers.tolist(), strict=True))
    tokens |= {word + _WORD_END: tokens[word] for word in _SPECIAL if word in tokens}
    return [
        *create_string_constant_node(list(tokens)),
        op.constant(np.array(list(tokens.values()), np.int32)).output(0),
    ]
