"""Recognize the layout of a data set: its pictures, their repeats, captions and masks.

Nothing is left out silently: `DataSet.layout` says what was recognized, `notes` what else is worth knowing, and
`problems` what has to be fixed before training.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from lorablend.adapters.errors import DataError
from lorablend.adapters.wording import listed, shown
from lorablend.train.data.archives import ARCHIVES, unpack
from lorablend.train.data.captions import has_word, needs_trigger, read_captions, words_of_name
from lorablend.train.data.draft import (
    MASK,
    SIDECARS,
    DataSetDraft,
    FoundPicture,
    all_of,
    counted,
    is_picture,
    mask_of,
    name_of,
    read_sidecar,
    walk,
)
from lorablend.train.data.examples import Example
from lorablend.train.data.folder_names import nearest_words, read_folder_names
from lorablend.train.data.listings import is_listing, read_tables, read_toml
from lorablend.train.data.manifests import is_dataset_toml, read_text
from lorablend.train.data.pictures import MOST_PIXELS, SUFFIXES, Measured, measure_all

__all__ = ["UNDERSTOOD", "DataSet", "find_examples"]

UNDERSTOOD = (
    "supported are pictures with .txt or .caption files next to them, <repeats>_<trigger> <class> folders, "
    "<trigger>_<class> folders, kohya's .toml and .json files, metadata.jsonl or .csv, and .zip or .tar files of these"
)
_UNREADABLE = {".heic", ".heif", ".jxl", ".psd", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}
_NO_CAPTIONS = {"readme", "license", "licence", "copying", "notes", "requirements"}  # text files with another purpose
_CHUNK = 1 << 20  # bytes
_ASPECT_ERROR = 0.02  # relative difference between the aspect ratios of a mask and its picture

CaptionFrom = Literal["files", "folders"]


@dataclass(frozen=True)
class DataSet:
    """A data set that was read to its end.

    Attributes:
        layout: What was recognized, in one sentence.
        trigger: The words that call the subject or style up in a prompt.
        problems: What has to be fixed before training.
        notes: What is worth reading, but stops nothing.
        root: The folder that the names in problems and notes are relative to.
    """

    examples: tuple[Example, ...]
    layout: str
    trigger: str | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    root: Path

    def name(self, path: Path) -> str:
        """The file's path relative to the root, for messages."""
        return name_of(path, self.root)


def find_examples(
    data: Path,
    *,
    trigger: str | None = None,
    repeats: int | None = None,
    caption_from: CaptionFrom | None = None,
    most_pixels: int = MOST_PIXELS,
) -> DataSet:
    """Read a data set, and decode every picture in it.

    Args:
        data: A folder, an archive, or a file that lists pictures (.toml, .json, .jsonl, .csv).
        trigger: Overrides every other trigger word, except for regularization pictures, which never have one.
        repeats: Overrides the repeats of every picture.
        caption_from: Which names caption pictures without text; None decides by how much the names say.
        most_pixels: A picture that has more is a problem.

    Raises:
        DataError: There are no pictures, or a file that lists them is damaged.
    """
    draft, files, manifest = _open(data)
    if manifest and manifest.suffix.lower() == ".toml":
        read_toml(draft, manifest, files)
    else:
        _read_tree(draft, files, manifest, own_name=data.is_dir())
    if not draft.pictures and not draft.problems:
        raise DataError(_nothing(data, files))
    _name_captions(draft, caption_from)
    _apply(draft, trigger, repeats)
    examples = _measure(draft, most_pixels)
    _check_triggers(draft, examples)
    _note_duplicates(draft, examples)
    triggers = list(dict.fromkeys(example.trigger for example in examples if example.trigger))
    return DataSet(
        examples,
        _sentence(draft, len(examples)),
        ", ".join(triggers) or None,
        tuple(draft.problems),
        tuple(draft.notes),
        draft.root,
    )


