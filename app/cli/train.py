"""`lorablend train`: an adapter from a folder of pictures."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from lorablend.app.cli.options import option

if TYPE_CHECKING:
    from lorablend.train import Progress, TrainConfig

__all__ = ["train"]

_LINES = 20  # of progress over a whole training, where there is no terminal

Data = Annotated[Path | None, typer.Argument(metavar="[DATA]", hidden=True)]
Model = Annotated[
    str | None,
    option("--model", "MODEL", "A diffusers folder, a Hugging Face id, a .safetensors checkpoint, or the word demo."),
]
Out = Annotated[
    Path | None,
    option(
        "--out",
        "FILE",
        "The .safetensors file to write; it must not be there yet. The rest goes to a folder beside it.",
    ),
]
Config = Annotated[
    Path | None,
    option("--config", "FILE", "Settings as TOML, named as the options with _ for -; options win. Default: none."),
]
Resume = Annotated[bool, option("--resume", None, "Go on from the newest checkpoint of the same --out.")]
DryRun = Annotated[bool, option("--dry-run", None, "Check all, print every setting as TOML, and train nothing.")]

Algorithm = Annotated[str | None, option("--algorithm", "NAME", "lora, dora, locon, loha or lokr. Default: lora.")]
Rank = Annotated[int | None, option("--rank", "N", "1 to 4096. Default: 16.")]
Alpha = Annotated[float | None, option("--alpha", "X", "Default: the rank for SDXL, half of it for SD 1.5.")]
TextEncoder = Annotated[
    bool | None, option("--text-encoder/--no-text-encoder", None, "Train the text encoders too. Default: no.")
]
TextEncoderLearningRate = Annotated[
    float | None, option("--text-encoder-learning-rate", "X", "With --text-encoder. Default: 1e-5.")
]
Keys = Annotated[str | None, option("--keys", "kohya|diffusers", "Names of the tensors in the file. Default: kohya.")]

Steps = Annotated[
    int | None,
    option("--steps", "N", "Default: until 1,200 pictures were seen, or each of more than 30 pictures 40 times."),
]
Batch = Annotated[int | None, option("--batch", "N", "Pictures at once. Default: as many of 4 as fit the memory.")]
Accumulation = Annotated[
    int | None, option("--accumulation", "N", "Batches to a step. Default: enough for 4 pictures; with --batch, 1.")
]
Resolution = Annotated[int | None, option("--resolution", "N", "Pixels. Default: the model's own.")]
Buckets = Annotated[
    bool | None, option("--buckets/--no-buckets", None, "Keep shapes near the pictures' own. Default: yes.")
]
Optimizer = Annotated[str | None, option("--optimizer", "adamw|prodigy", "Default: adamw.")]
LearningRate = Annotated[
    float | None,
    option("--learning-rate", "X", "Default: 1e-4, more for models narrower than SDXL; for prodigy 1."),
]
Schedule = Annotated[str | None, option("--schedule", "cosine|constant", "Of the learning rate. Default: cosine.")]
Warmup = Annotated[float | None, option("--warmup", "X", "Part of the steps. Default: 0.05.")]
WeightDecay = Annotated[float | None, option("--weight-decay", "X", "Default: 0.01.")]
MaxGradNorm = Annotated[float | None, option("--max-grad-norm", "X", "Gradients are clipped to it. Default: 1.")]
MinSnrGamma = Annotated[
    float | None, option("--min-snr-gamma", "X", "Of the loss's weights; 0: all weigh the same. Default: 5.")
]
NoiseOffset = Annotated[float | None, option("--noise-offset", "X", "0 to 1. Default: 0.")]
Ema = Annotated[float | None, option("--ema", "X", "Average the weights, with this decay. Default: no average.")]

Trigger = Annotated[
    str | None, option("--trigger", "WORD", "Put before captions that lack it. Default: what the folders' names say.")
]
Repeats = Annotated[
    int | None, option("--repeats", "N", "Of every picture per epoch. Default: what the folders' names say.")
]
CaptionDropout = Annotated[
    float | None, option("--caption-dropout", "X", "Part of the pictures shown without caption. Default: 0.05.")
]
ShuffleTags = Annotated[
    bool | None, option("--shuffle-tags/--no-shuffle-tags", None, "Tags in another order each time. Default: no.")
]
KeepTokens = Annotated[
    int | None, option("--keep-tokens", "N", "Tags that stay in front when tags are shuffled. Default: 0.")
]
Flip = Annotated[bool | None, option("--flip/--no-flip", None, "Mirror half of the pictures. Default: no.")]

ValidationFraction = Annotated[
    float | None, option("--validation-fraction", "X", "Part of the pictures held out, to measure with. Default: 0.")
]
ValidationPrompts = Annotated[
    list[str] | None,
    option("--validation-prompts", "TEXT", "Drawn as sample; once for each. Default: three captions of the data."),
]
SampleEvery = Annotated[
    int | None, option("--sample-every", "N", "Steps; 0: no samples. Default: with every checkpoint.")
]
Checkpoints = Annotated[int | None, option("--checkpoints", "N", "How many over the whole training. Default: 8.")]
Keep = Annotated[int | None, option("--keep", "N", "How many checkpoints stay on disk. Default: 3.")]
Seed = Annotated[int | None, option("--seed", "N", "0 or more; the same seed is the same training. Default: 0.")]
Precision = Annotated[
    str | None, option("--precision", "auto|f32|bf16", "auto is bf16 where the device is fast at it. Default: auto.")
]
GradientCheckpointing = Annotated[
    bool | None,
    option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        None,
        "Less memory, a third more time. Default: where nothing fits without.",
    ),
]


def train(
    context: typer.Context,
    data: Data = None,
    model: Model = None,
    out: Out = None,
    config: Config = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    algorithm: Algorithm = None,
    rank: Rank = None,
    alpha: Alpha = None,
    text_encoder: TextEncoder = None,
    text_encoder_learning_rate: TextEncoderLearningRate = None,
    keys: Keys = None,
    steps: Steps = None,
    batch: Batch = None,
    accumulation: Accumulation = None,
    resolution: Resolution = None,
    buckets: Buckets = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    schedule: Schedule = None,
    warmup: Warmup = None,
    weight_decay: WeightDecay = None,
    max_grad_norm: MaxGradNorm = None,
    min_snr_gamma: MinSnrGamma = None,
    noise_offset: NoiseOffset = None,
    ema: Ema = None,
    trigger: Trigger = None,
    repeats: Repeats = None,
    caption_dropout: CaptionDropout = None,
    shuffle_tags: ShuffleTags = None,
    keep_tokens: KeepTokens = None,
    flip: Flip = None,
    validation_fraction: ValidationFraction = None,
    validation_prompts: ValidationPrompts = None,
    sample_every: SampleEvery = None,
    checkpoints: Checkpoints = None,
    keep: Keep = None,
    seed: Seed = None,
    precision: Precision = None,
    gradient_checkpointing: GradientCheckpointing = None,
) -> None:
    """Train an adapter on pictures. Needs lorablend[train].

    DATA is a folder of pictures in any common layout, with captions in text files, file names or folder names; a .zip
    or .tar file of them; or a file that lists pictures. All is checked, and every choice told, before the model is
    loaded. Ctrl-C ends the step, writes a checkpoint and says how to go on.

    \b
    Example:
      lorablend train photos --model stabilityai/stable-diffusion-xl-base-1.0 --trigger sks --out sks.safetensors
    """
    from lorablend.adapters.errors import Cancelled
    from lorablend.train.config import TrainConfig, load_config

    fields = TrainConfig.model_fields
    said = {name: value for name, value in context.params.items() if name in fields and value not in (None, [], ())}
    settings = load_config(config, said)
    if dry_run:
        from lorablend.train.run import prepare_run

        run = prepare_run(settings, resume=resume)
        for line in run.preflight.lines:
            typer.echo(line, err=True)
        typer.echo(run.config.to_toml(defaults=True), nl=False)
        return
    from lorablend.train import train as train_adapter

    try:
        with _bar(settings) as (progress, say):
            result = train_adapter(settings, resume=resume, progress=progress, say=say)
    except Cancelled as stopped:
        _echo_once(str(stopped))
        raise typer.Exit(130) from None
    losses = "".join(f", {name} {loss:.4f}" for name, loss in result.validation.items())
    _echo_once(f"{result.steps} steps in {result.seconds:.0f} s; loss {result.loss:.4f}{losses}; see {result.folder}")
    _echo_once(result.out, err=False)


def _echo_once(text: object, *, err: bool = True) -> None:
    if _is_first():
        typer.echo(text, err=err)


def _is_first() -> bool:
    """Of the processes that `accelerate launch` starts."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _bar(config: "TrainConfig") -> Iterator[tuple[Callable[["Progress"], None], Callable[[str], None]]]:
    """Progress on stderr, a bar in a terminal, some lines elsewhere; and a way to say something above it."""
    from lorablend.app.jobs.channel import Note, TrainStep, tell

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    silent = not (console.is_terminal and _is_first())
    with Bar(*columns, console=console, disable=silent, redirect_stdout=False) as bar:
        task = bar.add_task("getting ready", total=None, state="")
        last = 0

        def progress(state: "Progress") -> None:
            nonlocal last
            bar.update(task, description=config.out.stem, completed=state.step, total=state.steps, state=_words(state))
            if _is_first():
                tell(TrainStep(step=state.step, steps=state.steps, loss=state.smoothed, eta=state.eta))
            part = state.step * _LINES // state.steps
            if not console.is_terminal and (part > last or state.step == 1):
                last = part
                _echo_once(f"step {state.step} of {state.steps}: {_words(state)}")

        def say(line: str) -> None:
            tell(Note(text=line))
            if console.is_terminal:
                bar.console.print(line, markup=False, highlight=False)
            else:
                typer.echo(line, err=True)

        yield progress, say


def _words(state: "Progress") -> str:
    left = time.strftime("%H:%M:%S", time.gmtime(state.eta)) if state.eta < 86_400 else f"{state.eta / 86_400:.1f} days"
    speed = f"{state.pictures_per_second:.3g} pictures/s"
    return f"loss {state.smoothed:.4f}, {speed}, {state.memory / 1e9:.1f} GB, {left} left"
