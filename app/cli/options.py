"""The options of the command line: type, name, unit, range and meaning of each, once for all commands.

Arguments are described in the text of their command: Typer before 0.26 with Click from 8.5 on loses an argument's help.
"""

from pathlib import Path
from typing import Annotated, Any

import typer


def argument(name: str) -> Any:
    """An argument, whose help is in its command's text."""
    return typer.Argument(metavar=name, hidden=True)


def option(flag: str, metavar: str | None, text: str, **more: Any) -> Any:
    """An option; metavar None is a switch."""
    return typer.Option(flag, metavar=metavar, help=text, **more)


Model = Annotated[str, argument("MODEL")]
AnyModel = Annotated[str | None, argument("MODEL")]
Prompt = Annotated[str, argument("PROMPT")]
Source = Annotated[str, argument("SOURCE")]
NewFolder = Annotated[Path, argument("OUT")]
AdapterFile = Annotated[Path, argument("FILE")]

Weights = Annotated[str, option("--weights", "fp16|int8|fp32", "What the files hold: 2, 1 or 4 bytes per weight.")]
Config = Annotated[
    Path | None,
    option(
        "--config",
        "DIR",
        "For a checkpoint: the diffusers folder with its configurations and tokenizers. "
        "Default: the base model's, from the Hub.",
    ),
]

Lora = Annotated[
    list[str] | None,
    option(
        "--lora",
        "FILE[:WEIGHT]",
        "Adapter file, or its name in --lora-dir; the weight is any number, 1 if left out. Or a whole tag, such as "
        "<lora:ink:0.8:lbw=OUTALL:step=3-10>. Once for each adapter.",
    ),
]
Blend = Annotated[
    Path | None,
    option("--blend", "FILE", "Blend as JSON, as the pictures keep it; adds to --lora and the prompt. Default: none."),
]
BlendMode = Annotated[
    str | None,
    option(
        "--blend-mode",
        "sum|switch|composite",
        "All adapters at once; one in turn, step by step; or the average of what the model says with each. "
        "Default: what --blend or the prompt says, else sum.",
    ),
]
MaxRank = Annotated[
    int | None,
    option("--max-rank", "N", "Recompress the blend to at most this rank in each module. Default: exact, no limit."),
]
Lenient = Annotated[
    bool,
    option("--lenient", None, "Use what is understood of an adapter file; leave out, with a warning, what is not."),
]
LoraDir = Annotated[
    Path | None,
    option(
        "--lora-dir",
        "DIR",
        'Folder where adapters are found by name. Default: the library of "lorablend adapters", $LORABLEND_ADAPTERS or '
        "else a folder of your own data, if it is there; for the model demo, its own.",
    ),
]
Negative = Annotated[
    str | None,
    option("--negative", "TEXT", "What to keep out; without effect at a guidance of 1 or less. Default: none."),
]
Size = Annotated[
    str | None,
    option("--size", "WxH", "Pixels, each a multiple of 8 from 64 to 4096. Default: the model's own, or --image's."),
]
Preset = Annotated[
    str | None,
    option(
        "--preset",
        "NAME",
        "Steps, guidance, scheduler and spacing as the authors of an adapter for few steps say: lcm, tcd, hyper-1, "
        "hyper-2, hyper-4, hyper-8, lightning-2, lightning-4, lightning-8, dmd2, turbo; or quality, for none. "
        "Adds no adapter; options of your own win. Default: none.",
    ),
]
Steps = Annotated[int | None, option("--steps", "N", "Denoising steps, 1 to 1000. Default: 20.")]
Guidance = Annotated[
    float | None,
    option(
        "--guidance",
        "X",
        "How closely to follow the prompt, 0 or more; 1 or less is not at all, and twice as fast. Default: 5.",
    ),
]
Seed = Annotated[
    int | None,
    option("--seed", "N", "Of the first picture, 0 or more; the next one has N + 1. Default: drawn by chance."),
]
Scheduler = Annotated[
    str | None,
    option(
        "--scheduler",
        "NAME",
        "euler, euler_a, dpmpp_2m, dpmpp_2m_sde, unipc, ddim, lcm or tcd. Default: the model's own.",
    ),
]
Spacing = Annotated[
    str | None,
    option(
        "--spacing",
        "NAME",
        "Of the noise levels: leading, trailing, linspace, karras or exponential. Default: the model's own.",
    ),
]
Timesteps = Annotated[
    str | None,
    option(
        "--timesteps",
        "N,N,…",
        "What the model is told in each step, falling, such as 999,749,499,249; in place of --steps and --spacing. "
        "Default: none.",
    ),
]
Count = Annotated[int, option("--count", "N", "Pictures, 1 to 10000; each is saved as soon as it is done.")]
Image = Annotated[
    Path | None, option("--image", "FILE", "Picture to start from, scaled to the size. Default: none, only noise.")
]
Strength = Annotated[
    float | None,
    option(
        "--strength",
        "X",
        "With --image: how much to change it, above 0 (hardly) to 1 (all). Default: 0.65.",
    ),
]
Mask = Annotated[
    Path | None,
    option("--mask", "FILE", "With --image: what is white is drawn anew, what is black stays. Default: all anew."),
]
Out = Annotated[
    Path, option("--out", "DIR", "Folder for the pictures; made if it is not there. Nothing in it is ever replaced.")
]

Device = Annotated[str, option("--device", "NAME", 'What computes, as "lorablend devices" lists it.')]
Runtime = Annotated[
    str,
    option(
        "--runtime",
        "auto|live|genai",
        "live changes adapters without recompiling, on the CPU; genai bakes them into a cached copy of the model, on "
        "any device; auto is live on the CPU.",
    ),
]
Precision = Annotated[
    str | None,
    option("--precision", "f32|f16|bf16", "What the device computes in. Default: the device's own choice."),
]
AsJson = Annotated[bool, option("--json", None, "Print all there is to know as JSON, module names included.")]
Host = Annotated[
    str | None,
    option(
        "--host",
        "ADDRESS",
        "Where to listen. Any but this machine's own needs --token or --users. Default: 127.0.0.1.",
    ),
]
Port = Annotated[
    int | None, option("--port", "N", "1 to 65535. Default: the first free one from 7860 on.", min=1, max=65535)
]
ServedModel = Annotated[
    str | None, option("--model", "MODEL", "Folder of the model, or the word demo; the same as MODEL alone.")
]
Listen = Annotated[bool, option("--listen", None, "Let in the network: --host 0.0.0.0. Needs --token or --users.")]
Token = Annotated[
    str | None,
    option(
        "--token",
        "TEXT",
        "What everybody has to send: as a bearer's token, as the password, or as ?token= once. Default: "
        "$LORABLEND_TOKEN, else none is asked for.",
        envvar="LORABLEND_TOKEN",
        show_envvar=False,
    ),
]
Users = Annotated[
    Path | None,
    option(
        "--users",
        "FILE",
        'Who is let in: one name:salt:hash in each line, as "python -m lorablend.app.auth NAME" writes it. '
        "Default: none is asked for.",
    ),
]
Data = Annotated[
    Path | None,
    option(
        "--data", "DIR", "Folder for pictures, queue and uploads. Default: $LORABLEND_DATA, else one of your own data."
    ),
]
Offline = Annotated[bool, option("--offline", None, "Call no other machine, whatever is asked for.")]
