"""Files that list pictures: kohya's TOML, which names folders, and tables and JSON with a caption per picture."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from lorablend.adapters.errors import DataError
from lorablend.adapters.wording import listed, shown
from lorablend.train.data.captions import VARIANTS
from lorablend.train.data.draft import (
    SIDECARS,
    DataSetDraft,
    FoundPicture,
    counted,
    is_picture,
    mask_of,
    may_read,
    name_of,
    read_sidecar,
    walk,
)
from lorablend.train.data.folder_names import kohya_name
from lorablend.train.data.manifests import Subset, is_fine_tune, read_dataset_toml, read_fine_tune, read_table
from lorablend.train.data.tag_order import expanded, ordered

__all__ = ["is_listing", "read_tables", "read_toml"]


def read_toml(draft: DataSetDraft, manifest: Path, files: Sequence[Path]) -> None:
    subsets, left_out = read_dataset_toml(manifest, manifest.name)
    draft.kinds.append(f"kohya's {shown(manifest.name)} with {counted(len(subsets), 'subset')}")
    draft.notes += left_out
    used: set[Path] = set()
    deeper: list[Path] = []
    for subset in subsets:
        listing = _file(draft, subset.metadata_file, manifest) if subset.metadata_file else None
        folder = (
            listing.parent if listing and not subset.image_dir else _folder(draft, subset.image_dir or "", manifest)
        )
        masks = walk(_folder(draft, subset.mask_dir, manifest)) if subset.mask_dir else []
        used |= {file.resolve() for file in masks}
        below = [file for file in walk(folder) if is_picture(file) and file not in masks]
        table: Mapping[Path, tuple[str, ...]] = {}
        if listing:  # as in kohya, the list alone decides which pictures belong to the subset
            entries = read_fine_tune(listing, listing.name)
            table = _match(draft, entries, folder, below, listing.name)
            inside = list(table)
            if subset.image_dir and (unlisted := [file for file in below if file not in table]):
                names = [name_of(file, draft.root) for file in unlisted]
                draft.notes.append(f"{listed(names, 'picture')} not in {listing.name}, left out")
                used |= {file.resolve() for file in unlisted}
        else:
            inside = [file for file in below if file.parent == folder]
            deeper += [file for file in below if file.parent != folder]
        if not inside:
            draft.problems.append(f"{manifest.name}: {shown(subset.name)} has no pictures")
        used |= {file.resolve() for file in inside}
        named = kohya_name(folder.name) if subset.image_dir else None
        if named and named[0] != subset.repeats:
            draft.notes.append(
                f"{folder.name} says {counted(named[0], 'repeat')} in its name, {manifest.name} says {subset.repeats}, "
                "which is used"
            )
        draft.pictures += _subset_pictures(draft, subset, inside, table, masks, manifest)
    too_deep = [name_of(file, draft.root) for file in dict.fromkeys(deeper) if file.resolve() not in used]
    if too_deep:
        draft.notes.append(
            f"{listed(too_deep, 'picture')} in subfolders of those of {manifest.name}, which kohya ignores, left out"
        )
        used |= {file.resolve() for file in deeper}
    outside = [file for file in files if is_picture(file) and file.resolve() not in used]
    if outside:
        names = [name_of(file, draft.root) for file in outside]
        draft.notes.append(f"{listed(names, 'picture')} not in any folder of {manifest.name}, left out")


def _subset_pictures(
    draft: DataSetDraft,
    subset: Subset,
    inside: Sequence[Path],
    table: Mapping[Path, tuple[str, ...]],
    masks: Sequence[Path],
    manifest: Path,
) -> list[FoundPicture]:
    mask_by_stem = {file.stem: file for file in masks}
    if subset.extension and (
        unused := [
            name_of(file, draft.root)
            for path in inside
            for suffix in SIDECARS
            if suffix != subset.extension and (file := path.with_suffix(suffix)).is_file()
        ]
    ):
        draft.notes.append(
            f"{manifest.name} takes only {subset.extension} files for {shown(subset.name)}; "
            f"{listed(unused, 'text file')} not used"
        )
    pictures: list[FoundPicture] = []
    for path in inside:
        picture = FoundPicture(
            path, name_of(path, draft.root), repeats=subset.repeats, regularization=subset.regularization
        )
        picture.mask = mask_by_stem.get(path.stem) or mask_of(path) or (path if subset.alpha_mask else None)
        if path in table:
            picture.captions, picture.written = table[path], subset.metadata_file or ""
        else:
            read_sidecar(draft, picture, [subset.extension] if subset.extension else SIDECARS)
        picture.captions = tuple(form for caption in picture.captions for form in _forms(subset, caption))
        picture.folder_caption = ordered(subset.class_tokens, subset.keep_sign, subset.group_sign)
        if subset.class_tokens and not subset.regularization:
            picture.trigger = subset.class_tokens.split()[0]
        pictures.append(picture)
    return pictures


def _forms(subset: Subset, caption: str) -> tuple[str, ...]:
    """Return a caption as kohya would train on it, without the signs of its settings, in its alternatives."""
    text = " ".join(part for part in (subset.prefix, caption, subset.suffix) if part)
    if subset.tag_sign:
        text = ", ".join(part.strip() for part in text.split(subset.tag_sign) if part.strip())
    forms = expanded(text, VARIANTS) if subset.wildcards else (text,)
    return tuple(ordered(form, subset.keep_sign, subset.group_sign) for form in forms)


def _folder(draft: DataSetDraft, text: str, manifest: Path) -> Path:
    path = _file(draft, text, manifest)
    if not path.is_dir():
        raise DataError(f"{manifest.name}: there is no folder {shown(text)}; fix its path")
    return path


def _file(draft: DataSetDraft, text: str, manifest: Path) -> Path:
    """Find a path of a TOML file: relative to that file's folder, else, as in kohya's scripts, to the current one.

    Only a TOML file that the user gave itself may name a file outside the data set, or one relative to the current
    folder or the home folder. Raises DataError before anything outside is touched.
    """
    path = Path(text.replace("\\", "/"))
    if draft.may_leave:
        path = path.expanduser()
    for base in (manifest.parent, Path.cwd()) if draft.may_leave else (manifest.parent,):
        if not may_read(draft, base / path):
            raise DataError(
                f"{manifest.name} names {shown(text)}, which is outside the data set; move it inside, or give "
                f"{manifest.name} itself if you wrote it"
            )
        if os.path.exists(base / path):  # Path's own raises OSError for a name that is too long
            return base / path
    raise DataError(f"{manifest.name}: there is no {shown(text)}; fix its path")


def read_tables(
    draft: DataSetDraft, files: Sequence[Path], paths: Sequence[Path], manifest: Path | None
) -> dict[Path, tuple[tuple[str, ...], str]]:
    """Map each listed picture to (captions, the file that lists it)."""
    listings = [manifest] if manifest else [file for file in files if is_listing(file, draft.root)]
    captions: dict[Path, tuple[tuple[str, ...], str]] = {}
    for file in listings:
        name = name_of(file, draft.root)
        read = read_fine_tune if file.suffix.lower() == ".json" else read_table
        matched = _match(draft, read(file, name), file.parent, paths, name)
        for path, texts in matched.items():
            if path in captions and captions[path][0] != texts:
                draft.notes.append(
                    f"{name_of(path, draft.root)}: {captions[path][1]} and {name} differ; {captions[path][1]} is used"
                )
            captions.setdefault(path, (texts, name))
        kind = {".json": "kohya's fine-tuning", ".jsonl": "Hugging Face's"}.get(file.suffix.lower(), "the table")
        draft.kinds.append(f"{kind} {shown(name)} of {counted(len(matched), 'picture')}")
    unlisted = [name_of(path, draft.root) for path in paths if path not in captions]
    if captions and not manifest and unlisted:
        draft.notes.append(
            f"{listed(unlisted, 'picture')} not in {', '.join(name_of(file, draft.root) for file in listings)}"
        )
    return captions


def is_listing(file: Path, root: Path) -> bool:
    name = file.name.lower()
    if name in ("metadata.jsonl", "metadata.csv") or re.fullmatch(r".*caption.*\.csv", name):
        return True
    return file.parent == root and name.endswith(".json") and is_fine_tune(file)


def _match(
    draft: DataSetDraft,
    entries: Mapping[str, tuple[str, ...]],
    folder: Path,
    paths: Sequence[Path],
    name: str,
) -> dict[Path, tuple[str, ...]]:
    """Find the picture of each entry of a list: by its path from the list's folder, else by a unique name.

    Only a list that the user gave itself may name pictures outside the data set's folder.
    """
    below = [path for path in paths if path.is_relative_to(folder)]
    by_path = {path.relative_to(folder).as_posix(): path for path in below}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in below:
        for key in {path.name, path.stem, path.relative_to(folder).with_suffix("").as_posix()}:
            by_name[key].append(path)
    captions: dict[Path, tuple[str, ...]] = {}
    missing: list[str] = []
    for key, texts in entries.items():
        plain = key.replace("\\", "/").removeprefix("./")
        same = by_name.get(plain) or by_name.get(PurePosixPath(plain).name) or []
        path = by_path.get(plain) or (same[0] if len(same) == 1 else None)
        elsewhere = folder / plain
        inside = may_read(draft, elsewhere)
        if path is None and draft.may_leave and is_picture(elsewhere) and os.path.isfile(elsewhere):
            path = elsewhere
        if path is None:
            reason = "could be several pictures" if len(same) > 1 else "does not exist"
            reason = reason if inside else "is outside the data set"
            missing.append(f"{shown(key)} {reason}")
        else:
            captions[path] = texts
    draft.problems += [f"{name}: {text}" for text in missing]
    return captions
