"""Adapters as pictures name them: several lists in one text, made into one in which each adapter is once."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lorablend.adapters.blends.prompt import split_prompt
from lorablend.adapters.wording import shown
from lorablend.app.pictures.metadata.found import Found, Mention, number, stem

__all__ = ["from_pairs", "from_resources", "from_tags", "in_rows", "mention_of", "others_in", "read_json", "unite"]

ADAPTERS = ("lora", "lycoris", "locon", "loha", "lokr", "dora", "lyco")
_MODELS = ("checkpoint", "model", "checkpoint merge", "base_model", "basemodel", "")
_ROW_NAMES = (
    "modelFileName",
    "file_name",
    "filename",
    "file",
    "name",
    "model_name",
    "model",
    "lora",
    "selected",
    "label",
)
_ROW_WEIGHTS = ("weight", "strength", "lora_weight", "Lora weight", "value")
_NO_ADAPTER = ("", "none", "null")
_HASH = re.compile(r"(0x)?[0-9a-fA-F]{8,64}")
_ODD = re.compile(r"[^\w.-]")


def mention_of(name: Any, weight: Any = None, text_encoder: Any = None, digest: Any = "") -> Mention | None:
    """A mention by values as programs write them; None if the name says that there is none."""
    if not isinstance(name, str) or name.strip().casefold() in _NO_ADAPTER:
        return None
    fields = {}
    te, unet = number(text_encoder), number(weight)
    if te is not None and te != unet:
        fields["text_encoder"] = te
    return Mention(name=stem(name)[:300], weight=unet, fields=fields, digest=_digest(digest))


def in_rows(found: Found, rows: Any, key: str) -> list[Mention]:
    """The adapters of a list whose entries are names, or lists or objects with a name and a weight.

    Entries of other forms are named as missing.
    """
    rows = read_json(rows) if isinstance(rows, str) else rows
    mentions: list[Mention] = []
    for row in rows if isinstance(rows, list) else ():
        values = _row(row)
        mention = mention_of(*values)
        if mention:
            mentions.append(mention)
        elif not isinstance(values[0], str) and row is not None:
            found.lacks(f"an entry in {shown(key)} ({shown(str(row)[:60])}) is not read")
    return mentions


def _row(row: Any) -> tuple[Any, Any, Any, Any]:
    """Name, weight, the text encoder's weight, and the hash."""
    if isinstance(row, Mapping):
        name, weight = (next((row[key] for key in keys if key in row), None) for keys in (_ROW_NAMES, _ROW_WEIGHTS))
        return name, weight, row.get("text_encoder", row.get("clip_weight")), row.get("hash", "")
    if isinstance(row, list | tuple) and row:
        return row[0], row[1] if len(row) > 1 else None, None, row[2] if len(row) > 2 else ""
    return row, None, None, ""


def from_tags(found: Found, prompt: str) -> tuple[str, list[Mention], dict[str, Any]]:
    """Take the tags out of a prompt: its rest, the adapters in the tags, and the blend's mode.

    A tag that cannot be read is taken out too, and named as missing.
    """
    text, entries, errors = split_prompt(prompt)
    for error in errors:
        found.lacks(str(error))
    mentions: list[Mention] = []
    modes: dict[str, Any] = {}
    for entry in entries:
        if isinstance(entry, tuple):
            mentions.append(Mention(name=str(entry[0]), weight=entry[1]))
        elif "items" in entry:
            modes = {key: value for key, value in entry.items() if key != "items"}
        else:
            fields = {key: value if _is_plain(value) else value.to_json() for key, value in entry.items()}
            mentions.append(Mention(name=str(fields.pop("adapter")), weight=fields.pop("weight", 1.0), fields=fields))
    return text, mentions, modes


def from_pairs(text: str) -> Iterator[Mention]:
    """Read a list such as "ink: 0123456789ab, neon: 0.5" or "ink: 0123456789ab: 0.8": hashes, weights, or both."""
    for part in text.strip("{} ").split(","):
        name, *values = (value.strip(' "') for value in part.split(":"))
        digests = [value for value in values if _HASH.fullmatch(value) and not _looks_like_weight(value)]
        weights = [read for value in values if value not in digests and (read := number(value)) is not None]
        mention = mention_of(name, weights[0] if weights else None, weights[1] if len(weights) > 1 else None)
        if mention:
            yield replace(mention, digest=_digest(digests[0]) if digests else "")


