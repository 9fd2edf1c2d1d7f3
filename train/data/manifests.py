"""Files that list the pictures of a data set: tables, kohya's fine-tuning JSON, kohya's TOML."""

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import DataError
from lorablend.adapters.wording import listed, shown
from lorablend.train.data.captions import join_captions
from lorablend.train.other_trainers import foreign_keys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - the same library, before Python 3.11

__all__ = [
    "Subset",
    "is_dataset_toml",
    "is_fine_tune",
    "read_dataset_toml",
    "read_fine_tune",
    "read_table",
    "read_text",
]

_MOST_BYTES = 256 << 20
_MOST_TOML = 1 << 20  # bytes
_MOST_DOTS = 100  # in a line of TOML: for a key of n parts its reader takes n² steps
_KINDS = {str: "text", int: "an integer", bool: "true or false"}
_FILE_COLUMNS = ("file_name", "image_file", "image", "file", "filename", "path", "image_path")
_TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description")
# The settings of kohya's data sets that determine pictures and captions (sd-scripts, library/config_util.py).
_KNOWN = {
    "image_dir",
    "num_repeats",
    "class_tokens",
    "caption_extension",
    "caption_prefix",
    "caption_suffix",
    "is_reg",
    "conditioning_data_dir",
    "alpha_mask",
    "metadata_file",
    "keep_tokens_separator",
    "secondary_separator",
    "enable_wildcard",
    "cache_info",  # about kohya's own files
}
# Its other settings, which are about the training.
_TRAINING = {
    "batch_size",
    "bucket_no_upscale",
    "bucket_reso_steps",
    "caption_dropout_every_n_epochs",
    "caption_dropout_rate",
    "caption_separator",
    "caption_tag_dropout_rate",
    "color_aug",
    "custom_attributes",
    "enable_bucket",
    "face_crop_aug_range",
    "flip_aug",
    "keep_tokens",
    "max_bucket_reso",
    "min_bucket_reso",
    "multires_training",
    "network_multiplier",
    "random_crop",
    "resize_interpolation",
    "resolution",
    "shuffle_caption",
    "skip_image_resolution",
    "token_warmup_min",
    "token_warmup_step",
    "validation_seed",
    "validation_split",
}


@dataclass(frozen=True)
class Subset:
    """A subset of a kohya TOML file, its folders as written there; image_dir or metadata_file is always given."""

    image_dir: str | None
    repeats: int
    class_tokens: str
    extension: str | None
    prefix: str
    suffix: str
    regularization: bool
    mask_dir: str | None
    alpha_mask: bool
    metadata_file: str | None
    keep_sign: str
    group_sign: str
    wildcards: bool
    tag_sign: str  # what separates the tags, where kohya would write commas in its place

    @property
    def name(self) -> str:
        return self.image_dir or self.metadata_file or ""


def read_text(path: Path, name: str) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark. Raises DataError."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{name} is larger than {_MOST_BYTES >> 20} MB, too large for captions; remove it")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror or error})") from error
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not text in UTF-8 (byte {error.start}); save it as UTF-8") from error


def read_table(path: Path, name: str) -> dict[str, tuple[str, ...]]:
    """Map file names to captions, from metadata.jsonl, metadata.csv (HF imagefolder) or caption.csv (cog-sdxl).

    Columns are recognized by name: file_name, image_file, image… and text, caption, captions, prompt…

    Raises:
        DataError: The file cannot be read, or a row is wrong.
    """
    text = read_text(path, name)
    if path.suffix.lower() == ".jsonl":
        rows = _json_lines(text, name)
        columns = list(dict.fromkeys(column for row in rows for column in row))
    else:
        columns, rows = _csv_rows(text, name)
    file_column = next((column for column in _FILE_COLUMNS if column in columns), None)
    text_column = next((column for column in _TEXT_COLUMNS if column in columns), None)
    if file_column is None or text_column is None:
        missing = "file_name" if file_column is None else "text"
        raise DataError(
            f"{name} has the columns {', '.join(map(shown, columns)) or 'none'}; name one of them {missing}"
        )
    captions: dict[str, list[str]] = {}
    for row in rows:
        file = row.get(file_column)
        if not isinstance(file, str) or not file.strip():
            raise DataError(f"{name} has a row without {file_column}: {shown(row)}")
        value = row.get(text_column)
        texts = value if isinstance(value, list) else [value]
        if any(not isinstance(text, str) for text in texts if text is not None):
            raise DataError(f"{name}: {text_column} of {shown(file)} is not text: {shown(value)}")
        stripped = [" ".join(text.split()) for text in texts if text and text.strip()]
        captions.setdefault(file.strip(), []).extend(stripped)
    return {file: tuple(texts) for file, texts in captions.items()}


