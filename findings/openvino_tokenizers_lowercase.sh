#!/bin/sh
# OpenVINO Tokenizers: a converted CLIP tokenizer folds the case of letters (Unicode's case folding) where the original
# makes them small: İ loses its dot, which is a combining character, and a final sigma becomes another letter. The tokens
# differ, so the same prompt draws another picture; nothing is said.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "openvino-tokenizers[transformers]==2026.4.1.0" transformers==5.5.4
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

import numpy as np
import openvino as ov
from openvino_tokenizers import convert_tokenizer
from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

# A vocabulary of bytes: enough to see which letters arrive.
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
original = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)
converted = ov.compile_model(convert_tokenizer(original), "CPU")
print("openvino-tokenizers", version("openvino-tokenizers"), "transformers", version("transformers"))
differs = {}
for text in ("istanbul", "Istanbul", "İstanbul", "ΟΔΥΣΣΕΑΣ", "οδυσσέας", "STRASSE", "Straße"):
    expected = original(text).input_ids
    got = converted([text])["input_ids"][0].tolist()
    differs[text] = got != expected
    print(f"{text}: {len(expected)} and {len(got)} tokens, {'other ones' if differs[text] else 'the same'}")
expected = [text for text, other in differs.items() if other]
print("they differ in", ", ".join(expected))
raise SystemExit(not {"İstanbul", "οδυσσέας"} <= set(expected) or differs["Istanbul"])
PY
