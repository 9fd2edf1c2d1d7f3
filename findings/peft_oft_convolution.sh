#!/bin/sh
# PEFT: OFT on a 3×3 convolution gives one result while it is applied and another one after merge_and_unload. Applied, it
# turns each patch of the input and folds the patches back by summing where they overlap, and only then convolves; merged,
# it turns the weight. No 3×3 weight can give what the first form computes. On a linear layer the two agree.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 torch==2.14.1 transformers==5.5.4
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

import peft
import torch


def apart(layer: torch.nn.Module, given: torch.Tensor) -> float:
    """How far the outputs with OFT applied and with OFT merged are apart, as a part of what OFT changes."""
    net = torch.nn.Sequential(layer)
    with torch.no_grad():
        bare = net(given)
        model = peft.get_peft_model(net, peft.OFTConfig(target_modules=["0"], oft_block_size=4, r=0))
        for name, parameter in model.named_parameters():
            if "oft_R" in name:
                torch.nn.init.normal_(parameter, 0, 0.2)
        model.eval()
        applied = model(given)
        merged = model.merge_and_unload()(given)
    return ((applied - merged).norm() / (applied - bare).norm()).item()


torch.manual_seed(0)
print("peft", version("peft"), "torch", version("torch"))
linear = apart(torch.nn.Linear(16, 16), torch.randn(2, 16))
small = apart(torch.nn.Conv2d(16, 16, 1), torch.randn(2, 16, 8, 8))
large = apart(torch.nn.Conv2d(16, 16, 3, padding=1), torch.randn(2, 16, 8, 8))
print(f"linear: applied and merged differ by {linear:.1e} of the change")
print(f"1×1 convolution: {small:.1e}")
print(f"3×3 convolution: {large:.2f}")
expected = linear < 1e-3 and small < 1e-3 and large > 0.1
print("only 3×3 convolutions differ" if expected else "the behaviour has changed")
raise SystemExit(not expected)
PY