def _open(data: Path) -> tuple[DataSetDraft, list[Path], Path | None]:
    """Start a draft; list all files that are not hidden, and find the file that lists the pictures, if any."""
    if not data.exists():
        raise DataError(f"{shown(data)} does not exist; give a folder of pictures")
    if data.is_dir():
        files = walk(data)
        return DataSetDraft(data), files, _only_toml(data, files)
    lower = data.name.lower()
    if lower.endswith(ARCHIVES):
        folder = unpack(data)
        files = walk(folder)
        draft = DataSetDraft(folder, kinds=[f"archive {shown(data.name)}"])
        return draft, files, _only_toml(folder, files)
    if lower.endswith((".toml", ".json", ".jsonl", ".csv")):
        root = data.absolute().parent
        return DataSetDraft(root, may_leave=True), walk(root), data.absolute()
    kind = "a picture" if data.suffix.lower() in SUFFIXES else "neither a folder nor a list of pictures"
    raise DataError(f"{shown(data)} is {kind}; give the folder of the pictures; {UNDERSTOOD}")


def _only_toml(root: Path, files: Sequence[Path]) -> Path | None:
    tomls = [file for file in files if file.parent == root and file.suffix.lower() == ".toml" and is_dataset_toml(file)]
    if len(tomls) > 1:
        names = ", ".join(shown(file.name) for file in tomls)
        raise DataError(f"{shown(root)} has {len(tomls)} data set files: {names}; give the one to use")
    return tomls[0] if tomls else None


def _nothing(data: Path, files: Sequence[Path]) -> str:
    kinds = Counter(file.suffix.lower() or "files without a suffix" for file in files)
    present = ", ".join(f"{count} {shown(kind)}" for kind, count in kinds.most_common(6)) or "nothing"
    return f"{shown(data)}: no pictures, {present} found; {UNDERSTOOD}"


def _read_tree(draft: DataSetDraft, files: Sequence[Path], manifest: Path | None, *, own_name: bool) -> None:
    paths = [file for file in files if is_picture(file)]
    tables = read_tables(draft, files, paths, manifest)
    if manifest:
        unlisted = [name_of(path, draft.root) for path in paths if path not in tables]
        if unlisted:
            draft.notes.append(f"{listed(unlisted, 'picture')} not in {manifest.name}, left out")
        paths = list(tables)
    draft.problems += [
        f"{name_of(file, draft.root)} has an unsupported format; save it as PNG or JPEG"
        for file in files
        if file.suffix.lower() in _UNREADABLE and not manifest
    ]
    for path in paths:
        picture = FoundPicture(path, name_of(path, draft.root), mask=mask_of(path))
        read_sidecar(draft, picture, SIDECARS)
        if path in tables:
            captions, source = tables[path]
            if picture.captions and captions and picture.captions != captions:
                draft.notes.append(f"{picture.name}: its caption file differs from {source}; {source} is used")
            if captions:
                picture.captions, picture.written = captions, source
        draft.pictures.append(picture)
    read_folder_names(draft, own_name=own_name and not manifest)
    if not manifest:
        shared = _read_shared(draft, files)
        _note_others(draft, [file for file in files if file != shared])


def _read_shared(draft: DataSetDraft, files: Sequence[Path]) -> Path | None:
    """Read OneTrainer's single text file for all pictures, and return it.

    It is the only text file, has several lines, and no picture has a caption from elsewhere.
    """
    texts = [file for file in files if file.suffix.lower() == ".txt" and file.stem.lower() not in _NO_CAPTIONS]
    if len(texts) != 1 or any(picture.captions or picture.folder_caption for picture in draft.pictures):
        return None
    (file,) = texts
    name = name_of(file, draft.root)
    try:
        captions = read_captions(read_text(file, name))
    except DataError:
        return None
    if len(captions) < 2 or not all(picture.path.is_relative_to(file.parent) for picture in draft.pictures):
        return None
    for picture in draft.pictures:
        picture.captions, picture.written = captions, name
    draft.notes.append(f"{name} is the only text file: each of its {len(captions)} lines captions every picture")
    return file


