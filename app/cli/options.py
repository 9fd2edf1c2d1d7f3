"""The options of the command line: type, name, unit, range and help of each, shared by all commands.

The options for settings of a picture are built from `lorablend.engine.settings`. Arguments are described in the text of
their command, because Typer before 0.26 with Click from 8.5 on loses an argument's help.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lorablend.app.cli.seeds import MAX_COUNT
from lorablend.engine.presets import PRESETS
from lorablend.engine.settings import SETTINGS, Setting

_SIZE = SETTINGS["width"].flag  # one option for width and height


def argument(name: str) -> Any:
    """An argument; the command's text explains it."""
    return typer.Argument(metavar=name, hidden=True)


def option(flag: str, metavar: str | None, text: str, **more: Any) -> Any:
    """An option; without a metavar it is a switch."""
    return typer.Option(flag, metavar=metavar, help=text, **more)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the `**settings` of a command by one option for each setting, after --preset.

    The command gets those that were not given as None; see `lorablend.app.cli.arguments.settings_of`.
    """
    signature = inspect.signature(command)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))  # as Typer calls it
        if parameter.name == "preset":
            parameters += _setting_parameters()
    command.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return command


def _setting_parameters() -> Iterator[inspect.Parameter]:
    for setting in SETTINGS.values():
        if "command line" in setting.absent or setting.name == "height":
            continue
        name, kind = setting.name, str if setting.kind is tuple else setting.kind
        metavar, help_text = _metavar(setting), setting.summary
        if setting.flag == _SIZE:
            name, kind, metavar = "size", str, "WxH"
            help_text = f"Width and height of the picture{setting.summary.removeprefix('Width of the picture')}"
        annotation = Annotated[kind | None, option(setting.flag, metavar, help_text)]
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _metavar(setting: Setting) -> str:
    names = {int: "N", float: "X", tuple: "N,N,…"}
    return names.get(setting.kind, "NAME" if setting.choices else "TEXT")


Model = Annotated[str, argument("MODEL")]
AnyModel = Annotated[str | None, argument("MODEL")]
Prompt = Annotated[str, argument("PROMPT")]
Source = Annotated[str, argument("SOURCE")]
NewFolder = Annotated[Path, argument("OUT")]
AdapterFile = Annotated[Path, argument("FILE")]

Weights = Annotated[str, option("--weights", "fp16|int8|fp32", "Number format of the weights: 2, 1 or 4 bytes each.")]
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
        "<lora:ink:0.8:lbw=OUTALL:step=3-10>. Repeat it for more adapters.",
    ),
]
Blend = Annotated[
    Path | None,
    option("--blend", "FILE", "Blend as JSON, as stored in pictures; adds to --lora and the prompt. Default: none."),
]
BlendMode = Annotated[
    str | None,
    option(
        "--blend-mode",
        "sum|switch|composite",
        "All adapters at once; one after the other, step by step; or the average of the model's outputs with each. "
        "Default: the mode in --blend or the prompt, else sum.",
    ),
]
MaxRank = Annotated[
    int | None,
    option("--max-rank", "N", "Recompress the blend to at most this rank in each module. Default: exact, no limit."),
]
Lenient = Annotated[
    bool,
    option("--lenient", None, "Use adapters with tensors that are not understood, without those tensors; warns."),
]
LoraDir = Annotated[
    Path | None,
    option(
        "--lora-dir",
        "DIR",
        'Folder where adapters are found by name. Default: the library of "lorablend adapters" if it exists, which is '
        "$LORABLEND_ADAPTERS or a folder of your own data; for the model demo, its own adapters.",
    ),
]
Preset = Annotated[
    str | None,
    option(
        "--preset",
        "NAME",
        "Steps, guidance, scheduler and spacing that the authors of an adapter for few steps recommend; quality is for "
        f"no such adapter. {', '.join(PRESETS)}. Adds no adapter; your own options win. Default: none.",
    ),
]
Count = Annotated[int, option("--count", "N", f"Pictures, 1 to {MAX_COUNT}; each is saved as soon as it is done.")]
Image = Annotated[
    Path | None, option("--image", "FILE", "Picture to start from, scaled to the size. Default: none, only noise.")
]
Mask = Annotated[
    Path | None,
    option("--mask", "FILE", "With --image: white parts are repainted, black parts stay. Default: all is repainted."),
]
Out = Annotated[
    Path, option("--out", "DIR", "Folder for the pictures, created if needed. No file in it is ever replaced.")
]

Device = Annotated[str, option("--device", "NAME", 'The device that computes, as "lorablend devices" lists it.')]
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
    option("--precision", "f32|f16|bf16", "Number format of the computation. Default: the device's own choice."),
]
AsJson = Annotated[bool, option("--json", None, "Print everything as JSON, module names included.")]
AsDocument = Annotated[
    bool, option("--json", None, "Print one JSON document instead, for programs; messages stay on stderr.")
]
Host = Annotated[
    str | None,
    option(
        "--host",
        "ADDRESS",
        "Address to listen on. Any but this machine's own needs --token or --users. Default: 127.0.0.1.",
    ),
]
Port = Annotated[
    int | None, option("--port", "N", "1 to 65535. Default: the first free one from 7860 on.", min=1, max=65535)
]
ServedModel = Annotated[
    str | None, option("--model", "MODEL", "Folder of the model, or the word demo; the same as MODEL.")
]
Listen = Annotated[bool, option("--listen", None, "Accept connections from the network. Needs --token or --users.")]
Token = Annotated[
    str | None,
    option(
        "--token",
        "TEXT",
        "Every client must send it: as a bearer token, as the password, or once as ?token=. Default: "
        "$LORABLEND_TOKEN, else none is required.",
        envvar="LORABLEND_TOKEN",
        show_envvar=False,
    ),
]
Users = Annotated[
    Path | None,
    option(
        "--users",
        "FILE",
        'Users who may log in: one name:salt:hash per line, as "python -m lorablend.app.auth NAME" writes it. '
        "Default: no login is required.",
    ),
]
Data = Annotated[
    Path | None,
    option(
        "--data", "DIR", "Folder for pictures, queue and uploads. Default: $LORABLEND_DATA, else one of your own data."
    ),
]
History = Annotated[
    int,
    option(
        "--history",
        "N",
        "How many jobs that have ended are kept, 100 or more; older ones are forgotten. No picture is ever deleted.",
        min=100,
    ),
]
Offline = Annotated[bool, option("--offline", None, "Never connect to another machine.")]
