"""Where the settings are in a text of AUTOMATIC1111's form, whose many writers lay it out in many ways.

A1111 writes the prompt, the negative prompt behind its mark at the start of a line, and the settings in the last line.
Others have all of it in one line, a line for each setting, the settings first, or other signs between them. So the
settings are found by their known keys, whatever is before and behind them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby

from lorablend.engine.settings import SETTINGS

__all__ = ["BY_KEY", "find_settings", "negative_mark", "parse_settings", "tidied"]

# Settings by their keys; those that share one are neighbours.
BY_KEY = {key: list(settings) for key, settings in groupby(SETTINGS.values(), lambda setting: setting.infotext) if key}
# AUTOMATIC1111's own reader, and Civitai's, but in linear time: the text is untrusted.
_SETTING = re.compile(r'(\w[\w \-/]{1,59}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_LONGEST = 100_000  # characters of a line of settings; reading a megabyte takes half a second
_MOST_LINES = 40  # of settings
_JSON_SETTING = re.compile(r"(\w[\w \-/]{1,59}):\s*(?=[\[{])")
_MOST_BROKEN = 20  # values that look like JSON and are none; each costs a look at the rest of the text
_KNOWN = (*BY_KEY, "Model", "Model hash", "Version", "Clip skip", "VAE", "Lora hashes", "Hashes", "Scheduler")
_WRITTEN = {key.casefold(): key for key in _KNOWN}  # as A1111 writes it
_KEY = "|".join(sorted(map(re.escape, _KNOWN), key=len, reverse=True))
_KNOWN_KEY = re.compile(rf"(?<![\w-])({_KEY}):[ \t]*(?=\S)")
_IN_ANY_CASE = re.compile(_KNOWN_KEY.pattern, re.IGNORECASE)  # counts at the start of a line only
_STEPS = re.compile(r"(?<![\w-])Steps:\s*\d+\s*,", re.IGNORECASE)
_LABEL = re.compile(r"\s*[A-Z][\w \-/]{1,59}:")
_NEGATIVE = re.compile(r"^[ \t]*Negative [Pp]rompt:[ \t]*", re.MULTILINE)
_ANY_NEGATIVE = re.compile(r"^[ \t]*Negative[ _-]?prompt[ \t]*:[ \t]*", re.MULTILINE | re.IGNORECASE)
# A line of one setting that is none of a prompt's: with a number, or of the sampler.
_PLAIN = re.compile(r"\s*(?:[^:\n]+:[ \t]*[\d.x]+[ \t]*,?|(?:Sampler|Schedule type|Scheduler):.*)[ \t]*", re.IGNORECASE)
# What others write where A1111 has a new line, a comma or a colon.
_BREAK = re.compile(rf"(?:<br ?/?>|\\n){{1,4}}[ \t]{{0,4}}(?=(?:Negative prompt|{_KEY}):)", re.IGNORECASE)
_SEPARATOR = re.compile(rf"(?<=\S)\s?[;|]\s{{0,4}}(?=(?:{_KEY}):)", re.IGNORECASE)
_COLON = re.compile(rf"(?<![\w-])(Negative prompt|{_KEY})\uff1a[ \t]*", re.IGNORECASE)
_HEADING = re.compile(r"(?:parameters[ \t]*(?::|\n)|positive[ _]prompt[ \t]*:)\s*", re.IGNORECASE)


def tidied(text: str) -> str:
    """The text with A1111's line ends and colons, and without a heading."""
    text = text.strip().replace("\r\n", "\n").replace("\r", "\n")
    if "\uff1a" in text:
        text = _COLON.sub(r"\1: ", text)
    if "\n" not in text:
        text = _BREAK.sub("\n", text)
    heading = _HEADING.match(text)
    return text[heading.end() :] if heading else text


def negative_mark(text: str) -> re.Pattern[str]:
    """What begins the negative prompt at the start of a line: A1111's words; if the text has none, others' forms."""
    return _NEGATIVE if _NEGATIVE.search(text) else _ANY_NEGATIVE


