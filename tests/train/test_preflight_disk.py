"""The check for disk space."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lorablend.adapters.errors import Cancelled, ResourceError
from lorablend.train.preflight_disk import cached_bytes
from lorablend.train.run import prepare_run
from tests.train.trainings import config_of, stop_at


def test_no_room_on_the_disk(
    settings: dict[str, Any], sdxl_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked before anything is loaded; nothing is in the cache yet."""
    monkeypatch.setenv("LORABLEND_CACHE", str(tmp_path / "cache"))
    config = config_of(settings, keep=10**9)
    for openvino, converted in ((sdxl_model, ""), (None, r", \d+ MB for sdxl_source as converted for samples")):
        with pytest.raises(ResourceError) as caught:
            prepare_run(config, openvino=openvino)
        assert re.fullmatch(
            rf"{config.folder}: the disk has [\d,.]+ GB free, the training needs about [\d,.]+ GB for checkpoints and "
            rf"adapters(, \d+ MB for latents and texts)?{converted}; free up space, lower keep or checkpoints, give "
            "another folder as out, or set LORABLEND_CACHE to a folder on another disk",
            str(caught.value),
        )


def test_estimate_is_what_is_left(
    settings: dict[str, Any], train: Any, sdxl_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 10 %, for the estimate has neither the files' headers nor the pooled embeddings."""
    monkeypatch.setenv("LORABLEND_CACHE", str(tmp_path / "cache"))
    config = config_of(settings, flip=True, shuffle_tags=True, validation_fraction=0.2)
    run = prepare_run(config, openvino=sdxl_model)
    with pytest.raises(Cancelled):
        train(config, progress=stop_at(1))
    examples = (*run.dataset.examples, *run.held_out)
    latents, texts = (
        sum(path.stat().st_size for path in (tmp_path / "cache" / "train" / kind).iterdir())
        for kind in ("latents", "texts")
    )
    assert cached_bytes(run.config, run.base, run.plan, examples) == pytest.approx(latents + texts, rel=0.1)
    trained = run.config.model_copy(update={"text_encoder": True})
    assert cached_bytes(trained, run.base, run.plan, examples) == pytest.approx(latents, rel=0.1)
