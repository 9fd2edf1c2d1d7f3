"""The settings of a training, each declared once; the command line, the page and REST read `SETTINGS`."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from lorablend.adapters.errors import TrainError
from lorablend.train.other_trainers import foreign_keys, verdicts
from lorablend.train.settings import Face, settings_of

__all__ = ["SETTINGS", "TrainConfig", "load_config"]

_RARE = "rarely changed: set over REST, by a flag or in a TOML file"


class TrainConfig(BaseModel):
    """Settings of one training.

    None stands for a value that fits the model, the pictures and the memory; `plan.make_plan` chooses it.

    Raises:
        TrainError: A key is unknown, or a value is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=False)

    data: Annotated[Path, Face(no_order="the server trains on the data set that the request names")] = Field(
        description="Folder of pictures in any common layout, a .zip or .tar archive, or a file that lists pictures."
    )
    model: Annotated[str, Face(label="Base model", metavar="MODEL")] = Field(
        description="Base model: a diffusers folder, a Hugging Face id, a .safetensors checkpoint, or the word demo."
    )
    out: Annotated[Path, Face(metavar="FILE", no_order="the server derives it from the adapter's name")] = Field(
        description="The .safetensors file to write; it must not exist yet. Checkpoints, samples and the log go to a "
        "folder next to it."
    )

    algorithm: Annotated[Literal["lora", "dora", "locon", "loha", "lokr"], Face(label="Algorithm")] = Field(
        "lora", description="Kind of the adapter."
    )
    rank: Annotated[int, Face(label="Rank")] = Field(16, ge=1, le=4096, description="Rank of the adapter's factors.")
    alpha: Annotated[float | None, Face(label="Alpha", unset="the rank for SDXL, half of it for SD 1.5")] = Field(
        None, gt=0, description="Alpha of the adapter; alpha / rank scales its change."
    )
    text_encoder: Annotated[bool, Face(label="Train the text encoders too")] = Field(
        False, description="Train the text encoders as well as the UNet."
    )
    text_encoder_learning_rate: Annotated[float, Face(no_page=_RARE)] = Field(
        1e-5, gt=0, description="Learning rate of the text encoders, if they are trained."
    )
    keys: Annotated[Literal["kohya", "diffusers"], Face(label="Names in the file")] = Field(
        "kohya", description="Naming of the tensors in the file."
    )

    steps: Annotated[
        int | None,
        Face(label="Steps", unset="enough to show 1,200 pictures, or each of more than 30 pictures 40 times"),
    ] = Field(None, ge=1, description="Number of optimizer steps.")
    batch: Annotated[int | None, Face(label="Pictures at once", unset="up to 4, as many as fit in memory")] = Field(
        None, ge=1, description="Pictures per batch, on each device."
    )
    accumulation: Annotated[
        int | None, Face(unset="enough for 4 pictures per step; 1 if the batch is given", no_page=_RARE)
    ] = Field(None, ge=1, description="Batches per optimizer step.")
    resolution: Annotated[int | None, Face(label="Resolution (pixels)", unset="the model's own", unit="pixels")] = (
        Field(None, ge=64, multiple_of=8, description="Side of a square with the area that pictures are scaled to.")
    )
    buckets: Annotated[bool, Face(no_page=_RARE)] = Field(
        True, description="Keep shapes close to the pictures' own; otherwise crop all to squares."
    )

    optimizer: Annotated[Literal["adamw", "prodigy"], Face(label="Optimizer")] = Field(
        "adamw", description="Optimizer; prodigy estimates the learning rate itself and needs the package prodigyopt."
    )
    learning_rate: Annotated[
        float | None,
        Face(label="Learning rate", unset="1e-4 for SDXL, more for narrower models; 1 for prodigy"),
    ] = Field(None, gt=0, description="Learning rate; for prodigy a factor of its own estimate.")
    schedule: Annotated[Literal["cosine", "constant"], Face(label="Learning rate over time")] = Field(
        "cosine", description="Course of the learning rate after the warmup."
    )
    warmup: Annotated[float, Face(no_page=_RARE)] = Field(
        0.05, ge=0, lt=1, description="Fraction of the steps over which the learning rate rises from 0."
    )
    weight_decay: Annotated[float, Face(no_page=_RARE)] = Field(0.01, ge=0, description="Weight decay.")
    max_grad_norm: Annotated[float, Face(no_page=_RARE)] = Field(
        1.0, gt=0, description="Norm that gradients are clipped to."
    )
    min_snr_gamma: Annotated[float | None, Face(unset="0", no_page=_RARE)] = Field(
        5.0, ge=0, description="Gamma of the loss's Min-SNR weights; with 0 every timestep weighs the same."
    )
    noise_offset: Annotated[float, Face(label="Noise offset")] = Field(
        0.0,
        ge=0,
        le=1,
        description="Strength of a random constant added to each channel's noise, so that brightness is learned.",
    )
    ema: Annotated[float | None, Face(label="Average the weights (such as 0.99)", unset="no average")] = Field(
        None, gt=0, lt=1, description="Decay of a moving average of the weights, which is then what is saved."
    )

    trigger: Annotated[
        str | None, Face(label="Trigger word", unset="taken from the folders' names", metavar="WORD")
    ] = Field(None, max_length=1000, description="Word put in front of captions that lack it.")
    repeats: Annotated[int | None, Face(unset="taken from the folders' names", no_page=_RARE)] = Field(
        None, ge=1, description="How often each picture is shown per epoch."
    )
    caption_dropout: Annotated[float, Face(label="Part shown without caption")] = Field(
        0.05, ge=0, le=1, description="Fraction of the pictures shown without their caption."
    )
    shuffle_tags: Annotated[bool, Face(no_page=_RARE)] = Field(
        False, description="Put a caption's tags in a different order each time."
    )
    keep_tokens: Annotated[int, Face(no_page=_RARE)] = Field(
        0, ge=0, description="Number of tags that stay in front when tags are shuffled."
    )
    flip: Annotated[bool, Face(label="Mirror half of the pictures")] = Field(
        False, description="Mirror half of the pictures, chosen at random each time."
    )

    validation_fraction: Annotated[float, Face(label="Part held out to measure")] = Field(
        0.0, ge=0, le=0.5, description="Fraction of the pictures held out of training, to measure the loss with."
    )
    validation_prompts: Annotated[
        tuple[str, ...],
        Face(
            unset="three captions of the data",
            no_order="samples on the server show captions of the data set, which the page lets people edit",
        ),
    ] = Field((), description="Prompt to draw as a sample; may be given several times.")
    sample_every: Annotated[
        int | None,
        Face(label="Samples every … steps (0: never)", unset="with every checkpoint", unit="steps"),
    ] = Field(None, ge=0, description="Interval at which samples are drawn; 0 draws none.")
    checkpoints: Annotated[int, Face(label="Checkpoints")] = Field(
        8, ge=1, description="Number of checkpoints over the whole training, including the last step's."
    )
    keep: Annotated[int, Face(no_page=_RARE)] = Field(3, ge=1, description="Number of checkpoints that stay on disk.")

    seed: Annotated[int, Face(label="Seed")] = Field(
        0, ge=0, lt=2**63, description="Seed; the same seed repeats the same training."
    )
    precision: Annotated[Literal["auto", "f32", "bf16"], Face(no_page=_RARE)] = Field(
        "auto", description="Number format of the base model; auto takes bf16 where the device is fast at it."
    )
    gradient_checkpointing: Annotated[
        bool | None, Face(unset="only if nothing fits in memory without it", no_page=_RARE)
    ] = Field(None, description="Save memory by computing activations twice, which takes a third more time.")

    @model_validator(mode="wrap")
    @classmethod
    def _one_line_errors(cls, data: Any, handler: ModelWrapValidatorHandler[TrainConfig]) -> TrainConfig:
        if isinstance(data, Mapping) and data.get("optimizer") == "prodigy":
            data = {"learning_rate": 1.0, **data}
            data.setdefault("text_encoder_learning_rate", data["learning_rate"])
        # pydantic passes on an exception that is not a ValueError unchanged
        try:
            config = handler(data)
        except ValidationError as error:
            raise TrainError(_describe(error.errors()[0], cls.model_fields)) from error
        if config.out.suffix != ".safetensors":
            raise TrainError(f"out is {str(config.out)!r}; give a name that ends in .safetensors")
        rates = config.text_encoder_learning_rate, config.learning_rate
        if config.optimizer == "prodigy" and config.text_encoder and rates[0] != rates[1]:
            raise TrainError(
                f"text_encoder_learning_rate is {rates[0]}, learning_rate {rates[1]}; prodigy takes one for both"
            )
        return config

    @field_validator("min_snr_gamma", mode="before")
    @classmethod
    def _zero_is_none(cls, value: Any) -> Any:
        return None if value == 0 else value  # neither TOML nor a flag can express None

    @property
    def folder(self) -> Path:
        """The folder of checkpoints, samples and logs, next to `out`."""
        return self.out.with_suffix(".training")

    def to_toml(self, *, defaults: bool = False) -> str:
        """Write the settings as `load_config` reads them, with absolute paths; with `defaults`, also unchanged ones."""
        lines = []
        for name, value in self.model_dump(exclude_defaults=not defaults).items():
            if value is None and type(self).model_fields[name].default is None:
                continue
            if value is None:
                value = 0
            elif isinstance(value, Path):
                value = str(value.absolute())
            elif isinstance(value, tuple):
                value = list(value)
            elif name == "model" and value != "demo" and Path(value).exists():
                value = str(Path(value).absolute())
            # JSON's form of strings, numbers, booleans and lists of strings is valid TOML
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines) + "\n"


