"""The optional dependencies: one table, one message."""

import json
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lorablend.adapters.errors import MissingExtraError

__all__ = ["install_hint", "require_extra"]

_CONVERT = ("torch", "diffusers", "transformers", "optimum.intel", "nncf")
_MODULES = {"convert": _CONVERT, "train": (*_CONVERT, "peft", "accelerate", "lycoris")}


def require_extra(extra: str) -> None:
    """Raise MissingExtraError unless every module of `lorablend[extra]` ("convert", "train") is installed.

    Nothing is imported.
    """
    missing = [name for name in _MODULES[extra] if not _is_installed(name)]
    if missing:
        raise MissingExtraError(f"{extra} needs {', '.join(missing)}; {install_hint(extra)}")


def install_hint(extra: str) -> str:
    """What to run to install the extra, from where lorablend itself was installed.

    No index is asked for lorablend: it is not on PyPI, and whoever takes its name there is a stranger.
    """
    # Several: in a checkout, setuptools leaves a lorablend.egg-info, which is found too and has no such record.
    records = [found.read_text("direct_url.json") for found in distributions(name="lorablend")]
    return hint_for(next(filter(None, records), None), extra)


def hint_for(direct_url: str | None, extra: str) -> str:
    """The hint for an installation whose record (PEP 610) is `direct_url`; None where an installer wrote none."""
    record = json.loads(direct_url or "{}")
    url = urlsplit(record.get("url", ""))
    if url.scheme == "file":
        path = Path(url2pathname(url.path))
        if path.exists():
            editable = "-e " if record.get("dir_info", {}).get("editable") else ""
            return f'run: pip install {editable}"{path}[{extra}]"'
    elif vcs := record.get("vcs_info"):
        return f'run: pip install "lorablend[{extra}] @ {vcs["vcs"]}+{record["url"]}@{vcs["commit_id"]}"'
    elif url.scheme:
        return f'run: pip install "lorablend[{extra}] @ {record["url"]}"'
    return f'run pip install "FOLDER[{extra}]" with the folder or wheel that you installed lorablend from as FOLDER'


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False