def _name_captions(draft: DataSetDraft, caption_from: CaptionFrom | None) -> None:
    """Caption pictures without text by names."""
    bare = [picture for picture in draft.pictures if not picture.captions]
    files = {picture.path: words_of_name(picture.path.stem) for picture in bare}
    plain = [picture for picture in bare if not picture.folder_caption]
    if caption_from is None and len(plain) == len(draft.pictures):
        telling = sum(" " in files[picture.path] for picture in plain)
        caption_from = "files" if telling >= 0.8 * max(1, len(plain)) else "folders"
        folders = {picture.path: nearest_words(picture, draft.root) for picture in plain}
    else:
        # If some pictures have captions, names caption the others only on request.
        folders = {picture.path: nearest_words(picture, draft.root) if caption_from else "" for picture in plain}
    for picture in bare:
        by_folder = picture.folder_caption or folders.get(picture.path, "")
        text = files[picture.path] if caption_from == "files" else by_folder
        if text:
            picture.captions = (text,)
            picture.written = "file names" if caption_from == "files" else "folder names"


def _apply(draft: DataSetDraft, trigger: str | None, repeats: int | None) -> None:
    """Let the user's own trigger and repeats override those of the folders."""
    own = {picture.trigger for picture in draft.pictures if picture.trigger and picture.trigger != trigger}
    if trigger is not None:
        if own:
            draft.notes.append(f"the trigger is {shown(trigger)} as requested, not {', '.join(sorted(own))}")
        for picture in draft.pictures:
            picture.trigger = None if picture.regularization else trigger
    if repeats is not None:
        others = sorted({picture.repeats for picture in draft.pictures} - {1, repeats})
        if others:
            draft.notes.append(
                f"{counted(repeats, 'repeat')} of every picture as requested, not {', '.join(map(str, others))}"
            )
        for picture in draft.pictures:
            picture.repeats = repeats
    bare = [picture.name for picture in draft.pictures if not picture.captions]
    if bare:
        draft.notes.append(f"{all_of(bare, 'picture')} without a caption")
    several = sum(len(picture.captions) > 1 for picture in draft.pictures)
    if several:
        draft.notes.append(f"{counted(several, 'picture')} with several caption lines, which are alternatives")
    regularization = sum(picture.regularization for picture in draft.pictures)
    if regularization:
        draft.notes.append(
            f"{counted(regularization, 'regularization picture')}, trained on like the others, but without a trigger"
        )


def _measure(draft: DataSetDraft, most_pixels: int) -> tuple[Example, ...]:
    """Decode every picture and mask; a sound picture becomes an example, a damaged file a problem."""
    paths = {picture.path: picture.name for picture in draft.pictures}
    masks = {p.mask: name_of(p.mask, draft.root) for p in draft.pictures if p.mask and p.mask != p.path}
    measured = dict(zip([*paths, *masks], measure_all([*paths.items(), *masks.items()], most_pixels), strict=True))
    draft.problems += [str(result) for result in measured.values() if isinstance(result, DataError)]
    examples: list[Example] = []
    transparent = 0
    for picture in draft.pictures:
        result = measured[picture.path]
        if not isinstance(result, Measured):
            continue
        if picture.mask == picture.path and not result.alpha:
            picture.mask = None
        if picture.mask and picture.mask != picture.path:
            mask = measured[picture.mask]
            if isinstance(mask, Measured) and not _same_shape(mask.size, result.size):
                draft.problems.append(
                    f"{name_of(picture.mask, draft.root)} is {mask.size[0]}×{mask.size[1]}, its picture "
                    f"{result.size[0]}×{result.size[1]}; give both the same shape"
                )
        transparent += result.alpha and picture.mask != picture.path
        examples.append(
            Example(
                picture.path,
                picture.captions,
                picture.repeats,
                result.size,
                picture.mask,
                picture.trigger,
                picture.regularization,
            )
        )
    if transparent:
        draft.notes.append(f"{counted(transparent, 'picture')} with transparent parts, placed on white")
    return tuple(examples)


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) <= _ASPECT_ERROR


