"""Schedules, turns, averaged guidance and masks, compared with diffusers and PEFT doing the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import Adapter, Blend, BlendItem, Mask, Schedule, load_adapter
from lorablend.adapters.errors import BlendError
from lorablend.engine import Pipeline
from tests.engine import reference
from tests.engine.reference import STEPS

SETTINGS: dict[str, Any] = {"guidance_scale": 4.0, "width": 96, "height": 64}  # two sizes, to notice a mix-up


@pytest.fixture(scope="module")
def latents() -> np.ndarray:
    return np.random.default_rng(42).standard_normal((1, 4, 8, 12), dtype=np.float32)


@pytest.fixture(scope="module")
def files(sdxl_source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters that change every layer that LCM-LoRA changes, including convolutions."""
    folder = tmp_path_factory.mktemp("steered")
    return [
        reference.save_adapter(
            sdxl_source,
            folder / f"{name}.safetensors",
            seed=seed,
            rank=4,
            alpha=4,
            kohya=kohya,
            text=False,
            targets=reference.LCM_TARGETS,
        )
        for name, seed, kohya in (("one", 11, True), ("two", 12, False))
    ]


@pytest.fixture(scope="module")
def adapters(files: list[Path]) -> list[Adapter]:
    return [load_adapter(file) for file in files]


@pytest.fixture(scope="module")
def torch_pipeline(sdxl_source: Path, files: list[Path]) -> Any:
    """diffusers with both adapters loaded, as "one" and "two"."""
    pipeline = reference.load(sdxl_source)
    for file in files:
        pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=file.stem)
    return pipeline


