"""Token ids are those of transformers' CLIPTokenizer, whatever the text."""

import json
import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import openvino as ov
import pytest
from openvino_tokenizers import convert_tokenizer
from transformers import CLIPTokenizer

from lorablend.engine.graph.clip_tokenizer import ClipTokenizer, make_exact, write_exact
from lorablend.engine.graph.names import EXACT_TOKENS
from lorablend.engine.graph.operations import new_model
from lorablend.shipped import model_dir
from tests.engine.graph import clip_unicode

MODEL = model_dir()
TOKENIZERS = ("tokenizer", "tokenizer_2")


def ordinary(folder: Path, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's own tokenizer. Its padding token is an ordinary one, so that it does not take "!" for a special token."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, pad_token=pad_token, model_max_length=77)


def assert_same(texts: Sequence[str], folder: Path) -> None:
    tokenizer = ClipTokenizer(folder / "openvino_tokenizer.xml")
    expected = ordinary(folder)(list(texts))["input_ids"]
    wrong = [
        ascii(text) for text, tokens in zip(texts, expected, strict=True) if tokenizer.ids(text).tolist() != tokens
    ]
    assert not wrong, f"{len(wrong)} of {len(texts)}: {wrong[:3]}"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_character(name: str) -> None:
    """In a word. Of ideographs, syllables and what is unassigned or private, one in a hundred: they are all alike."""
    alike = re.compile("CJK|HANGUL SYLLABLE|TANGUT|CUNEIFORM|EGYPTIAN|$")
    characters = [
        f"a{character}b"
        for index, character in enumerate(clip_unicode.CHARACTERS)
        if index % 100 == 0 or not alike.match(unicodedata.name(character, ""))
    ]
    assert len(characters) > 30_000
    assert_same([" ".join(characters[i : i + 64]) for i in range(0, len(characters), 64)], MODEL / name)


WORDS = [
    *("İstanbul", "ΟΔΥΣΣΕΥΣ", "Οδυσσεύς", "ſtraße", "STRASSE", "µm", "ﬁ", "ǅ", "Ꭰ", "ꭰ", "Σ", "ς", "ϐ", "I", "ı"),
    *("it's", "IT'S", "don't", "they'll", "''s", "'", "we've'd", "5'9", "Ⅷ", "½", "٣", "1234", "4k"),
    *("!", "!!!", "a!b", "<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "x<|endoftext|>y", "<|endoftext", "</w>"),
    *("\x00", "\x07", "\x1b", "\x7f", "\x85", "\xa0", "\xad", "\u180e", "\u200b", "\u200d", "\u2028"),
    *("\u3000", "\ufeff"),
    *("\t", "\n", "  ", "e\u0301", "a\u0323\u0302", "a\u0302\u0323", "q\u0323\u0307", "\u0344", "\u0340", "\u212b"),
    *("한국", "\u1112\u1161\u11ab", "日本語", "क़", "\u0915\u093c", "\u0dd9\u0dcf\u0dca", "ไทย"),
    *("שָׁלוֹם", "العربية", "🐈‍⬛", "👩🏽‍🚀"),
]  # fmt: skip


def random_text(random: random.Random) -> str:
    """Words, random characters and letters under heaps of marks, in any order."""
    marks = [chr(code) for code in (*range(0x300, 0x370), 0x5B0, 0x93C, 0x94D, 0xDCA, 0x3099, 0x1DC0, 0x20D0, 0xFE20)]
    ranges = (
        (1, 0x80),
        (0x80, 0x250),
        (0x370, 0x600),
        (0x900, 0x1000),
        (0x1E00, 0x2100),
        (1, 0xD800),
        (0xE000, 0x110000),
    )
    pieces = []
    for _ in range(random.randint(1, 8)):
        kind = random.random()
        if kind < 0.4:
            pieces.append(random.choice(WORDS))
        elif kind < 0.8:
            pieces.append("".join(chr(random.randrange(*random.choice(ranges))) for _ in range(random.randint(1, 6))))
        else:
            heap = random.choices(marks, k=random.randint(1, 30))
            pieces.append(random.choice("aeiouAEIOUαωΩqSи") + "".join(heap))
    return random.choice(["", " "]).join(pieces)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_random_texts(name: str) -> None:
    rng = random.Random(name)
    assert_same([*WORDS, "", " ".join(WORDS), *(random_text(rng) for _ in range(5_000))], MODEL / name)


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_the_original_graphs_are_wrong_and_made_exact(tmp_path: Path, pad_token: str) -> None:
    """What `optimum-cli` and GenAI's own tools write, with SDXL's second padding token too."""
    tokenizer = ordinary(MODEL / "tokenizer")
    original = convert_tokenizer(ordinary(MODEL / "tokenizer", pad_token))
    ov.save_model(original, tmp_path / "openvino_tokenizer.xml")
    text = "İ ς <|endoftext|> a\u0323\u0302!"
    expected = tokenizer(text)["input_ids"]
    assert ov.compile_model(original, "CPU")([text])["input_ids"][0].tolist() != expected
    assert ClipTokenizer(tmp_path / "openvino_tokenizer.xml").ids(text).tolist() == expected

    write_exact(tmp_path / "openvino_tokenizer.xml", tmp_path / "openvino_tokenizer.xml")
    written = ov.Core().read_model(tmp_path / "openvino_tokenizer.xml")
    assert written.has_rt_info(EXACT_TOKENS)
    assert int(written.get_rt_info("pad_token_id").value) == original.get_rt_info("pad_token_id").value
    assert ov.compile_model(written, "CPU")([text])["input_ids"][0].tolist() == expected


def test_another_kind_of_graph_is_left_alone_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ov.opset13.parameter([-1], ov.Type.i64, name="texts")
    graph = new_model([ov.opset13.result(ov.opset13.relu(texts))], [texts], "other")
    with pytest.raises(ValueError, match="it has 0 operations SpecialTokensSplit, not one"):
        make_exact(graph)
    ov.save_model(graph, tmp_path / "other.xml")
    ClipTokenizer(tmp_path / "other.xml")
    assert "other.xml: it has 0 operations SpecialTokensSplit, not one; rare letters may give other" in caplog.text


def test_the_tables_are_the_librarys() -> None:
    assert json.loads(clip_unicode.FILE.read_text()) == clip_unicode.tables()
