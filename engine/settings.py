"""Every setting of a picture, declared once: what it does, its default, its range, and what each face calls it.

`Pipeline.generate` takes the settings as keywords. Orders (jobs), the command line, the page, the REST bodies, grids
and the texts inside pictures are built from the declarations here, so a new setting is one field of `Settings`, one
keyword of `generate`, and the code that acts on it.

This module is imported for `lorablend --help`: it must load neither OpenVINO nor Pillow.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from lorablend.adapters.errors import RequestError
from lorablend.adapters.forms import did_you_mean
from lorablend.adapters.wording import shown
from lorablend.engine.prompt.weights import RULES
from lorablend.engine.schedulers import SCHEDULERS, SPACINGS

__all__ = ["BATCH", "FACES", "SETTINGS", "Setting", "Settings"]

FACES = ("order", "command line", "page", "infotext", "record", "grid", "sdapi", "openai")
"""Where a setting appears besides `Pipeline.generate`; the keys of `Setting.absent`."""

_MOST_PICTURES = 64  # in one batch
_LONGEST_TEXT = 20_000  # characters
_LARGEST_SEED = 2**63 - 1 - _MOST_PICTURES  # the last picture's seed still fits SQLite's integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """What the program knows about one setting. Its annotation in `Settings` tells name, kind, optional and neutral.

    Attributes:
        help: What it does, in one or two sentences that begin with a capital and end with a period.
        name: The keyword of `Pipeline.generate`.
        kind: int, float, str, or tuple for several numbers.
        optional: None is allowed, and means the default.
        default: The value that is used where none is given; None if it depends on the model or on other settings.
        default_text: That default in words.
        neutral: The value of a `Settings` that does not mention the setting.
        unit: "pixels", for example.
        low, high: The range; None is no limit.
        excludes_low: low itself is out of range.
        multiple: Whole numbers must be a multiple of this.
        longest: Orders refuse longer texts; characters.
        choices: The values it may have, with their labels on the page.
        slider: (lowest, highest, step) of the slider on the page, which grows for values beyond it.
        placeholder: An example, shown in an empty text box on the page.
        order: The field of an order (`Draw`), where it is not the name.
        flag: The option of the command line.
        label: The label of its box on the page.
        words: The value in a caption, such as "{} steps".
        infotext: The key in A1111's text inside a picture. Settings that share a key are written as "1024x768".
        in_every_infotext: Written even where it is neutral; None is never written.
        sdapi, sdapi_default: The field of A1111's REST bodies, and A1111's own default.
        openai: The field of OpenAI's REST bodies, where it is not the name.
        sweep: Example values of a grid's axis; "" for a setting that a grid cannot sweep.
        needs: The input without which it means nothing, such as "image".
        absent: Why a face does not have it, by the face's name, see `FACES`.
    """

    help: str
    name: str = ""
    kind: type = str
    optional: bool = False
    default: Any = None
    default_text: str = ""
    neutral: Any = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    excludes_low: bool = False
    multiple: int = 1
    longest: int | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    slider: tuple[float, float, float] | None = None
    placeholder: str = ""
    order: str = ""
    flag: str = ""
    label: str = ""
    words: str = ""
    infotext: str = ""
    in_every_infotext: bool = False
    sdapi: str = ""
    sdapi_default: Any = None
    openai: str = ""
    sweep: str = ""
    needs: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def axis(self) -> str:
        """The name of a grid's axis: that of the option."""
        return self.flag.removeprefix("--")

    @property
    def range(self) -> str:
        """The values it may have, in words: "1 to 1000"; "" for text."""
        if self.choices:
            *others, last = self.choices
            return f"one of {', '.join(others)} or {last}"
        if self.low is None:
            return ""
        if self.multiple > 1:
            return f"a multiple of {self.multiple} from {self.low} to {self.high}"
        if self.excludes_low:
            return f"a number above {self.low}, at most {self.high}"
        return f"a number of {self.low} or more" if self.high is None else f"{self.low} to {self.high}"

    @property
    def summary(self) -> str:
        """The help with the range and the default, for the command line and the REST schema."""
        values = f"{self.low} or more" if self.high is not None and self.high > 10**9 else self.range
        if self.unit:
            values = f"in {self.unit}, {values}"
        default = self.default_text or self.text(self.default)
        sentences = [f"{values[:1].upper()}{values[1:]}."] if values else []
        return " ".join([self.help, *sentences, *([f"Default: {default}."] if default else [])])

    def is_worth_telling(self, value: Any) -> bool:
        """Whether captions and texts mention the value."""
        return value is not None and (self.in_every_infotext or value != self.neutral)

    def phrase(self, value: Any) -> str:
        """The setting with a value, for captions: "20 steps", "guidance 5"."""
        return (self.words or f"{self.axis or self.name} {{}}").format(self.choices.get(value, self.text(value)))

    def text(self, value: Any) -> str:
        """The value as text: 5 for 5.0; numbers with commas between them. None is ""."""
        if isinstance(value, tuple):
            return ", ".join(f"{number:.12g}" for number in value)
        return "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)

    def checked(self, value: Any) -> Any:
        """The value as one of Python's own, whatever number it came as. Raises RequestError if it is not allowed."""
        if value is None and self.optional:
            return None
        if self.kind is tuple:
            return _checked_numbers(self.name, value)
        return self._checked_text(value) if self.kind is str else self._checked_number(value)

    def _checked_number(self, value: Any) -> float:
        is_number = isinstance(value, Real if self.kind is float else Integral) and not isinstance(value, bool)
        if not is_number:
            wanted = "a whole number" if self.kind is int else self.range or "a number"
            raise RequestError(f"{self.name} is {shown(repr(value))}; give {wanted}")
        number = _converted(value, self.kind)
        low, high = self.low, self.high
        is_low = low is not None and (number <= low if self.excludes_low else number < low)
        is_between = self.multiple > 1 and number % self.multiple != 0
        if is_low or is_between or (high is not None and number > high) or not _is_finite(number):
            nearest = f", such as {self._nearest(number)}" if self.multiple > 1 else ""
            raise RequestError(f"{self.name} is {shown(value)}; give {self.range or 'a number'}{nearest}")
        return number

    def _checked_text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise RequestError(f"{self.name} is {shown(repr(value))}; give text")
        if self.choices and value not in self.choices:
            raise RequestError(f'{self.name} is "{shown(value)}"; {did_you_mean(value, self.choices)}')
        try:
            value.encode()
        except UnicodeEncodeError as error:
            place = error.start + 1
            raise RequestError(f"{self.name} has a broken character at place {place}; give text in UTF-8") from error
        return value

    def _nearest(self, number: float) -> int:
        low, high = self.low or 0, self.high or math.inf
        return round(min(max(number, low), high) / self.multiple) * self.multiple  # clamped: ints can exceed all floats

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """The JSON schema of a pydantic field that is annotated with this. pydantic itself does not check the range."""
        facts = {
            "description": self.summary,
            "exclusiveMinimum" if self.excludes_low else "minimum": self.low,
            "maximum": self.high,
            "multipleOf": self.multiple if self.multiple > 1 else None,
        }
        return handler(core_schema) | {key: value for key, value in facts.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one picture. None leaves a setting to the model, or to the default that its declaration names.

    Their order is that of the command line's options and of the settings in a picture's text.

    Raises:
        RequestError: a value is not allowed.
    """

    prompt: Annotated[
        str,
        Setting(
            help="What the picture shows. Tags such as <lora:ink:0.8> add adapters.",
            longest=_LONGEST_TEXT,
            label="Prompt",
            sdapi="prompt",
            absent={"command line": "it is the argument PROMPT", "grid": "words of it are swept: prompt=fox|wolf"},
        ),
    ]
    negative_prompt: Annotated[
        str | None,
        Setting(
            help="What to keep out. Without effect at a guidance of 1 or less.",
            default_text="none",
            longest=_LONGEST_TEXT,
            label="Negative prompt",
            flag="--negative",
            sdapi="negative_prompt",
            absent={"grid": "words of it are swept along with the prompt's: prompt=fox|wolf"},
        ),
    ] = None
    steps: Annotated[
        int | None,
        Setting(
            help="Denoising steps.",
            default=20,
            low=1,
            high=1000,
            slider=(1, 100, 1),
            flag="--steps",
            label="Steps",
            words="{} steps",
            infotext="Steps",
            in_every_infotext=True,
            sdapi="steps",
            sdapi_default=50,
            openai="num_inference_steps",
            sweep="4,8,20",
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        Setting(
            help="How noise becomes a picture, step by step.",
            default_text="the model's own",
            choices={name: info.label for name, info in SCHEDULERS.items()},
            flag="--scheduler",
            label="Scheduler",
            words="{}",
            infotext="Sampler",
            in_every_infotext=True,
            sdapi="sampler_name",
            sweep="euler,dpmpp_2m",
        ),
    ] = None
    spacing: Annotated[
        str | None,
        Setting(
            help="How the noise levels are spread over the steps.",
            default_text="the model's own",
            choices={name: name for name in SPACINGS},
            flag="--spacing",
            label="Spacing of noise levels",
            words="{} spacing",
            infotext="Schedule type",
            in_every_infotext=True,
            sdapi="scheduler",
            absent={"grid": "few schedulers take every spacing"},
        ),
    ] = None
    timesteps: Annotated[
        tuple[float, ...] | None,
        Setting(
            help="What the model is told in each step, falling, in place of steps and spacing.",
            default_text="none",
            placeholder="999, 749, 499, 249",
            flag="--timesteps",
            label="Timesteps, in place of steps and spacing",
            infotext="Timesteps",
            in_every_infotext=True,
            absent={"sdapi": "A1111 has no such field", "grid": "the commas of one value would be those of the axis"},
        ),
    ] = None
    guidance_scale: Annotated[
        float,
        Setting(
            help="How closely to follow the prompt. 1 or less is not at all, and twice as fast.",
            low=0,
            slider=(0, 20, 0.1),
            flag="--guidance",
            label="Guidance",
            infotext="CFG scale",
            in_every_infotext=True,
            sdapi="cfg_scale",
            sdapi_default=7.0,
            sweep="2,5,8",
        ),
    ] = 5.0
    seed: Annotated[
        int | None,
        Setting(
            help="The noise to start from. The same seed draws the same picture; each further one has the next seed.",
            default_text="drawn by chance",
            low=0,
            high=_LARGEST_SEED,
            placeholder="empty: a new one each time",
            flag="--seed",
            label="Seed",
            infotext="Seed",
            in_every_infotext=True,
            sdapi="seed",
            sweep="1..4",
        ),
    ] = None
    width: Annotated[
        int | None,
        Setting(
            help="Width of the picture.",
            default_text="the model's own, or the input picture's",
            unit="pixels",
            low=64,
            high=4096,
            multiple=8,
            slider=(64, 2048, 8),
            flag="--size",
            label="Width (pixels)",
            infotext="Size",
            in_every_infotext=True,
            sdapi="width",
            absent={"grid": "the pictures of a sheet have one size"},
        ),
    ] = None
    height: Annotated[
        int | None,
        Setting(
            help="Height of the picture.",
            default_text="the model's own, or the input picture's",
            unit="pixels",
            low=64,
            high=4096,
            multiple=8,
            slider=(64, 2048, 8),
            flag="--size",
            label="Height (pixels)",
            infotext="Size",
            in_every_infotext=True,
            sdapi="height",
            absent={"grid": "the pictures of a sheet have one size"},
        ),
    ] = None
    strength: Annotated[
        float | None,
        Setting(
            help="How much of the input picture to change: near 0 hardly anything, at 1 everything.",
            default=0.65,
            low=0,
            high=1,
            excludes_low=True,
            slider=(0.05, 1, 0.05),
            flag="--strength",
            label="Strength (1: nothing is kept)",
            infotext="Denoising strength",
            sdapi="denoising_strength",
            sdapi_default=0.75,
            sweep="0.3,0.6,0.9",
            needs="image",
            absent={"infotext": "written, but not read back: the input picture is not in the file"},
        ),
    ] = None
    prompt_rule: Annotated[
        str,
        Setting(
            help="Whose rule reads the weights of words in the prompts, such as (red:1.3).",
            choices=RULES,
            flag="--prompt-rule",
            label="Weights of words",
            words="words weighted as in {}",
            infotext="Prompt rule",
            sweep="a1111,comfy",
            absent={"sdapi": "its clients mean A1111's rule"},
        ),
    ] = "a1111"

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            if hasattr(self, name):  # a batch has only a `Request`
                object.__setattr__(self, name, setting.checked(getattr(self, name)))


BATCH = Setting(
    name="batch",
    kind=int,
    help="How many pictures to draw, with the seeds from the first one on.",
    default=1,
    low=1,
    high=_MOST_PICTURES,
    slider=(1, _MOST_PICTURES, 1),
    order="count",
    label="Pictures",
    sdapi="batch_size",
    openai="n",
    absent={
        "command line": "--count saves each picture when it is done, and has no such limit",
        "infotext": "a text is about one picture",
        "grid": "each cell of a sheet is one picture",
    },
)
"""Not a setting of a picture, but declared like one."""


def _declared() -> Iterable[Setting]:
    """The declarations, completed from their annotations: in place, for pydantic reads the annotations too."""
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        value_type, setting = get_args(hint)
        types = get_args(value_type) if isinstance(value_type, UnionType) else (value_type,)
        neutral = getattr(Settings, name, None)
        facts = {
            "name": name,
            "kind": get_origin(types[0]) or types[0],
            "optional": type(None) in types,
            "default": setting.default if neutral is None else neutral,
            "neutral": neutral,
            "order": name,
            "openai": setting.openai or name,
        }
        for fact, value in facts.items():
            object.__setattr__(setting, fact, value)
        yield setting
    yield BATCH


SETTINGS: Mapping[str, Setting] = MappingProxyType({setting.name: setting for setting in _declared()})
"""All of them by name, in the order of `Settings`, then the batch."""


def _checked_numbers(name: str, value: Any) -> tuple[float, ...]:
    """Whole numbers as int, so that records show what was typed."""
    numbers = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, Real) or not _is_finite(number):
            raise RequestError(f"{name} has {shown(number)}; give numbers")
    if not numbers:
        raise RequestError(f"{name} is empty; give at least one number")
    return tuple(int(number) if number == int(number) else float(number) for number in numbers)


def _is_finite(number: Any) -> bool:
    return isinstance(number, Integral) or math.isfinite(number)


def _converted(value: Any, kind: type) -> float:
    try:
        return kind(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf
