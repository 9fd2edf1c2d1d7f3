"""A CLIP tokenizer made in code, so that small models need no downloaded vocabulary."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["clip_tokenizer", "learn_merges"]


def clip_tokenizer(merges: Sequence[str], *, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """Make CLIP's byte-level tokenizer, of 77 tokens, with a vocabulary of single bytes and their merges."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    merged = [merge.replace(" ", "") for merge in merges]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocab, rules = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab.write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}), encoding="utf-8")
        rules.write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        return CLIPTokenizer(str(vocab), str(rules), model_max_length=77, pad_token=pad_token)


def learn_merges(words: Sequence[str]) -> list[str]:
    """Byte-pair merges that make each lower-case ASCII word one token: most common pairs first, ties by alphabet."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[str] = []
    while pairs := Counter(pair for word in pieces for pair in pairwise(word)):
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(f"{left} {right}")
        for word in pieces:
            for i in range(len(word) - 2, -1, -1):
                if word[i : i + 2] == [left, right]:
                    word[i : i + 2] = [left + right]
    return merges


def _byte_letters() -> list[str]:
    """The printable stand-ins of GPT-2 and CLIP for the 256 bytes, in the vocabulary's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
