#!/bin/sh
# OpenVINO Tokenizers: canonical composition (NFC) in a converted CLIP tokenizer replaces known sequences and nothing
# more. Combining marks are not put in their canonical order, and a letter is not composed with a mark behind another
# mark. The same Vietnamese letter with its two marks typed in the other order gives other tokens than the original.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "openvino-tokenizers[transformers]==2026.4.1.0" transformers==5.5.4
"$folder/venv/bin/python" - <<'PY'
import unicodedata
from importlib.metadata import version

import openvino as ov
from openvino_tokenizers import convert_tokenizer
from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
original = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)
converted = ov.compile_model(convert_tokenizer(original), "CPU")
print("openvino-tokenizers", version("openvino-tokenizers"), "transformers", version("transformers"))
same = {}
for text in ("\u1ead", "a\u0323\u0302", "a\u0302\u0323", "a\u0323\u0301", "a\u0327\u0301", "a\u0344"):
    expected, got = original(text).input_ids, converted([text])["input_ids"][0].tolist()
    same[text] = got == expected
    composed = " ".join(f"U+{ord(c):04X}" for c in unicodedata.normalize("NFC", text))
    print(" ".join(f"U+{ord(c):04X}" for c in text), "is", composed, "- the same tokens" if same[text] else "- other tokens")
raise SystemExit(list(same.values()) != [True, True, False, True, False, False])
PY
