"""Draw a small data set, to try the trainer with: pictures in one style, or of one character, and their captions.

    python -m lorablend.demo.data_set FOLDER --style knit            (or --subject robot; --count 20)

The base install is enough. The trigger of a style is its name: captions end with "in knit style".
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lorablend.demo.drawing import draw
from lorablend.demo.pictures import training_scenes
from lorablend.demo.styles import STYLES
from lorablend.demo.subjects import SUBJECTS

__all__ = ["caption_of", "draw_data_set"]


def caption_of(caption: str, style: str | None) -> str:
    """The caption of a scene in a style."""
    return f"{caption}, in {style} style" if style else caption


def draw_data_set(
    folder: Path, count: int, *, style: str | None = None, subject: str | None = None, size: int = 256, seed: int = 0
) -> None:
    """Write `count` pictures of different scenes, 000.png and so on, with their captions in 000.txt and so on."""
    folder.mkdir(parents=True)
    for i, scene in enumerate(training_scenes(count, seed)):
        draw(scene, 1000 * seed + i, size, style, subject).save(folder / f"{i:03}.png")
        text = caption_of(scene.caption(i, subject), style)
        (folder / f"{i:03}.txt").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--style", choices=sorted(STYLES))
    what.add_argument("--subject", choices=sorted(SUBJECTS))
    parser.add_argument("--count", type=int, default=20)
    arguments = parser.parse_args()
    draw_data_set(arguments.folder, arguments.count, style=arguments.style, subject=arguments.subject)


if __name__ == "__main__":
    main()