def is_fine_tune(path: Path) -> bool:
    """Whether a .json file looks like kohya's fine-tuning metadata: {picture: {caption, tags}}."""
    try:
        content = json.loads(read_text(path, path.name))
    except (DataError, ValueError, RecursionError):
        return False
    return _looks_fine_tuned(content)


def read_fine_tune(path: Path, name: str) -> dict[str, tuple[str, ...]]:
    """Map file names, or their stems, to joined caption and tags, from kohya's fine-tuning JSON. Raises DataError."""
    try:
        content = json.loads(read_text(path, name))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid JSON ({error}); fix it or remove it") from error
    if not _looks_fine_tuned(content):
        _refuse_options(content, name)
        raise DataError(f'{name} is not kohya\'s fine-tuning JSON: {{"picture": {{"caption": "…", "tags": "…"}}}}')
    captions: dict[str, tuple[str, ...]] = {}
    for file, entry in content.items():
        text = join_captions(*(str(entry.get(key) or "") for key in ("caption", "tags")))
        captions[file] = (text,) if text else ()
    return captions


def _refuse_options(content: Any, name: str) -> None:
    """Refuse the settings of a training, which people give because they name the data set."""
    if isinstance(content, dict) and foreign_keys(content, ()):
        raise DataError(
            f"{name} has the settings of a training with kohya's sd-scripts; give the folder or data set file that it "
            "names, and its settings as options"
        )


def _looks_fine_tuned(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(entry, dict) for entry in content.values())
        and any({"caption", "tags"} & set(entry) for entry in content.values())
    )


def is_dataset_toml(path: Path) -> bool:
    """Whether a .toml file describes kohya data sets."""
    try:
        return "datasets" in _read_toml(path, path.name)
    except (DataError, ValueError, RecursionError):
        return False


def read_dataset_toml(path: Path, name: str) -> tuple[list[Subset], list[str]]:
    """Read the subsets of a kohya data set file, and sentences about the settings in it that are not followed.

    A subset's own setting overrides its data set's, which overrides that of [general]. Raises DataError.
    """
    try:
        content = _read_toml(path, name)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid TOML ({error}); fix it") from error
    general, datasets = content.get("general", {}), content.get("datasets")
    if not isinstance(datasets, list) or not isinstance(general, dict):
        _refuse_options(content, name)
        raise DataError(f"{name} has no [[datasets]]; give a kohya data set file, or the folder of pictures itself")
    subsets: list[Subset] = []
    others = [key for key in general if key not in _KNOWN]
    for dataset in datasets:
        parts = dataset.get("subsets") if isinstance(dataset, dict) else None
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise DataError(f"{name} has a [[datasets]] without [[datasets.subsets]]; add one with an image_dir")
        own = {key: value for key, value in dataset.items() if key != "subsets"}
        for part in parts:
            others += [key for key in (*own, *part) if key not in _KNOWN]
            subsets.append(_subset({**general, **own, **part}, name))
    training = [key for key in dict.fromkeys(others) if key in _TRAINING]
    unknown = [shown(key) for key in dict.fromkeys(others) if key not in _TRAINING]
    sentences: list[str] = []
    if training:
        sentences.append(f"{name}: {', '.join(training)} are settings of the training, not read from there")
    if unknown:
        sentences.append(f"{name}: {', '.join(unknown)} are not settings of kohya's data sets, left out")
    return subsets, sentences


