"""The judge recognizes what was drawn, and refuses weights for another grammar."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import lorablend.demo
from lorablend.adapters.errors import ModelError
from lorablend.demo.drawing import draw
from lorablend.demo.grammar import N_SCENES, scene_at
from lorablend.demo.judge import ATTRIBUTES, PLAIN, SIZE, Judge, Verdict, to_input
from lorablend.demo.styles import COLOURLESS_STYLES, STYLES

WEIGHTS = Path(lorablend.demo.__file__).parent / "judge.safetensors"


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def test_small() -> None:
    assert WEIGHTS.stat().st_size <= 1e6
    assert sum(tensor.size for tensor in load_file(WEIGHTS).values()) <= 500_000


def test_reads_drawings(judge: Judge) -> None:
    """Fresh drawings, ten of each look. At 98 % right, one in 100,000 such samples of 130 has less than 92 %."""
    random = np.random.default_rng(20261121)
    scenes = [scene_at(int(i)) for i in random.integers(N_SCENES, size=130)]
    styles = [(PLAIN, *STYLES)[i % 13] for i in range(130)]
    seeds = random.integers(2**31, size=130)
    pictures = [
        draw(scene, int(seed), 2 * SIZE, None if style == PLAIN else style)
        for scene, seed, style in zip(scenes, seeds, styles, strict=True)
    ]
    verdicts = judge.read(pictures)
    for name in ATTRIBUTES:
        right = [
            verdict.best(name) == (style if name == "style" else getattr(scene, name))
            for verdict, scene, style in zip(verdicts, scenes, styles, strict=True)
            if name != "colour" or style not in COLOURLESS_STYLES
        ]
        assert np.mean(right) > 0.92, name


def test_reading(judge: Judge) -> None:
    picture = draw(scene_at(0), 1, 2 * SIZE)
    (verdict,) = judge.read([picture])
    assert [field.name for field in fields(Verdict)] == list(ATTRIBUTES)
    for name, values in ATTRIBUTES.items():
        probabilities = getattr(verdict, name)
        assert tuple(probabilities) == values
        assert sum(probabilities.values()) == pytest.approx(1)
        assert verdict.best(name) == max(values, key=lambda value: probabilities[value])
    (small,) = judge.read([picture.reduce(2)])  # which rounds some pixels the other way
    assert small.style == pytest.approx(verdict.style, abs=1e-3)


def test_many_at_once(judge: Judge) -> None:
    pictures = [draw(scene_at(i * 700), i, SIZE) for i in range(35)]
    one_by_one = [judge.read([picture])[0] for picture in pictures]
    # The CPU plugin may add in another order in another batch.
    for together, alone in zip(judge.read(pictures), one_by_one, strict=True):
        assert together.object == pytest.approx(alone.object, abs=1e-4)
    assert judge.read([]) == []


def test_other_words(tmp_path: Path) -> None:
    save_file(load_file(WEIGHTS), tmp_path / "old.safetensors", {"classes": '{"object": ["fox"]}'})
    with pytest.raises(ModelError) as caught:
        Judge.load(tmp_path / "old.safetensors")
    assert str(caught.value) == (
        "old.safetensors has other classes than the demo's grammar; make it with train_judge.py"
    )


def test_saved_as_trained(tmp_path: Path) -> None:
    """The graph built from the file, with batch norm folded in, computes what torch does."""
    torch = pytest.importorskip("torch")
    from lorablend.demo.train_judge import JudgeNetwork, save

    torch.manual_seed(0)
    network = JudgeNetwork().eval()
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.2, 2)
    save(network, tmp_path / "judge.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    verdicts = Judge.load(tmp_path / "judge.safetensors").read([Image.fromarray(p) for p in pixels])
    logits = network(torch.from_numpy(to_input(pixels))).split([len(v) for v in ATTRIBUTES.values()], 1)
    for name, part in zip(ATTRIBUTES, logits, strict=True):
        expected = part.softmax(1).detach().numpy()
        found = np.array([list(getattr(verdict, name).values()) for verdict in verdicts])
        # fp16 weights: each off by up to 2^-11 of itself.
        np.testing.assert_allclose(found, expected, atol=2e-3)
