"""The options of the command line: type, name, unit, range and meaning of each, once for all commands.

Arguments are described in the text of their command: Typer before 0.26 with Click from 8.5 on loses an argument's help.
"""

from pathlib import Path
from typing import Annotated, Any

import typer


def _argument(name: str) -> Any:
    return typer.Argument(metavar=name, hidden=True)


def _option(flag: str, metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, **more)


Model = Annotated[str, _argument("MODEL")]
Prompt = Annotated[str, _argument("PROMPT")]
Source = Annotated[str, _argument("SOURCE")]
NewFolder = Annotated[Path, _argument("OUT")]
AdapterFile = Annotated[Path, _argument("FILE")]

Weights = Annotated[str, _option("--weights", "fp16|int8|fp32", "What the files hold: 2, 1 or 4 bytes per weight.")]
Config = Annotated[
    Path | None,
    _option(
        "--config",
        "DIR",
        "For a checkpoint: the diffusers folder with its configurations and tokenizers. "
        "Default: the base model's, from the Hub.",
    ),
]

Lora = Annotated[
    list[str] | None,
    _option(
        "--lora",
        "FILE[:WEIGHT]",
        "Adapter file, or its name in --lora-dir; the weight is any number, 1 if left out. Or a whole tag, such as "
        "<lora:ink:0.8:lbw=OUTALL:step=3-10>. Once for each adapter.",
    ),
]
Blend = Annotated[
    Path | None,
    _option("--blend", "FILE", "Blend as JSON, as the pictures keep it; adds to --lora and the prompt. Default: none."),
]
BlendMode = Annotated[
    str | None,
    _option(
        "--blend-mode",
        "sum|switch|composite",
        "All adapters at once; one in turn, step by step; or the average of what the model says with each. "
        "Default: what --blend or the prompt says, else sum.",
    ),
]
MaxRank = Annotated[
    int | None,
    _option("--max-rank", "N", "Recompress the blend to at most this rank in each module. Default: exact, no limit."),
]
Lenient = Annotated[
    bool,
    _option("--lenient", None, "Use what is understood of an adapter file; leave out, with a warning, what is not."),
]
LoraDir = Annotated[
    Path | None,
    _option(
        "--lora-dir",
        "DIR",
        'Folder where adapters are found by name. Default: the library of "lorablend adapters", $LORABLEND_ADAPTERS or '
        "else a folder of your own data, if it is there; for the model demo, its own.",
    ),
]
Negative = Annotated[
    str | None,
    _option("--negative", "TEXT", "What to keep out; without effect at a guidance of 1 or less. Default: none."),
]
Size = Annotated[
    str | None,
    _option("--size", "WxH", "Pixels, each a multiple of 8 from 64 to 4096. Default: the model's own, or --image's."),
]
Preset = Annotated[
    str | None,
    _option(
        "--preset",
        "NAME",
        "Steps, guidance, scheduler and spacing as the authors of an adapter for few steps say: lcm, tcd, hyper-1, "
        "hyper-2, hyper-4, hyper-8, lightning-2, lightning-4, lightning-8, dmd2, turbo; or quality, for none. "
        "Adds no adapter; options of your own win. Default: none.",
    ),
]
Steps = Annotated[int | None, _option("--steps", "N", "Denoising steps, 1 to 1000. Default: 20.")]
Guidance = Annotated[
    float | None,
    _option(
        "--guidance",
        "X",
        "How closely to follow the prompt, 0 or more; 1 or less is not at all, and twice as fast. Default: 5.",
    ),
]
Seed = Annotated[
    int | None,
    _option("--seed", "N", "Of the first picture, 0 or more; the next one has N + 1. Default: drawn by chance."),
]
Scheduler = Annotated[
    str | None,
    _option(
        "--scheduler",
        "NAME",
        "euler, euler_a, dpmpp_2m, dpmpp_2m_sde, unipc, ddim, lcm or tcd. Default: the model's own.",
    ),
]
Spacing = Annotated[
    str | None,
    _option(
        "--spacing",
        "NAME",
        "Of the noise levels: leading, trailing, linspace, karras or exponential. Default: the model's own.",
    ),
]
Timesteps = Annotated[
    str | None,
    _option(
        "--timesteps",
        "N,N,…",
        "What the model is told in each step, falling, such as 999,749,499,249; in place of --steps and --spacing. "
        "Default: none.",
    ),
]
Count = Annotated[int, _option("--count", "N", "Pictures, 1 to 10000; each is saved as soon as it is done.")]
Image = Annotated[
    Path | None, _option("--image", "FILE", "Picture to start from, scaled to the size. Default: none, only noise.")
]
Strength = Annotated[
    float | None,
    _option(
        "--strength",
        "X",
        "With --image: how much to change it, above 0 (hardly) to 1 (all). Default: 0.65.",
    ),
]
Mask = Annotated[
    Path | None,
    _option("--mask", "FILE", "With --image: what is white is drawn anew, what is black stays. Default: all anew."),
]
Out = Annotated[
    Path, _option("--out", "DIR", "Folder for the pictures; made if it is not there. Nothing in it is ever replaced.")
]

Device = Annotated[str, _option("--device", "NAME", 'What computes, as "lorablend devices" lists it.')]
Runtime = Annotated[
    str,
    _option(
        "--runtime",
        "auto|live|genai",
        "live changes adapters without recompiling, on the CPU; genai bakes them into a cached copy of the model, on "
        "any device; auto is live on the CPU.",
    ),
]
Precision = Annotated[
    str | None,
    _option("--precision", "f32|f16|bf16", "What the device computes in. Default: the device's own choice."),
]
AsJson = Annotated[bool, _option("--json", None, "Print all there is to know as JSON, module names included.")]
Host = Annotated[
    str,
    _option("--host", "ADDRESS", "Where to listen; 0.0.0.0 lets in everybody on the network, with no password."),
]
Port = Annotated[
    int | None, _option("--port", "N", "1 to 65535. Default: the first free one from 7860 on.", min=1, max=65535)
]
