"""Score the demo model and its adapters with the judge, on captions that were held out of training.

    python -m lorablend.demo.score [--count 200] [--of-each 40]

Prints the tables of README.md in this folder. The base install is enough.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorablend.demo.data_set import caption_of
from lorablend.demo.grammar import Scene
from lorablend.demo.judge import ATTRIBUTES, Judge, Verdict
from lorablend.demo.pictures import held_out_scenes
from lorablend.demo.styles import STYLES
from lorablend.demo.subjects import SUBJECTS
from lorablend.engine import Pipeline
from lorablend.shipped import adapters_dir, model_dir

__all__ = ["accuracy", "draw_and_read", "share_of"]

SEED = 20_000  # picture i has seed SEED + i
CONTENT = tuple(name for name in ATTRIBUTES if name != "style")


def draw_and_read(
    pipeline: Pipeline, judge: Judge, captions: Sequence[str], blend: Sequence[tuple[str, float]] = (), **settings: Any
) -> list[Verdict]:
    """Draw one picture of each caption, with `Pipeline.generate`'s settings, and let the judge read them."""
    return [
        judge.read(pipeline.generate(caption, blend=list(blend), seed=SEED + i, **settings).images)[0]
        for i, caption in enumerate(captions)
    ]


def accuracy(verdicts: Sequence[Verdict], scenes: Sequence[Scene]) -> dict[str, float]:
    """For each attribute the fraction of the pictures that show the scene's value, 0 to 1."""
    return {
        name: float(np.mean([r.best(name) == getattr(s, name) for r, s in zip(verdicts, scenes, strict=True)]))
        for name in CONTENT
    }


def share_of(verdicts: Sequence[Verdict], attribute: str, value: str) -> float:
    """The fraction of the pictures in which the judge sees this value rather than any other, 0 to 1."""
    return float(np.mean([verdict.best(attribute) == value for verdict in verdicts]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=model_dir())
    parser.add_argument("--adapters", type=Path, default=adapters_dir())
    parser.add_argument("--count", type=int, default=200, help="captions for the model alone")
    parser.add_argument("--of-each", type=int, default=40, help="captions for each adapter and blend")
    arguments = parser.parse_args()
    pipeline, judge = Pipeline(arguments.model, lora_dir=arguments.adapters), Judge.load()
    scenes = held_out_scenes(arguments.count, seed=11)
    base = accuracy(draw_and_read(pipeline, judge, [scene.caption(i) for i, scene in enumerate(scenes)]), scenes)
    _table(["", *base], [[f"{arguments.count} captions", *map(_percent, base.values())]])

    few = held_out_scenes(arguments.of_each, seed=12)
    names = sorted(path.stem for path in arguments.adapters.glob("*.safetensors"))
    rows = []
    for name in names:
        attribute, captions = _captions(name, few)
        on = draw_and_read(pipeline, judge, captions, [(name, 1.0)])
        off = draw_and_read(pipeline, judge, captions, [(name, 0.0)])
        content = accuracy(on, few)
        shares = [share_of(verdicts, attribute, name) for verdicts in (on, off)]
        others = [_percent(content[part]) if part != attribute else "–" for part in ("object", "colour", "position")]
        rows.append([name, *map(_percent, shares), *others])
    _table(["adapter", "recognised", "at weight 0", "object", "colour", "position"], rows)

    styles = [name for name in names if name in STYLES]
    rows = []
    for first, second in zip(styles, styles[1:] + styles[:1], strict=True):
        captions = [scene.caption(i) for i, scene in enumerate(few)]
        row = [f"{first}, {second}"]
        for share in (0.0, 0.5, 1.0):
            verdicts = draw_and_read(pipeline, judge, captions, [(first, 1 - share), (second, share)])
            row.append(" / ".join(_percent(np.mean([r.style[name] for r in verdicts])) for name in (first, second)))
        rows.append(row)
    _table(["blend", "1 + 0", "0.5 + 0.5", "0 + 1"], rows)


def _captions(name: str, scenes: Sequence[Scene]) -> tuple[str, list[str]]:
    """The attribute that an adapter changes, and captions that call for it."""
    if name in SUBJECTS:
        return "object", [scene.caption(i, name) for i, scene in enumerate(scenes)]
    return "style", [caption_of(scene.caption(i), name) for i, scene in enumerate(scenes)]


def _percent(part: float | np.floating[Any]) -> str:
    return f"{100 * part:.1f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")  # noqa: T201
    print(flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