def from_resources(resources: Any, kinds: Collection[str] = ADAPTERS) -> Iterator[Mention]:
    """Read the entries of some types in a list of resources, as Civitai's generator and its extensions write it.

    Entries have a type, a weight, and any of a file's name, a title, an AIR ("urn:air:sdxl:lora:civitai:12@34"), the
    number of a version, and a hash.
    """
    for entry in resources if isinstance(resources, list) else ():
        if not isinstance(entry, Mapping):
            continue
        air = _air_of(entry)
        if _kind_of(entry) not in kinds:
            continue
        file = _text(entry, "fileName", "file_name") or _text(entry, "name")
        file = "" if _is_air(file) else file
        title = " ".join(filter(None, (_text(entry, "modelName"), _text(entry, "modelVersionName"))))
        version = entry.get("modelVersionId", entry.get("versionId"))
        name = stem(file) if file else title or air or (f"Civitai version {version}" if version else "")
        weight = next((entry[key] for key in ("weight", "strength", "strengthModel") if key in entry), None)
        if mention := mention_of(name or "without a name", weight, entry.get("strengthClip"), entry.get("hash")):
            yield replace(mention, name=name or "without a name", is_file=bool(file))


def others_in(resources: Any) -> Iterator[tuple[str, str]]:
    """The types and names of those entries that are neither adapters nor models, such as embeddings."""
    entries = resources if isinstance(resources, list) else ()
    kinds = dict.fromkeys(_kind_of(entry) for entry in entries if isinstance(entry, Mapping))
    for kind in kinds:
        if kind not in (*ADAPTERS, *_MODELS):
            yield from ((kind, mention.name) for mention in from_resources(entries, (kind,)))


def unite(*lists: Iterable[Mention]) -> list[Mention]:
    """One list of several that name the same adapters. Earlier lists win; later ones add what they do not know.

    An adapter that one list has twice was used twice. Entries of image sites have titles for names; one whose weight is
    that of a file is taken for that file.
    """
    united: list[Mention] = []
    for mentions in lists:
        places: dict[str, list[int]] = {}
        for place, known in enumerate(united):
            for mark in _marks(known):
                places.setdefault(mark, []).append(place)
        untitled: dict[float | None, list[int]] = {}
        for place, known in enumerate(united):
            if known.is_file:
                untitled.setdefault(known.weight, []).append(place)
        for mention in mentions:
            same = next((places[mark] for mark in _marks(mention) if mark in places), [])
            if not same and not mention.is_file and mention.weight is not None:
                files = untitled.get(mention.weight)
                same = [files.pop(0)] if files else []
            if not same:
                united.append(mention)
            for place in same:
                united[place] = _joined(united[place], mention)
    return united


def _marks(mention: Mention) -> list[str]:
    """By what a mention is found again: its name; for a title of an image site also the hash."""
    return [_plain_name(mention.name), *([f"#{mention.digest[:10]}"] if mention.digest else [])]


def _joined(known: Mention, more: Mention) -> Mention:
    digest = known.digest or more.digest
    if known.weight is None and more.weight is not None:
        return replace(known, weight=more.weight, fields=more.fields, digest=digest)
    return replace(known, digest=digest)


def _plain_name(name: str) -> str:
    """Without what lists leave out of names: folders, colons and commas; and with spaces as our tags write them."""
    return _ODD.sub("_", stem(name).replace(":", "").replace(",", ""))


def _text(entry: Mapping[str, Any], *keys: str) -> str:
    return next((entry[key] for key in keys if isinstance(entry.get(key), str) and entry[key]), "")


def _air_of(entry: Mapping[str, Any]) -> str:
    return _text(entry, "air", "urn") or next((value for value in entry.values() if _is_air(value)), "")


def _kind_of(entry: Mapping[str, Any]) -> str:
    air = _air_of(entry)
    return (_text(entry, "type", "modelType") or (air.split(":")[3] if air.count(":") >= 4 else "")).casefold()


def _digest(value: Any) -> str:
    """The first digits of a hash, which are enough for A1111's, Civitai's and SwarmUI's; "" for anything else."""
    if not isinstance(value, str) or not _HASH.fullmatch(value.strip()):
        return ""
    return value.strip().lower().removeprefix("0x")[:12]


def _looks_like_weight(value: str) -> bool:
    return "." in value or len(value) < 8


def _is_air(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("urn:air:")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | list | tuple | dict)


def read_json(text: str) -> Any:
    """A value in JSON; None for anything else."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
