"""Hidden states and pictures of weighted and long prompts, beside A1111's and ComfyUI's rules in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorablend.engine import Pipeline
from lorablend.engine.live.text import Conditioning
from tests.engine import reference
from tests.engine.reference import levels_apart

LONG = ", ".join(["a red fox by the sea", "two cats in a field", "a small fox on a hill"] * 9)

# prompt -> its chunks; a chunk is its parts with their weights
A1111: dict[str, list[list[tuple[str, float]]]] = {
    "the fox, a cat": [[("the fox, a cat", 1)]],
    "a (red:1.4) fox [by] the (sea)": [
        [("a ", 1), ("red", 1.4), (" fox ", 1), ("by", 1 / 1.1), (" the ", 1), ("sea", 1.1)]
    ],
    "((the fox:1.3), a cat:0.8)": [[("the fox", 1.04), (", a cat", 0.8)]],
    "(the fox:0), a cat": [[("the fox", 0), (", a cat", 1)]],
    "a fox BREAK (a cat:1.2)": [[("a fox", 1)], [("a cat", 1.2)]],
    "a fox BREAK BREAK a cat": [[("a fox", 1)], [("", 1)], [("a cat", 1)]],
    r"a fox \(series\), [cat]": [[("a fox (series), ", 1), ("cat", 1 / 1.1)]],
}
COMFY: dict[str, list[list[tuple[str, float]]]] = {
    "a (red:1.4) fox by the (sea)": [[("a ", 1), ("red", 1.4), (" fox by the ", 1), ("sea", 1.1)]],
    "(the (fox:1.5), a (cat):0.8)": [[("the ", 0.8), ("fox", 1.5), (", a ", 0.8), ("cat", 0.88)]],
    "(the fox:0), a [cat] BREAK": [[("the fox", 0), (", a [cat] BREAK", 1)]],
}  # fmt: skip


class Torch:
    """The text encoders of diffusers' pipeline, with weights and chunks as the two programs have them."""

    def __init__(self, source: Path) -> None:
        self.pipe = reference.load(source)

    def encode(self, chunks: list[list[tuple[str, float]]], rule: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states, [1, 77 · chunks, width], and the pooled output of the first chunk."""
        hidden, pooled = [], torch.empty(0)
        for tokenizer, encoder in (
            (self.pipe.tokenizer, self.pipe.text_encoder),
            (self.pipe.tokenizer_2, self.pipe.text_encoder_2),
        ):
            outputs = [self._run(tokenizer, encoder, chunk) for chunk in chunks]
            empty = self._run(tokenizer, encoder, [])[0]
            pooled = outputs[0][2]
            rows = []
            for states, weights, _ in outputs:
                if rule == "a1111":
                    mean = states.mean()
                    states = states * weights
                    states = states * (mean / states.mean())
                else:
                    states = empty + (states - empty) * weights
                rows.append(states)
            hidden.append(torch.cat(rows, 1))
        return torch.cat(hidden, -1), pooled

    def _run(self, tokenizer: Any, encoder: Any, chunk: list[tuple[str, float]]) -> tuple[torch.Tensor, ...]:
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for text, weight in chunk:
            own = tokenizer(text).input_ids[1:-1]
            ids += own
            weights += [weight] * len(own)
        ids.append(tokenizer.eos_token_id)
        ids += [tokenizer.pad_token_id] * (77 - len(ids))
        weights += [1.0] * (77 - len(weights))
        with torch.no_grad():
            output = encoder(torch.tensor([ids]), output_hidden_states=True)
        pooled = getattr(output, "text_embeds", torch.empty(0))
        return output.hidden_states[-2], torch.tensor(weights)[None, :, None], pooled


@pytest.fixture(scope="module")
def torch_encoders(sdxl_source: Path) -> Torch:
    return Torch(sdxl_source)


def encoded(pipeline: Pipeline, prompt: str, rule: str) -> Conditioning:
    pipeline.generate("fox", steps=1)  # the encoders are compiled for the first picture
    runtime: Any = pipeline._runtime
    return runtime._text[1].encode(prompt, (), rule)


CASES = [("a1111", prompt, chunks) for prompt, chunks in A1111.items()]
CASES += [("comfy", prompt, chunks) for prompt, chunks in COMFY.items()]


@pytest.mark.parametrize(("rule", "prompt", "chunks"), CASES)
def test_hidden_states(
    rule: str, prompt: str, chunks: list[list[tuple[str, float]]], pipeline: Pipeline, torch_encoders: Torch
) -> None:
    """1e-4 of the largest number: both are f32, and their sums differ in the last bits."""
    hidden, pooled = torch_encoders.encode(chunks, rule)
    actual = encoded(pipeline, prompt, rule)
    assert actual.hidden.shape == tuple(hidden.shape)
    assert actual.pooled is not None
    for ours, theirs in ((actual.hidden, hidden.numpy()), (actual.pooled, pooled.numpy())):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize(("rule", "prompt", "chunks"), [CASES[1], CASES[4], CASES[-2]])
def test_pictures(
    rule: str,
    prompt: str,
    chunks: list[list[tuple[str, float]]],
    pipeline: Pipeline,
    torch_encoders: Torch,
    latents: np.ndarray,
) -> None:
    """At most one 8-bit level from diffusers with these embeddings, see test_parity; also with two chunks."""
    hidden, pooled = torch_encoders.encode(chunks, rule)
    negative, negative_pooled = torch_encoders.encode([[("cat", 1)]] * len(chunks), rule)
    expected = reference.draw(
        torch_encoders.pipe,
        [],
        latents,
        steps=3,
        guidance_scale=5.0,
        prompt_embeds=hidden,
        pooled_prompt_embeds=pooled,
        negative_prompt_embeds=negative,
        negative_pooled_prompt_embeds=negative_pooled,
    )
    settings: dict[str, Any] = {"negative_prompt": " BREAK ".join(["cat"] * len(chunks)), "prompt_rule": rule}
    actual = pipeline.generate(prompt, latents=latents, steps=3, guidance_scale=5.0, **settings)
    assert levels_apart(np.array(actual.images[0]), expected) <= 1
    assert actual.warnings == ()


def test_a_long_prompt_is_not_cut(make_pipeline: Callable[..., Pipeline]) -> None:
    """Its last words count, alone and with a mask and an adapter of the text encoders; nothing is compiled twice."""
    pipeline = make_pipeline()
    items = [{"adapter": "peft", "weight": 1.0, "mask": [0, 0, 0.5, 1]}]
    pictures = [
        np.array(pipeline.generate(prompt, "cat", blend=blend, steps=1, seed=1).images[0])
        for blend in ([], {"mode": "sum", "items": items})
        for prompt in (LONG, f"{LONG}, a cat", "a cat")
    ]
    assert all(levels_apart(pictures[i], pictures[j]) > 0 for i in range(6) for j in range(i))
    runtime: Any = pipeline._runtime
    compiled = runtime._unet
    pipeline.generate(LONG + " cat" * 80, "cat", steps=1, seed=1)
    pipeline.generate("a cat", steps=1)
    assert runtime._unet is compiled


def test_a_picture_does_not_depend_on_those_before(pipeline: Pipeline, make_pipeline: Callable[..., Pipeline]) -> None:
    other = make_pipeline()
    other.generate(LONG, steps=1)
    pictures = [p.generate("a cat, a fox", seed=2, steps=4).images[0].tobytes() for p in (pipeline, other)]
    assert pictures[0] == pictures[1]


def test_genai_says_that_it_takes_text_only(make_pipeline: Callable[..., Pipeline]) -> None:
    genai = make_pipeline(runtime="genai")
    result = genai.generate("a (red:1.3) fox", steps=1)
    assert result.warnings == (
        "'(red:1.3)' is drawn as plain text; weights of words, [a:b:0.5] and BREAK need runtime=live",
    )
