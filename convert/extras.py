"""The optional dependencies: one table, one message."""

from importlib.util import find_spec

from lorablend.adapters.errors import MissingExtraError

__all__ = ["require_extra"]

_CONVERT = ("torch", "diffusers", "transformers", "optimum.intel", "nncf")
_MODULES = {"convert": _CONVERT, "train": (*_CONVERT, "peft", "accelerate", "lycoris")}


def require_extra(extra: str) -> None:
    """Raise MissingExtraError unless every module of `lorablend[extra]` ("convert", "train") is installed.

    Nothing is imported.
    """
    missing = [name for name in _MODULES[extra] if not _is_installed(name)]
    if missing:
        raise MissingExtraError(f'{extra} needs {", ".join(missing)}; run: pip install "lorablend[{extra}]"')


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False