@pytest.fixture(scope="module")
def live(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline()


def _live_picture(live: Pipeline, blend: Blend, latents: np.ndarray) -> np.ndarray:
    result = live.generate(
        reference.PROMPT, reference.NEGATIVE, blend=blend, latents=latents, steps=STEPS, seed=0, **SETTINGS
    )
    return np.array(result.images[0])


def _reference_picture(pipeline: Any, latents: np.ndarray, before_step: Callable[[int], None]) -> np.ndarray:
    """diffusers' picture, with `before_step` called before every step."""
    import torch

    def after(_pipeline: Any, step: int, _t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step + 1 < STEPS:
            before_step(step + 1)
        return kwargs

    before_step(0)
    with torch.no_grad():
        result = pipeline(
            reference.PROMPT,
            negative_prompt=reference.NEGATIVE,
            latents=torch.from_numpy(latents),
            num_inference_steps=STEPS,
            callback_on_step_end=after,
            **SETTINGS,
        )
    return np.array(result.images[0])


def _blend(adapters: list[Adapter], one: Mapping[str, Any], two: Mapping[str, Any], **kwargs: Any) -> Blend:
    return Blend((BlendItem(adapters[0], 0.8, **one), BlendItem(adapters[1], -0.6, **two)), **kwargs)


@pytest.mark.parametrize(
    ("one", "two", "mode", "factors"),
    [
        ({}, {}, {}, [(1, 1)] * 4),
        ({"schedule": Schedule(stop=3)}, {}, {}, [(1, 1), (1, 1), (0, 1), (0, 1)]),
        ({"schedule": Schedule(start=0.5)}, {"schedule": Schedule(stop=0.5)}, {}, [(0, 1), (0, 1), (1, 0), (1, 0)]),
        ({"schedule": Schedule(ramp=(0, 1.5))}, {}, {}, [(0, 1), (0.5, 1), (1, 1), (1.5, 1)]),
        (
            {"schedule": Schedule(ramp=(1, 0.4))},
            {"schedule": Schedule(start=2, ramp=(0.5, 1.5))},
            {},
            [(1, 0), (0.8, 0.5), (0.6, 1), (0.4, 1.5)],
        ),
        ({}, {}, {"mode": "switch"}, [(1, 0), (0, 1), (1, 0), (0, 1)]),
        ({}, {}, {"mode": "switch", "switch_steps": 2}, [(1, 0), (1, 0), (0, 1), (0, 1)]),
    ],
    ids=["constant", "window", "windows", "ramp", "ramps", "switch", "switch by two"],
)
def test_factors_of_each_step(
    live: Pipeline,
    torch_pipeline: Any,
    adapters: list[Adapter],
    latents: np.ndarray,
    one: Mapping[str, Any],
    two: Mapping[str, Any],
    mode: Mapping[str, Any],
    factors: list[tuple[float, float]],
) -> None:
    def before_step(step: int) -> None:
        torch_pipeline.set_adapters(["one", "two"], [0.8 * factors[step][0], -0.6 * factors[step][1]])

    expected = _reference_picture(torch_pipeline, latents, before_step)
    assert reference.levels_apart(_live_picture(live, _blend(adapters, one, two, **mode), latents), expected) <= 1


def test_composite_averages_the_guidance(
    live: Pipeline,
    torch_pipeline: Any,
    adapters: list[Adapter],
    latents: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unet = torch_pipeline.unet
    forward = unet.forward

    def average(*args: Any, **kwargs: Any) -> Any:
        outputs = []
        for weights in ([0.8, 0], [0, -0.6]):
            torch_pipeline.set_adapters(["one", "two"], weights)
            outputs.append(forward(*args, **kwargs)[0])
        return (sum(outputs) / 2,)

    monkeypatch.setattr(unet, "forward", average)
    expected = _reference_picture(torch_pipeline, latents, lambda _: None)
    assert (
        reference.levels_apart(_live_picture(live, _blend(adapters, {}, {}, mode="composite"), latents), expected) <= 1
    )


def test_masks(
    live: Pipeline, sdxl_source: Path, files: list[Path], adapters: list[Adapter], latents: np.ndarray
) -> None:
    """Compared with a torch UNet in which every layer adds its update only where the mask is."""
    left, soft = Mask(box=(0, 0, 0.4, 1)), Mask(picture=np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    blend = _blend(adapters, {"mask": left}, {"mask": soft})
    expected = _masked(sdxl_source, files, {"one": left, "two": soft}, {"one": 0.8, "two": -0.6}, latents)
    actual = _live_picture(live, blend, latents)
    assert reference.levels_apart(actual, expected) <= 1
    assert reference.levels_apart(actual, _live_picture(live, _blend(adapters, {}, {}), latents)) > 5


def test_mask_and_ramp_and_one_that_acts_everywhere(
    live: Pipeline, sdxl_source: Path, files: list[Path], adapters: list[Adapter], latents: np.ndarray
) -> None:
    """A ramp that stays at 0.5 is half the weight."""
    mask = Mask(box=(0.25, 0.5, 1, 1))
    half = Schedule(ramp=(0.5, 0.5))
    blend = _blend(adapters, {"mask": mask, "schedule": half}, {})
    expected = _masked(sdxl_source, files, {"one": mask, "two": None}, {"one": 0.4, "two": -0.6}, latents)
    assert reference.levels_apart(_live_picture(live, blend, latents), expected) <= 1


def test_a_mask_over_everything_changes_nothing(live: Pipeline, adapters: list[Adapter], latents: np.ndarray) -> None:
    everywhere = {"mask": Mask(box=(0, 0, 1, 1))}
    actual = _live_picture(live, _blend(adapters, everywhere, {}), latents)
    assert reference.levels_apart(actual, _live_picture(live, _blend(adapters, {}, {}), latents)) <= 1


def test_text_encoders_have_only_adapters_that_act_in_the_step(
    live: Pipeline, lora_dir: Path, latents: np.ndarray
) -> None:
    """A mask over everything changes nothing, neither with a window nor when adapters take turns."""
    one, two = (load_adapter(lora_dir / f"{name}.safetensors") for name in ("kohya_text", "peft"))
    everywhere = Mask(box=(0, 0, 1, 1))
    for mode, schedule in (("sum", Schedule(stop=3)), ("switch", None)):
        plain, masked = (
            Blend((BlendItem(one, schedule=schedule), BlendItem(two, 0.7, text_encoder=0, mask=mask)), mode)
            for mask in (None, everywhere)
        )
        assert reference.levels_apart(_live_picture(live, masked, latents), _live_picture(live, plain, latents)) <= 1, (
            mode
        )


def test_a_steered_graph_draws_what_the_plain_one_does(
    live: Pipeline, make_pipeline: Callable[..., Pipeline], adapters: list[Adapter], latents: np.ndarray
) -> None:
    _live_picture(live, _blend(adapters, {"schedule": Schedule(ramp=(0, 1))}, {}), latents)
    steered = _live_picture(live, _blend(adapters, {}, {}), latents)
    assert reference.levels_apart(steered, _live_picture(make_pipeline(), _blend(adapters, {}, {}), latents)) <= 1


def test_composite_takes_no_masks(live: Pipeline, adapters: list[Adapter], latents: np.ndarray) -> None:
    with pytest.raises(BlendError) as caught:
        _live_picture(live, _blend(adapters, {"mask": Mask(box=(0, 0, 1, 1))}, {}, mode="composite"), latents)
    assert str(caught.value) == "mode composite takes neither masks nor ramps; use sum, or leave them out"


def _masked(
    source: Path,
    files: list[Path],
    masks: Mapping[str, Mask | None],
    weights: Mapping[str, float],
    latents: np.ndarray,
) -> np.ndarray:
    """The reference for masks: PEFT's layers, with updates multiplied by the mask at each layer's resolution.

    Keys and values of cross-attention have no place. So attention runs with those of the adapters without a mask, and
    again for each masked adapter with its own added, and the masks weight the sum of the outputs.
    """
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    pipeline = reference.load(source)
    for file in files:
        pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=file.stem)
    unet, (height, width) = pipeline.unet, latents.shape[-2:]

    def cells_of(name: str, places: int) -> torch.Tensor:
        rows, mask = round((places * height / width) ** 0.5), masks[name]
        return torch.ones(places) if mask is None else torch.from_numpy(mask.cells(rows, places // rows).reshape(-1))

    def update(layer: Any, name: str, x: torch.Tensor) -> torch.Tensor:
        change = layer.lora_B[name](layer.lora_A[name](x))
        return weights[name] * layer.scaling[name] * change

    def places_first(change: torch.Tensor, name: str) -> torch.Tensor:
        if change.ndim == 4:
            return change * cells_of(name, change.shape[2] * change.shape[3]).reshape(1, 1, *change.shape[2:])
        return change * cells_of(name, change.shape[1])[None, :, None]

    for block in unet.modules():
        if hasattr(block, "time_emb_proj") and isinstance(block.time_emb_proj, BaseTunerLayer):
            _hook_time(block, update, places_first)
    for path, layer in unet.named_modules():
        if isinstance(layer, LoraLayer) and not path.endswith(("time_emb_proj", "attn2.to_k", "attn2.to_v")):

            def forward(x: torch.Tensor, *_: Any, layer: Any = layer, **__: Any) -> torch.Tensor:
                return layer.base_layer(x) + sum(places_first(update(layer, name, x), name) for name in masks)

            layer.forward = forward
    for path, attention in unet.named_modules():
        if path.endswith("attn2"):
            attention.set_processor(_Regions(update, cells_of, masks))
    return _reference_picture(pipeline, latents, lambda _: None)


def _hook_time(block: Any, update: Any, places_first: Any) -> None:
    """Add time_emb_proj's updates to the feature map before norm2, only where the masks are."""
    layer = block.time_emb_proj
    changes = {}

    def project(x: Any, *_: Any, **__: Any) -> Any:
        for name in layer.lora_A:
            changes[name] = update(layer, name, x)[:, :, None, None]
        return layer.base_layer(x)

    def before_norm(_module: Any, args: tuple[Any]) -> tuple[Any]:
        (hidden,) = args
        return (hidden + sum(places_first(c.expand(hidden.shape), name) for name, c in changes.items()),)

    layer.forward = project
    block.norm2.register_forward_pre_hook(before_norm)


class _Regions:
    """The cross-attention of a diffusers `Attention`, with a pair of keys and values for each adapter."""

    def __init__(self, update: Any, cells_of: Any, masks: Mapping[str, Mask | None]) -> None:
        self._update, self._cells_of = update, cells_of
        self._masked = [name for name, mask in masks.items() if mask is not None]
        self._everywhere = [name for name, mask in masks.items() if mask is None]

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any, **_: Any) -> Any:
        import torch

        def heads(x: Any) -> Any:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query = heads(attn.to_q(hidden_states))

        def attend(name: str | None) -> Any:
            key, value = (layer.base_layer(encoder_hidden_states) for layer in (attn.to_k, attn.to_v))
            for one in (*self._everywhere, *([] if name is None else [name])):
                key = key + self._update(attn.to_k, one, encoder_hidden_states)
                value = value + self._update(attn.to_v, one, encoder_hidden_states)
            out = torch.nn.functional.scaled_dot_product_attention(query, heads(key), heads(value))
            return out.transpose(1, 2).flatten(2)

        out = base = attend(None)
        for name in self._masked:
            out = out + self._cells_of(name, hidden_states.shape[1])[None, :, None] * (attend(name) - base)
        return attn.to_out[1](attn.to_out[0](out))
