#!/bin/sh
# OpenVINO GenAI: with timestep_spacing "trailing", some numbers of steps give one step more than was asked for, at timestep
# -1, after the picture is done; it spoils the picture. The timesteps are counted down from 1000 by 1000 / steps in single
# precision while more than 0 is left, and for 12 steps a rounding error is left. diffusers takes 12. 10 steps are right.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optimum-intel==2.2.0 openvino==2026.4.1 openvino-genai==2026.4.1.0 \
    "openvino-tokenizers[transformers]==2026.4.1.0" diffusers==0.39.0 transformers==5.5.4 torch==2.14.1 accelerate
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json
from importlib.metadata import version
from pathlib import Path

import diffusers
import openvino_genai
import torch
from optimum.exporters.openvino import main_export
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

torch.manual_seed(0)
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)
text = CLIPTextConfig(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                      num_attention_heads=4, bos_token_id=512, eos_token_id=513, pad_token_id=513)
unet = diffusers.UNet2DConditionModel(
    sample_size=8, block_out_channels=(32, 32), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    norm_num_groups=8)
vae = diffusers.AutoencoderKL(block_out_channels=(16,) * 4, latent_channels=4, norm_num_groups=8, sample_size=64,
                              down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
scheduler = diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                             timestep_spacing="trailing")
diffusers.StableDiffusionPipeline(
    vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
    safety_checker=None, feature_extractor=None, requires_safety_checker=False).save_pretrained("model")
main_export("model", Path("ir"), task="text-to-image", convert_tokenizer=True)
assert json.loads(Path("ir/scheduler/scheduler_config.json").read_text())["timestep_spacing"] == "trailing"

print("openvino-genai", version("openvino-genai"), "diffusers", version("diffusers"))
pipeline = openvino_genai.Text2ImagePipeline("ir", "CPU")
taken = {}
for steps in (10, 12):
    done: list[int] = []

    def callback(step: int, count: int, latent: object) -> bool:
        done.append(step)
        return False

    pipeline.generate("a", num_inference_steps=steps, width=64, height=64, callback=callback)
    scheduler.set_timesteps(steps)
    taken[steps] = len(done), len(scheduler.timesteps)
    print(f"{steps} steps: GenAI takes {taken[steps][0]}, diffusers {taken[steps][1]}")
raise SystemExit(taken != {10: (10, 10), 12: (13, 12)})
PY
