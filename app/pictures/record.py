"""The record of a picture: how it was made, without loss, as JSON inside the file."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lorablend.adapters.errors import RequestError
from lorablend.adapters.wording import shown
from lorablend.engine import Pipeline
from lorablend.engine.request import Request, Result
from lorablend.shipped import model_dir

__all__ = ["Record", "UsedAdapter", "model_name", "record_of"]


@dataclass(frozen=True, kw_only=True)
class UsedAdapter:
    """One adapter of the blend. sha256 is the hash of the whole file."""

    name: str
    weight: float
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """How one picture was made; `Record.from_json(record.to_json()) == record`.

    Input pictures and masks are not kept.

    Attributes:
        request: The settings.
        seed: The picture's own, which in a batch differs from the request's.
        adapters: One for each item of the request's blend.
        model: Its name, see `model_name`.
        device, runtime, precision, max_rank, lenient: The pipeline's.
        versions: Versions of the packages that drew it.
    """

    request: Request
    seed: int
    adapters: tuple[UsedAdapter, ...]
    model: str
    device: str
    runtime: str
    precision: str | None = None
    max_rank: int | None = None
    lenient: bool = False
    versions: dict[str, str]

    def to_json(self) -> str:
        """As ASCII, for EXIF, where JPEG and WebP keep it, has no other text."""
        return json.dumps(asdict(self) | {"request": json.loads(self.request.to_json())})

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Parse a record of this or an older lorablend. Raises RequestError if it is not one."""
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["request"] = Request.from_json(json.dumps(fields["request"]))
            fields["adapters"] = tuple(UsedAdapter(**adapter) for adapter in fields["adapters"])
            return cls(**fields)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise RequestError(
                f"not readable as the record of a picture ({shown(error)}); use a newer lorablend"
            ) from error


def model_name(folder: Path) -> str:
    """The name of a model in pictures: its folder's, or "demo" for the shipped one."""
    folder = folder.resolve()
    return "demo" if folder == model_dir() else folder.name


def record_of(result: Result, seed: int, pipe: Pipeline) -> Record:
    """The record of the result's picture with this seed."""
    return Record(
        request=result.request,
        seed=seed,
        adapters=tuple(
            UsedAdapter(name=item.adapter.name, weight=item.weight, sha256=item.adapter.sha256) for item in result.blend
        ),
        model=model_name(pipe.model.path),
        device=pipe.device,
        runtime=pipe.runtime,
        precision=pipe.precision,
        max_rank=pipe.max_rank,
        lenient=pipe.lenient,
        versions={name: version(name) for name in ("lorablend", "openvino", "numpy")},
    )