SETTINGS = settings_of(TrainConfig)


def load_config(path: Path | None, overrides: Mapping[str, Any]) -> TrainConfig:
    """Read settings from a TOML file, whose paths are relative to its own folder.

    Args:
        overrides: Settings that win over those of the file.

    Raises:
        TrainError: The file cannot be read, a key is unknown, or a value is out of range.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        settings = _read_toml(path)
        _refuse_foreign(path, settings)
        for name in ("data", "out"):
            if isinstance(settings.get(name), str):
                settings[name] = path.parent / Path(settings[name]).expanduser()
        model = settings.get("model")
        if isinstance(model, str) and model != "demo" and (path.parent / model).exists():
            settings["model"] = str(path.parent / model)
    return TrainConfig.model_validate({**settings, **overrides})


def _refuse_foreign(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a file of another trainer, with a verdict on each of its settings that lorablend does not have."""
    if isinstance(settings.get("datasets"), list):
        raise TrainError(f"{path} is a data set file of kohya's sd-scripts; give it as DATA")
    if others := foreign_keys(settings, SETTINGS):
        raise TrainError(f"{path} has settings of kohya's sd-scripts: {verdicts(others)}")


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports] - the same library, before Python 3.11

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            _refuse_json(path, text)
        return tomllib.loads(text)
    except OSError as error:
        raise TrainError(f"{path}: {(error.strerror or str(error)).lower()}; give a TOML file of settings") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainError(f"{path} is not readable as TOML: {error}") from error


def _refuse_json(path: Path, text: str) -> None:
    """Refuse a file of kohya's GUI, which is JSON."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(settings, dict):
        _refuse_foreign(path, settings)


def _describe(error: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and foreign_keys({name: True}, fields):
        return f"not a setting of a training: {verdicts([name])}"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0)
        return f"{name} is not a setting of a training; the nearest is {near[0]}"
    if error["type"] == "missing":
        return f"{name} is missing; give it as a flag or in the TOML file"
    reason = error["msg"]
    return f"{name} is {error['input']!r}: {reason[:1].lower()}{reason[1:]}"
