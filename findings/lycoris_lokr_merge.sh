#!/bin/sh
# LyCORIS: a LoKr that is merged changes the weight by scale² where the same module, applied, changes it by scale
# (scale = alpha / rank): get_weight has the scale already, and get_diff_weight multiplies by it again.
# Pictures drawn with the merged model show the style half as strongly where alpha is half the rank.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lycoris-lora==4.1.3 torch==2.14.1
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from lycoris.modules.lokr import LokrModule


def changes(alpha: float) -> tuple[float, float]:
    """The norms of what the module adds to its layer's weight: applied, and merged."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64, bias=False)
    before = layer.weight.detach().clone()
    module = LokrModule("lokr", layer, multiplier=1.0, lora_dim=4, alpha=alpha, factor=8)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    eye = torch.eye(64)
    module.apply_to()
    with torch.no_grad():
        applied = layer(eye).T - before
    module.restore()
    module.merge_to(1.0)
    return applied.norm().item(), (layer.weight - before).norm().item()


print("lycoris-lora", version("lycoris-lora"), "torch", version("torch"))
ratios = {}
for alpha in (1.0, 2.0, 4.0, 8.0):
    applied, merged = changes(alpha)
    ratios[alpha / 4] = merged / applied
    print(f"LoKr of rank 4, alpha {alpha:g}: applied {applied:.4f}, merged {merged:.4f}, merged / applied {merged / applied:.3f}")
expected = all(abs(ratio - scale) < 1e-3 * scale for scale, ratio in ratios.items())
print("merged = scale × applied" if expected else "the behaviour has changed")
raise SystemExit(not expected)
PY