def _check_triggers(draft: DataSetDraft, examples: Sequence[Example]) -> None:
    bare = [
        name_of(example.path, draft.root)
        for example in examples
        if example.trigger is None and any(map(needs_trigger, example.captions))
    ]
    if bare:
        draft.problems.append(f"[trigger] occurs in {listed(bare, 'caption')}, but there is no trigger word; give one")
    lacking: Counter[str] = Counter(
        example.trigger
        for example in examples
        if example.trigger
        and any(not has_word(text, example.trigger) and not needs_trigger(text) for text in example.captions)
    )
    for word, count in lacking.items():
        draft.notes.append(f"{shown(word)} is put in front of the captions of {counted(count, 'picture')} that lack it")


def _note_duplicates(draft: DataSetDraft, examples: Sequence[Example]) -> None:
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(example.path for example in examples):
        by_size[path.stat().st_size].append(path)
    first: dict[bytes, Path] = {}
    pairs: list[str] = []
    for path in (path for paths in by_size.values() if len(paths) > 1 for path in paths):
        original = first.setdefault(_digest(path), path)
        if original != path:
            pairs.append(f"{name_of(path, draft.root)} is {name_of(original, draft.root)}")
    if pairs:
        draft.notes.append(f"{all_of(pairs, 'picture')}, byte for byte")


def _digest(path: Path) -> bytes:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _note_others(draft: DataSetDraft, files: Sequence[Path]) -> None:
    """Note the files that are neither pictures nor belong to one."""
    stems = {
        (picture.path.parent, name) for picture in draft.pictures for name in (picture.path.stem, picture.path.name)
    }
    orphans = [file for file in files if file.suffix.lower() in SIDECARS and (file.parent, file.stem) not in stems]
    masks = [
        file
        for file in files
        if file.stem.endswith(MASK)
        and file.suffix.lower() in SUFFIXES
        and (file.parent, file.stem.removesuffix(MASK)) not in stems
    ]
    for lone, what in ((orphans, "text file"), (masks, "mask")):
        if lone:
            draft.notes.append(f"{listed([name_of(file, draft.root) for file in lone], what)} without a picture")
    parquet = [name_of(file, draft.root) for file in files if file.suffix.lower() == ".parquet"]
    if parquet and not all(picture.captions for picture in draft.pictures):
        draft.problems.append(
            f"{listed(parquet, 'parquet file')} is not supported; write the captions to metadata.jsonl next to the "
            'pictures, one line {"file_name": "a.png", "text": "…"} for each, and move the parquet file elsewhere'
        )
    known = SUFFIXES | _UNREADABLE | {*SIDECARS}
    others = [file for file in files if file.suffix.lower() not in known and not is_listing(file, draft.root)]
    if others:
        names = [name_of(file, draft.root) for file in others]
        draft.notes.append(f"{listed(names, 'other file')} not read")


def _sentence(draft: DataSetDraft, examples: int) -> str:
    kinds = draft.kinds or [
        "a folder of pictures" if all(p.path.parent == draft.root for p in draft.pictures) else "a tree of folders"
    ]
    sources = Counter(picture.written for picture in draft.pictures if picture.captions)
    captions = ", ".join(f"{count} from {shown(source)}" for source, count in sources.most_common()) or "none"
    masks = sum(picture.mask is not None for picture in draft.pictures)
    tail = f"; {counted(masks, 'mask')}" if masks else ""
    return f"{' and '.join(kinds)}; {counted(examples, 'picture')}; captions: {captions}{tail}"
