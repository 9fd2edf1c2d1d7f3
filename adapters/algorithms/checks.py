"""The checks that the builders and deltas of all algorithms share."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.wording import listed, shown

__all__ = [
    "check_floats",
    "check_roles",
    "dtype_of",
    "owned",
    "require_finite",
    "require_fit",
    "sizes",
    "without_ones",
]

_DTYPES = {"F16": "f16", "BF16": "bf16", "F32": "f32", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}


def check_roles(
    module: str, roles: Mapping[str, Tensor], needed: Collection[str], optional: Collection[str] = ()
) -> None:
    """Raise AdapterError if a tensor that the algorithm needs is missing, or if there is one that it does not use."""
    if missing := [role for role in needed if role not in roles]:
        raise AdapterError(f"{module}: no {' and no '.join(missing)} for {listed([t.name for t in roles.values()])}")
    if strange := [tensor.name for role, tensor in roles.items() if role not in {*needed, *optional}]:
        raise AdapterError(f"{module}: unexpected {listed(strange)} with {shown(roles[next(iter(needed))].name)}")


def check_floats(*tensors: Tensor | None) -> None:
    """Raise AdapterError for a tensor whose numbers we cannot read."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype not in _DTYPES:
            raise AdapterError(f"tensor {shown(tensor.name)} is {tensor.dtype}: save it as F16, BF16 or F32")


def dtype_of(tensors: Iterable[Tensor]) -> str:
    """Return `Delta.dtype` for these tensors: their common dtype, or "f32" if they differ."""
    names = {_DTYPES[tensor.dtype] for tensor in tensors}
    return names.pop() if len(names) == 1 else "f32"


def sizes(shape: Iterable[int]) -> str:
    """Return a shape as text for messages: "64×320×3×3"."""
    return "×".join(map(str, shape))


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape without a 1×1 kernel: a linear layer and a 1×1 convolution are the same."""
    return shape[:2] if set(shape[2:]) <= {1} else shape


def require_fit(module: str, fits: bool, made_for: str, shape: tuple[int, ...]) -> None:
    """Raise AdapterError if a delta does not fit a weight of this shape."""
    if not fits:
        raise AdapterError(
            f"{module}: the adapter changes a weight of {made_for}, but the model's is {sizes(shape) or 'a number'}"
        )


def require_finite(module: str, *arrays: np.ndarray) -> None:
    """Raise AdapterError if a computed change overflows float32. The two maxima need no temporary array."""
    for array in arrays:
        if array.size and not (np.isfinite(array.max()) and np.isfinite(array.min())):
            raise AdapterError(f"{module}: the change does not fit float32; the file is unusable")


def owned(array: np.ndarray) -> np.ndarray:
    """Return the array itself if it is writeable, a copy if it is a view of the file."""
    return array if array.flags.writeable else array.copy()