def _read_toml(path: Path, name: str) -> dict[str, Any]:
    """Raises DataError, and ValueError for a file that is not TOML."""
    text = read_text(path, name)
    if len(text) > _MOST_TOML:
        raise DataError(f"{name} has {len(text):,} characters, {_MOST_TOML:,} at most are read; make it shorter")
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {_MOST_DOTS} dots")
    return tomllib.loads(text)


def _subset(settings: Mapping[str, Any], name: str) -> Subset:
    def get(key: str, kind: type, default: Any) -> Any:
        value = settings.get(key, default)
        if value is default or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
            return value
        raise DataError(f"{name}: {key} is {shown(value)}; give {_KINDS[kind]}")

    image_dir = get("image_dir", str, None)
    metadata_file = get("metadata_file", str, None)
    if not (image_dir or metadata_file):
        raise DataError(f"{name} has a subset without image_dir; add the folder of its pictures")
    repeats = get("num_repeats", int, 1)
    if repeats < 1:
        raise DataError(f"{name}: num_repeats is {repeats} for {shown(image_dir or metadata_file)}; give 1 or more")
    extension = get("caption_extension", str, None)
    if extension is not None and not re.fullmatch(r"\.*[^./\\\0][^/\\\0]{0,30}", extension):
        raise DataError(f"{name}: caption_extension is {shown(extension)}; give the end of a file name, such as .txt")
    return Subset(
        image_dir,
        repeats,
        get("class_tokens", str, ""),
        None if extension is None else f".{extension.lstrip('.')}",
        get("caption_prefix", str, ""),
        get("caption_suffix", str, ""),
        get("is_reg", bool, False),
        get("conditioning_data_dir", str, None),
        get("alpha_mask", bool, False),
        metadata_file,
        get("keep_tokens_separator", str, ""),
        get("secondary_separator", str, ""),
        get("enable_wildcard", bool, False),
        _tag_sign(settings),
    )


def _tag_sign(settings: Mapping[str, Any]) -> str:
    """kohya's `caption_separator`, which it replaces by commas in captions that it shuffles or takes tags out of."""
    numbers = (settings.get(key) for key in ("caption_tag_dropout_rate", "token_warmup_step"))
    moves = settings.get("shuffle_caption") is True or any(isinstance(n, int | float) and n > 0 for n in numbers)
    sign = settings.get("caption_separator")
    return sign if moves and isinstance(sign, str) and sign.strip() not in ("", ",") else ""


def _json_lines(text: str, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: line {number} is not valid JSON ({error}); fix it") from error
        if not isinstance(row, dict):
            raise DataError(f"{name}: line {number} is not a JSON object; fix it")
        rows.append(row)
    return rows


def _csv_rows(text: str, name: str) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """The columns, and the rows one by one: each takes a hundred times the memory of its text."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # which one a spreadsheet writes depends on its locale
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    wrong = f"{name} is not valid CSV"

    def rows() -> Iterator[dict[str, Any]]:
        extra: list[str] = []
        try:
            for row in reader:
                if None in row:  # csv's key for the rest
                    extra.append(shown(row[None]))  # pyright: ignore[reportArgumentType]
                else:
                    yield {(key or "").strip(): value for key, value in row.items()}
        except csv.Error as error:
            raise DataError(f"{wrong} ({error}); fix it") from error
        if extra:
            raise DataError(f'{name} has {listed(extra, "row")} with more values than columns; put "…" around the text')

    try:
        return [(column or "").strip() for column in reader.fieldnames or ()], rows()
    except csv.Error as error:
        raise DataError(f"{wrong} ({error}); fix it") from error
