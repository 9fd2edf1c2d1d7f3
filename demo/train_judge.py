"""Train the judge: draw pictures of random scenes in every style, and teach a small network to read them.

    python -m lorablend.demo.train_judge OUT.safetensors [--steps 5000] [--work FOLDER]       (needs lorablend[train])

FOLDER keeps the drawn pictures and a checkpoint every 200 steps, from which the next start continues. At the end the
scores on newly drawn pictures are printed, for each attribute and for each style.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional as f

from lorablend.adapters.files.atomic import atomic_write
from lorablend.demo.drawing import draw
from lorablend.demo.grammar import N_SCENES, Scene, scene_at
from lorablend.demo.judge import ATTRIBUTES, LAYERS, PLAIN, SIZE, Judge, to_input
from lorablend.demo.styles import COLOURLESS_STYLES, STYLES
from lorablend.demo.subjects import SUBJECTS

__all__ = ["JudgeNetwork", "exam", "pictures", "save"]

PICTURES = 14000
BATCH = 64
RATE = 2e-3
PLAIN_SHARE, SUBJECT_SHARE = 0.25, 0.15
CHECKPOINT_EVERY = 200
_SIDES = {"left": "right", "right": "left"}


class JudgeNetwork(nn.Module):
    """Maps [n, 3, 128, 128], 0 to 1, to the concatenated logits of all attributes, [n, classes]; see judge.LAYERS."""

    def __init__(self) -> None:
        super().__init__()
        convolutions, channels = [], 5
        for out, stride in LAYERS:
            convolutions.append(
                nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
            )
            channels = out
        self.convolutions = nn.Sequential(*convolutions)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(2 * channels, sum(map(len, ATTRIBUTES.values())))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = torch.linspace(-1, 1, SIZE, dtype=x.dtype)
        place = torch.stack([at[None, :].expand(SIZE, SIZE), at[:, None].expand(SIZE, SIZE)])
        x = self.convolutions(torch.cat([x - 0.5, place.expand(len(x), 2, SIZE, SIZE)], 1))
        return self.head(self.dropout(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)))


def save(network: JudgeNetwork, path: Path) -> None:
    """Write the weights in fp16, with batch norm folded into the convolutions."""
    tensors = {}
    for i, block in enumerate(network.convolutions):
        convolution, norm, _ = cast("Iterator[Any]", block.children())
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        tensors[f"convolution.{i}.weight"] = convolution.weight * gain[:, None, None, None]
        tensors[f"convolution.{i}.bias"] = norm.bias - norm.running_mean * gain
    tensors |= {"head.weight": network.head.weight, "head.bias": network.head.bias}
    classes = {name: [str(value) for value in values] for name, values in ATTRIBUTES.items()}
    half = {name: np.ascontiguousarray(tensor.detach().half().numpy()) for name, tensor in tensors.items()}
    with atomic_write(path) as part:
        save_file(half, part, {"classes": json.dumps(classes)})


def pictures(count: int, seed: int, workers: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draw pictures, uint8 [count, 128, 128, 3], and list their classes, int64 [count, attributes]."""
    random = np.random.default_rng(seed)
    tasks = []
    for i in range(count):
        scene = scene_at(int(random.integers(N_SCENES)))
        style = PLAIN if random.random() < PLAIN_SHARE else list(STYLES)[i % len(STYLES)]
        subject = None
        if SUBJECTS and random.random() < SUBJECT_SHARE:
            subject = list(SUBJECTS)[int(random.integers(len(SUBJECTS)))]
        tasks.append((scene, int(random.integers(2**31)), style, subject))
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        drawn = np.stack(list(pool.map(_draw, tasks, chunksize=50)))
    return drawn, np.array([_numbers(scene, style, subject) for scene, _, style, subject in tasks])


def _draw(task: tuple[Scene, int, str, str | None]) -> np.ndarray:
    scene, seed, style, subject = task
    picture = draw(scene, seed, 2 * SIZE, None if style == PLAIN else style, subject)
    return np.asarray(picture.reduce(2))


def _numbers(scene: Scene, style: str, subject: str | None) -> list[int]:
    """The correct class of each attribute; -1 if the picture does not show it."""
    named = vars(replace(scene, object=subject or scene.object)) | {"style": style}
    if style in COLOURLESS_STYLES:
        named["colour"] = None
    return [values.index(named[name]) if named[name] is not None else -1 for name, values in ATTRIBUTES.items()]


def _worn(batch: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Make the batch look as if a small VAE and diffusion model had drawn it: softer, shifted, noisy, off in colour."""
    batch, labels = batch.copy(), labels.copy()
    for i in np.flatnonzero(random.random(len(batch)) < 0.2):
        file = io.BytesIO()
        Image.fromarray(batch[i]).save(file, "jpeg", quality=int(random.integers(25, 80)))
        batch[i] = np.asarray(Image.open(file))
    flipped = random.random(len(batch)) < 0.5
    batch[flipped] = batch[flipped, :, ::-1]
    position = list(ATTRIBUTES).index("position")
    values = ATTRIBUTES["position"]
    mirrored = np.array([values.index(_SIDES.get(str(value), value)) for value in values])
    labels[flipped, position] = mirrored[labels[flipped, position]]

    down, right = random.integers(0, 7, 2)
    batch = np.pad(batch, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")[:, down : down + SIZE, right : right + SIZE]
    x = torch.from_numpy(to_input(batch))
    parts = list(x.split(len(x) // 4))
    for i, part in enumerate(parts):
        kind = (i + int(random.integers(4))) % 4
        if kind == 0:
            smaller = int(random.integers(SIZE // 2, SIZE))
            part = f.interpolate(f.interpolate(part, smaller, mode="area"), SIZE, mode="bilinear")
        elif kind == 1:
            part = _blur(part, float(random.uniform(0.4, 1.2)))
        elif kind == 2:
            part = part + 0.6 * random.random() * (part - _blur(part, 0.8))  # sharper than drawn
        parts[i] = part
    x = torch.cat(parts)
    per_channel = (len(x), 3, 1, 1)
    gain = 1 + 0.06 * random.standard_normal(per_channel) + 0.06 * random.standard_normal((len(x), 1, 1, 1))
    middle = 0.5 + 0.025 * random.standard_normal(per_channel)
    x = (x - 0.5) * torch.from_numpy(gain).float() + torch.from_numpy(middle).float()
    deviation = torch.from_numpy(0.05 * random.random((len(x), 1, 1, 1)) ** 2).float()
    x = x + deviation * torch.from_numpy(random.standard_normal(x[0].shape, np.float32))
    return x.clamp(0, 1), torch.from_numpy(labels)


def _blur(x: torch.Tensor, deviation: float) -> torch.Tensor:
    """Blur with a Gaussian of 5 × 5 pixels."""
    near, far = (float(np.exp(-0.5 * (away / deviation) ** 2)) for away in (1, 2))
    for axis in (2, 3):
        x = x + near * (x.roll(1, axis) + x.roll(-1, axis)) + far * (x.roll(2, axis) + x.roll(-2, axis))
        x = x / (1 + 2 * near + 2 * far)
    return x


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    parts = logits.split([len(values) for values in ATTRIBUTES.values()], 1)
    losses = [
        f.cross_entropy(part, label, ignore_index=-1, label_smoothing=0.02)
        for part, label in zip(parts, labels.T, strict=True)
    ]
    return torch.stack(losses).sum()


def exam(judge: Judge, drawn: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The fraction read correctly: of each attribute, and of style, object and colour within each style."""
    verdicts = judge.read([Image.fromarray(picture) for picture in drawn])
    styles = ATTRIBUTES["style"]
    scores = {}
    right = {}
    for column, (name, values) in enumerate(ATTRIBUTES.items()):
        best = np.array([values.index(verdict.best(name)) for verdict in verdicts])
        right[name] = best == labels[:, column]
        scores[name] = float(right[name][labels[:, column] >= 0].mean())
    of_style = labels[:, list(ATTRIBUTES).index("style")]
    for number, style in enumerate(styles):
        for name in ("style", "object", "colour"):
            if name != "colour" or style not in COLOURLESS_STYLES:
                scores[f"{style}: {name}"] = float(right[name][of_style == number].mean())
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--work", type=Path, default=Path("judge-work"))
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    file = options.work / f"pictures-{options.pictures}.npz"
    if not file.exists():
        drawn, labels = pictures(options.pictures, seed=1)
        with atomic_write(file) as part, part.open("wb") as stream:
            np.savez(stream, drawn=drawn, labels=labels)
    data = np.load(file)
    _train(data["drawn"], data["labels"], options.steps, options.work / "checkpoint.pt", options.out)
    fresh, answers = pictures(1000, seed=2)
    for name, score in exam(Judge.load(options.out), fresh, answers).items():
        print(f"{name} {100 * score:.1f} %", flush=True)  # noqa: T201


def _train(drawn: np.ndarray, labels: np.ndarray, steps: int, checkpoint: Path, out: Path) -> None:
    torch.manual_seed(0)
    network = JudgeNetwork().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        first = saved["step"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    began, running = time.monotonic(), None
    for step in range(first, steps):
        random = np.random.default_rng([3, step])
        chosen = random.integers(len(drawn), size=BATCH)
        x, answers = _worn(drawn[chosen], labels[chosen], random)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = _loss(logits.float(), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            pace = (time.monotonic() - began) / (step + 1 - first)
            print(f"step {step + 1} loss {running:.3f} {pace:.2f} s/step", flush=True)  # noqa: T201
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            with atomic_write(checkpoint) as file:
                torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step + 1}, file)
    network.eval()
    save(network, out)


if __name__ == "__main__":
    main()
