#!/bin/sh
# OpenVINO Tokenizers: a special token in the middle of a text for a converted CLIP tokenizer becomes that token and,
# behind it, the letters of "</w>", the mark for the end of a word, as text: four tokens that the original does not give.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "openvino-tokenizers[transformers]==2026.4.1.0" transformers==5.5.4
"$folder/venv/bin/python" - <<'PY'
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
extra = {}
for text in ("a b", "a <|endoftext|> b", "<|startoftext|>"):
    expected, got = original(text).input_ids, converted([text])["input_ids"][0].tolist()
    extra[text] = [words[token] for token in got if got.count(token) > expected.count(token)]
    print(f"{text}: {len(expected)} tokens, converted {len(got)}, more: {extra[text]}")
raise SystemExit(list(extra.values()) != [[], ["<", "/", "w", ">"], ["<", "/", "w", ">"]])
PY
