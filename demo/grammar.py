"""The closed world of the demo model: every possible scene, and the words that describe it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod

__all__ = [
    "CHARACTERS",
    "COLOURS",
    "COUNTS",
    "N_FORMS",
    "N_SCENES",
    "OBJECTS",
    "PLACES",
    "POSITIONS",
    "SIZES",
    "TIMES",
    "WORDS",
    "Scene",
    "held_out",
    "scene_at",
]

OBJECTS = (
    "house",
    "tree",
    "boat",
    "car",
    "fish",
    "star",
    "balloon",
    "mushroom",
    "rocket",
    "umbrella",
    "cup",
    "heart",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "large")
POSITIONS = ("left", "middle", "right")
COUNTS = (1, 2, 3)
PLACES = ("meadow", "sea", "desert", "snow", "city")
TIMES = ("day", "sunset", "night")
# Not part of the world, so that an adapter has something to teach; see subjects.py.
CHARACTERS = ("robot", "cat", "whale")

_ATTRIBUTES = (OBJECTS, COLOURS, SIZES, POSITIONS, COUNTS, PLACES, TIMES)
N_SCENES = prod(map(len, _ATTRIBUTES))

_COUNT_WORDS = {1: "a", 2: "two", 3: "three"}
_WHERE = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
_PLACE = {
    "meadow": "in the meadow",
    "sea": "by the sea",
    "desert": "in the desert",
    "snow": "in the snow",
    "city": "in the city",
}
_TIME = {"day": "by day", "sunset": "at sunset", "night": "at night"}
# Among the first 3,000, the salt whose held-out triples spread most evenly over objects, colours and positions.
_SALT = "lorablend demo 2469"
_HELD_OUT_SHARE = 0.1

_FORMS = (
    "{count} {size} {colour} {thing} {where}, {place}, {time}",
    "{time}, {place}, {count} {size} {colour} {thing} {where}",
    "{where}, {count} {size} {colour} {thing}, {time} {place}",
    "{count} {thing}, {size} and {colour}, {place} {time}, {where}",
    "the {ground} {time} with {count} {size} {colour} {thing} {where}",
    "{place}, {where}, {count} {thing}, {colour} and {size}, {time}",
)
N_FORMS = len(_FORMS)


@dataclass(frozen=True)
class Scene:
    """`count` copies of an object; `position` is their group's centre."""

    object: str
    colour: str
    size: str
    position: str
    count: int
    place: str
    time: str

    def caption(self, form: int = 0, subject: str | None = None) -> str:
        """Describe the scene in one of N_FORMS wordings; `subject` replaces the object's word."""
        thing = subject or self.object
        return _FORMS[form % N_FORMS].format(
            count=_COUNT_WORDS[self.count],
            size=self.size,
            colour=self.colour,
            thing=thing if self.count == 1 else _plural(thing),
            where=_WHERE[self.position],
            place=_PLACE[self.place],
            ground=self.place,
            time=_TIME[self.time],
        )


def scene_at(index: int) -> Scene:
    """Scene number `index` of range(N_SCENES), whose digits are the attributes; the last is the time of day."""
    if not 0 <= index < N_SCENES:
        raise IndexError(f"scene {index} is not in 0..{N_SCENES - 1}")
    chosen = []
    for values in reversed(_ATTRIBUTES):
        index, digit = divmod(index, len(values))
        chosen.append(values[digit])
    return Scene(*reversed(chosen))


def held_out(scene: Scene) -> bool:
    """Whether the scene is reserved for scoring: about 10 % of the (object, colour, position) triples are."""
    triple = f"{_SALT}: {scene.object} {scene.colour} {scene.position}"
    return int.from_bytes(hashlib.sha256(triple.encode()).digest()[:8], "big") < _HELD_OUT_SHARE * 2**64


def _plural(thing: str) -> str:
    return thing if thing == "fish" else thing + "s"


def _words() -> tuple[str, ...]:
    things = (*OBJECTS, *CHARACTERS)
    phrases = (
        *things,
        *map(_plural, things),
        *COLOURS,
        *SIZES,
        *_COUNT_WORDS.values(),
        *_WHERE.values(),
        *_PLACE.values(),
        *_TIME.values(),
        "the and with",
    )
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


# All words of all captions.
WORDS = _words()
