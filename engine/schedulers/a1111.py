"""AUTOMATIC1111's names for samplers and schedule types, in both directions.

A1111 names a sampler ("DPM++ 2M") and a schedule type ("Karras"); here they are a scheduler and a spacing. Its names
are in the metadata of pictures and in its API, and other programs write them too. The samplers' names are in
`SCHEDULERS`; this file has the schedule types.
"""

from dataclasses import dataclass

from lorablend.engine.schedulers.catalogue import SCHEDULERS

__all__ = ["SCHEDULE_TYPES", "ScheduleType", "read_sampler", "read_schedule_type", "schedule_type_of"]


@dataclass(frozen=True)
class ScheduleType:
    """One of A1111's schedule types (its modules/sd_schedulers.py).

    Attributes:
        name: Its name in A1111's API, such as "sgm_uniform".
        label: Its name in the metadata of pictures, such as "SGM Uniform".
        spacing: The same spacing in `SPACINGS`; None leaves the choice to the model.
        aliases: Other names that A1111 accepts for it.
    """

    name: str
    label: str
    spacing: str | None
    aliases: tuple[str, ...] = ()

    @property
    def folded(self) -> tuple[str, ...]:
        """All its names, in the form in which names are compared."""
        return tuple(map(_folded, (self.label, self.name, *self.aliases)))


SCHEDULE_TYPES = (
    ScheduleType("automatic", "Automatic", None),
    ScheduleType("karras", "Karras", "karras"),
    ScheduleType("exponential", "Exponential", "exponential"),
    ScheduleType("sgm_uniform", "SGM Uniform", "trailing", ("SGMUniform",)),
    ScheduleType("normal", "Normal", "linspace"),
    ScheduleType("ddim", "DDIM", "leading", ("ddim_uniform",)),  # every n-th timestep, from 1
)


def schedule_type_of(spacing: str) -> str:
    """The label of the schedule type that is the same as one of `SPACINGS`."""
    return next(kind.label for kind in SCHEDULE_TYPES if kind.spacing == spacing)


def read_schedule_type(name: str) -> ScheduleType | None:
    """The schedule type with this name, label or alias, in any letter case; None if it is unknown."""
    return next((kind for kind in SCHEDULE_TYPES if _folded(name) in kind.folded), None)


def read_sampler(name: str) -> tuple[str | None, str | None]:
    """The scheduler and the spacing that a sampler's name stands for.

    Before A1111 1.9 one name stood for both, such as "DPM++ 2M Karras".

    Args:
        name: A label such as "Euler a", an alias such as "k_euler_a", or a key of `SCHEDULERS`, in any letter case.

    Returns:
        The key of `SCHEDULERS`, or None for an unknown sampler; and one of `SPACINGS`, or None if the name has none.
    """
    name = _folded(name)
    if name in _SAMPLERS:
        return _SAMPLERS[name], None
    for kind in SCHEDULE_TYPES:
        for ending in kind.folded:
            if name.endswith(f" {ending}"):
                return _SAMPLERS.get(name.removesuffix(f" {ending}")), kind.spacing
    return None, None


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


_SAMPLERS = {
    _folded(written): name for name, info in SCHEDULERS.items() for written in (name, info.label, *info.aliases)
}
