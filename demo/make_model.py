"""Convert the trained model to the shipped one: OpenVINO IR with fp16 weights, in shipped/model.

    python -m lorablend.demo.make_model FOLDER        (needs lorablend[convert])

FOLDER is the one that lorablend.demo.train_model worked in; its model/ is a diffusers folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from lorablend.convert import convert
from lorablend.shipped import model_dir

__all__ = ["make_model"]


def make_model(source: Path, out: Path) -> None:
    """Convert the diffusers folder `source`, and replace `out` by the result."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        model = Path(folder, "model")
        convert(source, model, weights="fp16")
        (model / "lorablend.json").unlink()  # contains the date, which would differ at every run
        shutil.rmtree(out, ignore_errors=True)
        model.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    make_model(parser.parse_args().folder / "model", model_dir())


if __name__ == "__main__":
    main()
