"""One budget of pixels for all decodes: those who find no room wait, and a large picture has its turn."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from PIL import Image

from lorablend.engine.mask import open_mask
from lorablend.engine.pixel_budget import BUDGET, decoding


def test_pictures_wait_for_room() -> None:
    order: list[str] = []
    began = threading.Event()

    def decode(name: str, pixels: int) -> None:
        began.set()
        with decoding(pixels):
            order.append(name)

    def started(name: str, pixels: int) -> threading.Thread:
        thread = threading.Thread(target=decode, args=(name, pixels))
        began.clear()
        thread.start()
        assert began.wait(10)
        thread.join(0.05)
        return thread

    with decoding(BUDGET // 2):
        assert not started("beside", BUDGET // 2).is_alive()
        large = started("large", 3 * BUDGET)  # more than there is: it waits until it is alone
        small = started("small", 1)
        assert large.is_alive()
        assert small.is_alive()  # it does not overtake
        with decoding(BUDGET):  # a picture made of the one in hand
            pass
    for thread in (large, small):
        thread.join(10)
    assert order == ["beside", "large", "small"]
    with decoding(BUDGET):  # everything was given back
        pass


def test_an_error_gives_the_pixels_back() -> None:
    for _ in range(3):
        try:
            with decoding(BUDGET):
                raise OSError
        except OSError:
            pass


def test_a_mask_waits(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    masks: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: masks.append(open_mask(tmp_path / "mask.png")))
    with decoding(BUDGET):
        thread.start()
        thread.join(0.1)
        assert masks == []
    thread.join(10)
    assert masks[0].shape == (8, 8)
