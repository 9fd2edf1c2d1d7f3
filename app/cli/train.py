"""`lorablend train`: train an adapter on a folder of pictures."""

import inspect
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from lorablend.adapters.errors import TrainError
from lorablend.app.cli.options import option
from lorablend.train.config import SETTINGS, load_config
from lorablend.train.other_trainers import foreign_keys, verdicts

if TYPE_CHECKING:
    from lorablend.train import Progress, TrainConfig

__all__ = ["refuse_foreign_options", "setting_option", "train"]

_LINES = 20  # of progress over a whole training, if stderr is not a terminal
_KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD
_OPTIONS_AFTER = 3  # the help begins with data, model and out

Config = Annotated[
    Path | None,
    option(
        "--config",
        "FILE",
        "TOML file of settings, named like the options with _ instead of -; options override it. Default: none.",
    ),
]
Resume = Annotated[bool, option("--resume", None, "Continue from the newest checkpoint of the same --out.")]
DryRun = Annotated[bool, option("--dry-run", None, "Check everything, print all settings as TOML, and stop.")]


def setting_option(name: str, **more: Any) -> Any:
    """The option for a setting of a training; Typer's None means that it was not given.

    Args:
        more: Passed on to `typer.Option`, such as `min`.
    """
    setting = SETTINGS[name]
    return option(setting.flag, setting.metavar, setting.text, **more)


def refuse_foreign_options(arguments: Sequence[str]) -> None:
    """Refuse the options of other trainers, all in one line: the parser of the command line would name only the first.

    Raises:
        TrainError: at least one is known.
    """
    given = [argument.partition("=")[0][2:] for argument in arguments if argument.startswith("--")]
    own = {part[2:] for setting in SETTINGS.values() for part in setting.flag.split("/")}
    own |= {"config", "dry-run", "help", "resume"}
    if others := foreign_keys(dict.fromkeys(given, True), own):
        raise TrainError(f"these are options of kohya's sd-scripts: {verdicts(others, '--')}")


def _type_of(name: str) -> Any:
    kind: Any = list[str] if SETTINGS[name].kind is tuple else SETTINGS[name].kind
    return Annotated[kind | None, setting_option(name)]


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Let Typer see a parameter for each setting in place of `**settings`."""
    own = inspect.signature(command).parameters
    types: dict[str, Any] = {name: _type_of(name) for name in SETTINGS}
    types["data"] = Annotated[Path | None, typer.Argument(metavar="[DATA]", hidden=True)]
    parameters = [inspect.Parameter(name, _KEYWORD, default=None, annotation=kind) for name, kind in types.items()]
    switches = [parameter for parameter in own.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters[_OPTIONS_AFTER:_OPTIONS_AFTER] = [parameter.replace(kind=_KEYWORD) for parameter in switches]
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


@_with_settings
def train(config: Config = None, resume: Resume = False, dry_run: DryRun = False, **settings: Any) -> None:
    """Train an adapter on pictures. Needs lorablend[train].

    DATA is a folder of pictures in any common layout, with captions in text files, file names or folder names; a .zip
    or .tar archive of one; or a file that lists pictures. Everything is checked, and every choice printed, before the
    model is loaded. Ctrl-C finishes the current step, writes a checkpoint and prints the command that resumes.

    \b
    Example:
      lorablend train photos --model stabilityai/stable-diffusion-xl-base-1.0 --trigger sks --out sks.safetensors
    """
    from lorablend.adapters.errors import Cancelled

    given = {name: value for name, value in settings.items() if value not in (None, [], ())}
    configuration = load_config(config, given)
    if dry_run:
        from lorablend.train.run import prepare_run

        run = prepare_run(configuration, resume=resume)
        for line in run.preflight.lines:
            typer.echo(line, err=True)
        typer.echo(run.config.to_toml(defaults=True), nl=False)
        return
    from lorablend.train import train as train_adapter

    try:
        with _bar(configuration) as (progress, say):
            result = train_adapter(configuration, resume=resume, progress=progress, say=say)
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
    """Whether this is the first of the processes that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _bar(config: "TrainConfig") -> Iterator[tuple[Callable[["Progress"], None], Callable[[str], None]]]:
    """Show progress on stderr: a bar in a terminal, a few lines elsewhere; yield functions for progress and notes."""
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
