"""The meaning of folder names: `<repeats>_<trigger> <class>` and `[TriggerWord]_[ClassDescription]`."""

import re
from collections.abc import Mapping
from pathlib import Path

from lorablend.adapters.wording import listed, shown
from lorablend.train.data.captions import words_of_name
from lorablend.train.data.draft import DataSetDraft, FoundPicture, counted

__all__ = ["REGULARIZATION", "kohya_folder", "kohya_name", "nearest_words", "read_folder_names"]

REGULARIZATION = ("reg", "regularization", "regularisation")  # the first is the one we write
_KOHYA_SIBLINGS = {"model", "log", "logs", "sample", "samples"}  # next to img in the folders of kohya's GUI


def kohya_name(folder: str) -> tuple[int, str] | None:
    """Split `<repeats>_<rest>` into (repeats, rest)."""
    match = re.fullmatch(r"(\d{1,6})_(.*)", folder)
    return (int(match[1]), match[2].strip()) if match else None


def kohya_folder(repeats: int, trigger: str | None) -> str:
    """The folder name that stands for these; without the trigger if a name cannot express it."""
    return f"{repeats}_{trigger if trigger and _carried(trigger) else 'data'}"


def _carried(trigger: str) -> bool:
    """Whether a name can express the trigger: one word that is read back unchanged and that file systems allow."""
    return _words(trigger) == [trigger] and bool(words_of_name(trigger)) and not set(trigger) & set('<>:"/\\|?*')


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[_\s]+", text) if word]


def trigger_name(folder: str) -> tuple[str, str] | None:
    """Split `[TriggerWord]_[ClassDescription]` into (trigger, class); words are separated by `_` or spaces."""
    words = _words(folder)
    if len(words) < 2 or not words_of_name(folder) or not re.search(r"[^\W\d_]", "".join(words[1:])):
        return None
    return words[0], " ".join(words[1:])


def read_folder_names(draft: DataSetDraft, *, own_name: bool) -> None:
    """Take each picture's repeats, trigger and caption from the names of the folders it is in, the nearest first."""
    above = {picture.path: folders_of(picture, draft.root) for picture in draft.pictures}
    if own_name and not any(any(map(kohya_name, folders)) for folders in above.values()):
        name = draft.root.resolve().name
        if draft.pictures and kohya_name(name):
            draft.notes.append(
                f"the data set is {name} itself, not its parent folder; its name is read as kohya reads a subfolder's"
            )
            above = {path: [*folders, name] for path, folders in above.items()}
    kohya = {
        picture.path: named
        for picture in draft.pictures
        if (named := next((folder for folder in above[picture.path] if kohya_name(folder)), None))
    }
    if kohya:
        _read_kohya(draft, above, kohya)
        return
    named = {
        picture.path: next((folder for folder in above[picture.path] if trigger_name(folder)), None)
        for picture in draft.pictures
    }
    if not draft.pictures or not all(named.values()):
        return
    for picture in draft.pictures:
        word, kind = trigger_name(named[picture.path] or "") or ("", "")
        picture.trigger, picture.folder_caption = word, f"{word} {kind}"
    folders = dict.fromkeys(folder for folder in named.values() if folder)
    understood = ", ".join(
        f"{shown(folder)}: {word}, a {kind}" for folder in folders for word, kind in [trigger_name(folder) or ("", "")]
    )
    draft.kinds.append(f"<trigger>_<class> folders ({understood})")


def _read_kohya(draft: DataSetDraft, above: Mapping[Path, list[str]], kohya: Mapping[Path, str]) -> None:
    left_out, plain = [], []
    for picture in list(draft.pictures):
        folder = kohya.get(picture.path)
        if folder is None:
            if above[picture.path] and above[picture.path][-1].lower() in _KOHYA_SIBLINGS:
                left_out.append(picture.name)
                draft.pictures.remove(picture)
            else:
                plain.append(picture.name)
            continue
        picture.repeats, rest = kohya_name(folder) or (1, "")
        words = _words(rest)
        picture.regularization = any(part.lower() in REGULARIZATION for part in above[picture.path])
        if words_of_name(rest):
            picture.folder_caption = " ".join(words)
            picture.trigger = None if picture.regularization else words[0]
    if left_out:
        draft.notes.append(f"{listed(left_out, 'picture')} in the output folders of kohya's GUI, left out")
    if plain:
        draft.notes.append(f"{listed(plain, 'picture')} in folders without repeats in their names, 1 repeat")
    folders = list(dict.fromkeys(kohya.values()))
    draft.problems += [
        f"folder {shown(folder)} says 0 repeats; rename it, or move it out of the data set"
        for folder in folders
        if (kohya_name(folder) or (1, ""))[0] == 0
    ]
    joined = [folder for folder in folders if "_" in (kohya_name(folder) or (1, ""))[1]]
    for folder in joined:
        rest = (kohya_name(folder) or (1, ""))[1]
        draft.notes.append(
            f"{shown(folder)}: its words are read as {shown(rest.replace('_', ' '))}; kohya itself reads {shown(rest)}"
        )
    repeats = ", ".join(
        f"{shown(folder)}: {counted((kohya_name(folder) or (1, ''))[0], 'repeat')}" for folder in folders
    )
    draft.kinds.append(f"kohya's <repeats>_<trigger> <class> folders ({repeats})")


def folders_of(picture: FoundPicture, root: Path) -> list[str]:
    """List the names of the folders between the root and a picture, the nearest first."""
    if not picture.path.is_relative_to(root):
        return [picture.path.parent.name]
    return list(reversed(picture.path.relative_to(root).parts[:-1]))


def nearest_words(picture: FoundPicture, root: Path) -> str:
    folders = (folder for folder in folders_of(picture, root) if folder.lower() not in REGULARIZATION)
    return next((text for folder in folders if (text := words_of_name(folder))), "")
