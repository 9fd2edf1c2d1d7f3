"""What a training does: one frozen value, from a TOML file, from flags, or from both."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

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

__all__ = ["TrainConfig", "load_config"]


class TrainConfig(BaseModel):
    """Settings of one training. None is "as fits this model, these pictures and this memory", see `plan.make_plan`.

    Raises TrainError, one line, for a key that is not here and for a value out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=False)

    data: Path = Field(description="folder of pictures, in any layout that `layouts.find_examples` knows")
    model: str = Field(description="diffusers folder, Hugging Face id, .safetensors checkpoint, or demo")
    out: Path = Field(description=".safetensors file to write; checkpoints go to a folder beside it")

    algorithm: Literal["lora", "dora", "locon", "loha", "lokr"] = "lora"
    rank: int = Field(16, ge=1, le=4096)
    alpha: float | None = Field(None, gt=0, description="None: the rank for SDXL, half of it for SD 1.5")
    text_encoder: bool = Field(False, description="train the text encoders too")
    text_encoder_learning_rate: float = Field(1e-5, gt=0)
    keys: Literal["kohya", "diffusers"] = Field("kohya", description="naming of the tensors in the file")

    steps: int | None = Field(None, ge=1, description="steps of the optimizer")
    batch: int | None = Field(None, ge=1, description="pictures at once, on each device")
    accumulation: int | None = Field(None, ge=1, description="batches per step of the optimizer")
    resolution: int | None = Field(None, ge=64, multiple_of=8, description="pixels; None: the model's own")
    buckets: bool = Field(True, description="keep shapes near the pictures' own; False: all square")

    optimizer: Literal["adamw", "prodigy"] = "adamw"
    learning_rate: float | None = Field(
        None, gt=0, description="None: 1e-4 for SDXL; for prodigy a factor of its own estimate, usually 1"
    )
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="part of the steps")
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    min_snr_gamma: float | None = Field(5.0, gt=0, description="None, or 0: every timestep weighs the same")
    noise_offset: float = Field(0.0, ge=0, le=1)
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the averaged weights; None: no average")

    trigger: str | None = Field(None, description="word put before captions that lack it")
    repeats: int | None = Field(None, ge=1, description="of each picture per pass; None: what the folders say")
    caption_dropout: float = Field(0.05, ge=0, le=1, description="part of the pictures shown without their caption")
    shuffle_tags: bool = False
    keep_tokens: int = Field(0, ge=0, description="tags that stay in front when tags are shuffled")
    flip: bool = Field(False, description="mirror every other picture, by chance")

    validation_fraction: float = Field(0.0, ge=0, le=0.5, description="part of the pictures held out of training")
    validation_prompts: tuple[str, ...] = Field((), description="drawn as samples; () takes captions of the data")
    sample_every: int | None = Field(None, ge=0, description="steps; 0: never; None: with every checkpoint")
    checkpoints: int = Field(8, ge=1, description="how many over the run, the last step's included")
    keep: int = Field(3, ge=1, description="how many of them stay on disk")

    seed: int = Field(0, ge=0, lt=2**63)
    precision: Literal["auto", "f32", "bf16"] = "auto"
    gradient_checkpointing: bool | None = Field(None, description="less memory, a third more time")

    @model_validator(mode="wrap")
    @classmethod
    def _one_line_errors(cls, data: Any, handler: ModelWrapValidatorHandler[TrainConfig]) -> TrainConfig:
        if isinstance(data, Mapping) and data.get("optimizer") == "prodigy":
            data = {"learning_rate": 1.0, **data}
            data.setdefault("text_encoder_learning_rate", data["learning_rate"])
        # pydantic lets an exception that is no ValueError through as it is
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
        return None if value == 0 else value  # TOML and flags have no word for None

    @property
    def folder(self) -> Path:
        """Beside `out`: checkpoints, samples and logs."""
        return self.out.with_suffix(".training")

    def to_toml(self, *, defaults: bool = False) -> str:
        """The settings, as `load_config` reads them; paths absolute. defaults: those that are as usual, too."""
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
            # what JSON writes of strings, numbers, booleans and lists of strings is TOML too
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines) + "\n"


def load_config(path: Path | None, overrides: Mapping[str, Any]) -> TrainConfig:
    """The settings of a TOML file, over which those of `overrides` go; paths in the file are seen from its folder.

    Raises TrainError.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        settings = _read_toml(path)
        for name in ("data", "out"):
            if isinstance(settings.get(name), str):
                settings[name] = path.parent / Path(settings[name]).expanduser()
        model = settings.get("model")
        if isinstance(model, str) and model != "demo" and (path.parent / model).exists():
            settings["model"] = str(path.parent / model)
    return TrainConfig.model_validate({**settings, **overrides})


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports] - the same library, before Python 3.11

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError(f"{path}: {(error.strerror or str(error)).lower()}; give a TOML file of settings") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainError(f"{path} is not readable as TOML: {error}") from error


def _describe(error: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0)
        return f"{name} is not a setting of a training; the nearest is {near[0]}"
    if error["type"] == "missing":
        return f"{name} is missing; give it as a flag or in the TOML file"
    reason = error["msg"]
    return f"{name} is {error['input']!r}: {reason[:1].lower()}{reason[1:]}"
