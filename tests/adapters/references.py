"""Small torch networks whose layers have SDXL's names, with adapters that LyCORIS and PEFT write.

The tests compare our changes of the weights to the weights that those libraries compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lorablend.adapters import load_adapter
from lorablend.adapters.adapter import Adapter
from lorablend.adapters.algorithms.delta import Delta

if TYPE_CHECKING:
    import torch

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"  # no bias, here as in SDXL
TO_K = "down_blocks.2.attentions.1.transformer_blocks.1.attn2.to_k"
FF = "mid_block.attentions.0.transformer_blocks.0.ff.net.2"
CONV = "down_blocks.1.resnets.0.conv1"  # 3×3
SHORTCUT = "up_blocks.1.resnets.0.conv_shortcut"  # 1×1
GROUP_NORM = "down_blocks.1.resnets.0.norm1"
LAYER_NORM = "mid_block.attentions.0.transformer_blocks.0.norm1"


class Layer(NamedTuple):
    """The weight and the bias of one layer, float32."""

    weight: np.ndarray
    bias: np.ndarray | None


Layers = dict[str, Layer]


def small_net(*, norms: bool = False) -> torch.nn.Module:
    """A network of linear layers and convolutions, square and oblong, and optionally norms; with random weights."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {
        TO_Q: nn.Linear(32, 32, bias=False),
        TO_K: nn.Linear(48, 32, bias=False),
        FF: nn.Linear(64, 16),
        CONV: nn.Conv2d(16, 32, 3, padding=1),
        SHORTCUT: nn.Conv2d(24, 16, 1),
    }
    if norms:
        layers |= {GROUP_NORM: nn.GroupNorm(4, 16), LAYER_NORM: nn.LayerNorm(16)}
    root = nn.Module()
    for path, layer in layers.items():
        *parents, name = path.split(".")
        parent = root
        for word in parents:
            if word not in parent._modules:
                parent.add_module(word, nn.Module())
            parent = parent.get_submodule(word)
        parent.add_module(name, layer)
    randomize(root, 0.3)
    return root


def randomize(module: torch.nn.Module, deviation: float, only: str = "", seed: int = 1) -> None:
    """Add normal random numbers to every parameter whose name contains `only`."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if only in name:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * deviation)


def layers_of(net: torch.nn.Module) -> Layers:
    """Copies of all weights and biases by module path; PEFT's layers have the name of the layer that they wrap."""
    from torch import nn

    return {
        path.removesuffix(".base_layer"): Layer(
            module.weight.detach().float().numpy().copy(),
            None if module.bias is None else module.bias.detach().float().numpy().copy(),
        )
        for path, module in net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm)
    }


def lycoris_file(
    path: Path, net: torch.nn.Module, *, deviation: float = 0.2, **options: Any
) -> tuple[Path, Layers, Layers]:
    """An adapter with random parameters that LyCORIS saves, and the layers before and after LyCORIS merges it."""
    import torch
    from lycoris import create_lycoris

    before = layers_of(net)
    network = create_lycoris(net, 1.0, warn_on_unmatched=False, **options)
    for seed, lora in enumerate(network.loras):
        randomize(lora, deviation, seed=seed)
    network.apply_to()
    network.save_weights(path, torch.float32, {})
    network.restore()
    with torch.no_grad():
        network.merge_to(1.0)
    return path, before, layers_of(net)


def peft_file(
    folder: Path, net: torch.nn.Module, config: Any, *, deviation: float = 0.2, only: str
) -> tuple[Path, Layers, Layers]:
    """The same from PEFT; the parameters whose names contain `only` are random."""
    from peft import get_peft_model

    before = layers_of(net)
    model = get_peft_model(net, config)
    randomize(model, deviation, only)
    model.save_pretrained(folder)
    merged = model.merge_and_unload()
    return folder / "adapter_model.safetensors", before, layers_of(merged)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """‖ours − theirs‖ / ‖theirs‖ in float64."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def assert_merges_alike(path: Path, before: Layers, after: Layers, tolerance: float = 1e-5) -> Adapter:
    """Load the file and assert that its changes of weights and biases are the differences between the layers.

    Both sides calculate in float32, and the reference's own difference of two weights has lost a digit.
    """
    adapter = load_adapter(path)
    expected_weights = changed(before, after, "weight")
    expected_biases = changed(before, after, "bias")
    assert {name for _, name in adapter.deltas} == expected_weights.keys()
    for (_, name), delta in adapter.deltas.items():
        weight = before[name].weight
        assert delta.fits(weight.shape)
        change = delta.dense(weight)
        assert change.shape == weight.shape
        assert change.dtype == np.float32
        assert relative(change, expected_weights[name]) <= tolerance, name
        if delta.live == "gate":
            gated = delta.gated(weight)
            assert gated is not None
            low_rank = 0 if gated.up is None else (gated.up @ gated.down).reshape(weight.shape)
            gate = gated.gate.reshape(-1, *[1] * (weight.ndim - 1))
            assert relative(gate * weight + low_rank, change) <= tolerance, name
            assert delta.live_rank == (0 if gated.down is None else len(gated.down))
    biases: Mapping[str, np.ndarray] = {
        name: change
        for (_, name), delta in adapter.biases.items()
        if (bias := before[name].bias) is not None and np.any(change := delta.dense(bias))
    }
    assert biases.keys() == expected_biases.keys()
    for name, change in biases.items():
        assert relative(change, expected_biases[name]) <= tolerance, name
    return adapter


def changed(before: Layers, after: Layers, attribute: str) -> dict[str, np.ndarray]:
    """after − before, for the layers whose weight (or bias) differs."""
    changes = {
        name: getattr(after[name], attribute) - getattr(layer, attribute)
        for name, layer in before.items()
        if getattr(layer, attribute) is not None
    }
    return {name: change for name, change in changes.items() if np.any(change)}


def assert_forms_agree(delta: Delta, weight: np.ndarray, change: np.ndarray) -> None:
    """Assert that the live forms of a delta are what it says they are, and give the same change.

    The tolerance is 1e-5: two float32 sums of the same products in another order.
    """
    down_up = delta.factors()
    if down_up is not None:
        down, up = down_up
        assert down.dtype == up.dtype == np.float32
        assert (len(down), up.shape[1]) == (delta.live_rank, delta.live_rank)
        assert relative((up @ down.reshape(len(down), -1)).reshape(weight.shape), change) <= 1e-5
    raw = delta.raw_factors()
    assert (raw is not None) == (delta.live == "factors")
    if raw is not None:
        assert raw.down.shape[1:] == (weight.shape[1:] if set(weight.shape[2:]) - {1} else weight.shape[1:2])
        product = raw.up.astype(np.float64) @ raw.down.reshape(len(raw.down), -1) * raw.scale
        assert relative(product.reshape(weight.shape), change) <= 1e-5
    gated = delta.gated(weight)
    assert (gated is not None) == (delta.live == "gate")
    if gated is not None and gated.down is not None and gated.up is not None:
        assert len(gated.down) == delta.live_rank
        low_rank = (gated.up @ gated.down.reshape(len(gated.down), -1)).reshape(weight.shape)
        assert relative(gated.gate.reshape(-1, *[1] * (weight.ndim - 1)) * weight + low_rank, change) <= 1e-5