def find_settings(text: str) -> tuple[int, int, str, bool]:
    """Find the settings.

    Returns:
        Where they begin and end, the end of the text if there are none; they themselves, as one line; and whether they
            share a line with a prompt.
    """
    end = len(text)
    while end >= 0:
        begin = text.rfind("\n", 0, end) + 1
        line = text[begin:end] if end - begin <= _LONGEST else ""
        known = _known_in(line)
        if _are_enough(known):
            place = _begin_settings(line, known)
            if place == 0 and not _STEPS.match(line):  # a line that begins with the steps is whole
                begin = _first_line(text, begin, known)
            return begin + place, end, _joined(text[begin + place : end]), place > 0
        if known and not line[: known[0].start()].strip():
            first = _first_line(text, begin, known)
            lines = _joined(text[first:end])
            is_all = end == len(text) and first == begin and len(parse_settings(line)) >= 3
            if is_all or _are_enough(_known_in(lines)):
                return first, end, lines, False
        end = begin - 1
    return len(text), len(text), "", False


def parse_settings(line: str) -> dict[str, str]:
    """The settings of a line. Values in JSON stay JSON, brackets and all, whatever commas are in them."""
    settings: dict[str, str] = {}
    plain, end, broken = [], 0, 0
    for match in _JSON_SETTING.finditer(line):
        if match.start() < end or broken > _MOST_BROKEN:
            continue
        try:
            _, stop = json.JSONDecoder().raw_decode(line, match.end())
        except (ValueError, RecursionError):
            broken += 1
            continue
        settings[match[1].strip()] = line[match.end() : stop]
        plain.append(line[end : match.start()])
        end = stop
    for part in (*plain, line[end:]):
        found = _SETTING.findall(_SEPARATOR.sub(", ", part))
        settings |= {_written(name): _unquote(value) for name, value in found}
    return settings


def _known_in(line: str) -> list[re.Match[str]]:
    """The known keys of a line; in any case of letters if it begins with one."""
    known = list(_KNOWN_KEY.finditer(line))
    if _are_enough(known) or not _IN_ANY_CASE.match(line, len(line) - len(line.lstrip())):
        return known
    return list(_IN_ANY_CASE.finditer(line))


def _are_enough(known: list[re.Match[str]]) -> bool:
    """Whether the keys of a line are settings: three, or the steps and one more."""
    names = _names(known)
    return len(names) >= (2 if known and _STEPS.match(known[0].string) else 3)


def _names(known: Iterable[re.Match[str]]) -> set[str]:
    return {match[1].casefold() for match in known}


def _first_line(text: str, begin: int, known: list[re.Match[str]]) -> int:
    """Where the lines of settings begin of which the last one begins at `begin`: those above with keys of their own.

    Most programs begin with the steps; above them only numbers and samplers count, because a prompt may begin with
    "Model: a woman".
    """
    names, first, place = _names(known), begin, begin
    for _ in range(_MOST_LINES):
        above = text.rfind("\n", 0, place - 1) + 1 if place else 0
        if place == 0 or begin - above > _LONGEST:
            break
        line = text[above : place - 1]
        more = _known_in(line)
        is_complete = "steps" in names and not _PLAIN.fullmatch(line)
        if is_complete or _ANY_NEGATIVE.match(line) or names & _names(more):
            break
        if more and not line[: more[0].start()].strip():
            names |= _names(more)
            first = above
        elif line.strip() and not _LABEL.match(line):  # an unknown setting counts if a known one is above it
            break
        place = above
    return first


def _joined(lines: str) -> str:
    return ", ".join(line.rstrip(" \t,") for line in lines.split("\n") if line.strip()) if "\n" in lines else lines


def _begin_settings(line: str, known: list[re.Match[str]]) -> int:
    """Where the settings of a line begin: all of it, or behind the end of a prompt."""
    before = line[: known[0].start()]
    if not before.strip() or re.fullmatch(r"(\s*[A-Z][\w \-/]{1,59}:[^,]*,)+\s*", before):
        return 0
    # The last steps that two more keys come after.
    places = [match.start() for match in _STEPS.finditer(line) if match.start() < known[-2].start()]
    return places[-1] if places else known[0].start()


def _written(name: str) -> str:
    return _WRITTEN.get(name.strip().casefold(), name.strip())


def _unquote(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value
