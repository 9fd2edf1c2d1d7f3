"""Rename the tensors of an adapter: from any spelling to kohya's names, or to those of diffusers and PEFT."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lorablend.adapters.adapter import Adapter
from lorablend.adapters.algorithms.dora import DoraDelta
from lorablend.adapters.algorithms.factored import NUMBERS
from lorablend.adapters.algorithms.scale import ScaleSettings, scale_of
from lorablend.adapters.algorithms.trainer import without_trainer
from lorablend.adapters.errors import AdapterError
from lorablend.adapters.files.file import Tensor
from lorablend.adapters.files.provenance import rewritten_metadata, with_hashes
from lorablend.adapters.files.write import Stored, check_new, write_file
from lorablend.adapters.names.keys import BUNDLED, parse_key
from lorablend.adapters.names.naming import NAMINGS, Naming, is_convolution, module_name
from lorablend.adapters.tools.changes import Module, needs_model, why_not_lora
from lorablend.adapters.tools.lora_file import check_choice
from lorablend.adapters.wording import listed, shown

__all__ = ["RenameReport", "rename"]

# Role in keys.ROLES -> suffix. Roles that are not in a table cannot be expressed in its names.
_KOHYA = {
    "down": ".lora_down.weight",
    "up": ".lora_up.weight",
    "mid": ".lora_mid.weight",
    "dora_scale": ".dora_scale",
    "magnitude": ".dora_scale",
    **{role: f".{role}" for role in ("bias_indices", "bias_values", "bias_size")},
    **{role: f".{role}" for role in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{
        role: f".{role}"
        for role in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    },
    **{role: f".{role}.weight" for role in ("a1", "a2", "b1", "b2", "bm")},
    **{role: f".{role}" for role in ("on_input", "weight", "oft_blocks", "oft_diag", "rescale")},
    **{role: f".{role}" for role in ("diff", "set_weight", "w_norm", "diff_b", "b_norm")},
    "up_bias": ".lora_up.bias",
    "alpha": ".alpha",
    "scale": ".scale",
    "scalar": ".scalar",
}
_DIFFUSERS = {
    "down": ".lora_A.weight",
    "up": ".lora_B.weight",
    "up_bias": ".lora_B.bias",
    "dora_scale": ".lora_magnitude_vector",
    "magnitude": ".lora_magnitude_vector",
}
_CHANNELS = ("dora_scale", "magnitude")
_NAMES: dict[Naming, str] = {"kohya": "kohya's names", "diffusers": "diffusers' names"}


class RenameReport(NamedTuple):
    """What `rename` wrote.

    Attributes:
        path: The file.
        tensors: The number of tensors in it.
        left_out: The names of tensors that were not written because they change nothing.
    """

    path: Path
    tensors: int
    left_out: tuple[str, ...]


def rename(adapter: Adapter, out: Path, naming: Naming) -> RenameReport:
    """Write an adapter with other names. Every change stays exactly the same.

    kohya's names can express every algorithm of LyCORIS. If the scale does not follow from a module's tensors (but from
    PEFT's settings, or as alpha / √rank), an alpha tensor with the same effect is written. A LoKr of two whole matrices
    has no rank, so its scale is multiplied into the first one.

    diffusers' names can express LoRA and output-axis DoRA, which is what diffusers loads. They have no alpha, so the
    scale is multiplied into the `lora_B` tensor, which is written as float32 if its own type would round.

    Args:
        adapter: The adapter.
        out: The file to write, which must be new.
        naming: "kohya" or "diffusers".

    Raises:
        AdapterError: The names cannot express a tensor, which the message names.
        InputError: `out` exists.
    """
    check_choice("naming", naming, NAMINGS)
    check_new(out)
    if adapter.refused:
        raise AdapterError(
            f"{shown(adapter.name)} was read leniently, and {listed(adapter.refused)} would be lost; "
            "read it strictly, or remove them from the file"
        )
    tensors = _renamed(adapter, naming)
    if isinstance(tensors, AdapterError):
        raise _with_way_on(adapter, naming, tensors)
    made_by = {"tool": "convert", "naming": naming, "inputs": [{"name": adapter.name, "sha256": adapter.sha256}]}
    metadata = without_trainer(rewritten_metadata(adapter.metadata, None, None, made_by))
    if naming == "diffusers":  # the alpha is in the tensors now
        metadata.pop("ss_network_alpha", None)
    write_file(out, tensors, with_hashes(metadata, tensors))
    modules, others = _modules(adapter)
    used = {tensor.name for roles in modules.values() for tensor in roles.values()}
    used |= {tensor.name for tensor in others}
    return RenameReport(out, len(tensors), tuple(name for name in adapter.file.tensors if name not in used))


def _renamed(adapter: Adapter, naming: Naming) -> dict[str, Stored] | AdapterError:
    """Return the tensors under their new names, or why one of them has none."""
    modules, others = _modules(adapter)
    tensors: dict[str, Stored] = {}
    write = _to_kohya if naming == "kohya" else _to_diffusers
    try:
        for module, roles in modules.items():
            tensors |= write(adapter, module, roles)
    except AdapterError as error:
        return error
    for tensor in others:  # bundled words; other programs find them under exactly these names
        if naming == "diffusers":
            return _cannot(adapter, tensor, naming)
        tensors[tensor.name] = _same(tensor)
    return tensors


def _modules(adapter: Adapter) -> tuple[dict[Module, dict[str, Tensor]], list[Tensor]]:
    """Return the tensors of all changed modules, by module and role, and those that belong to no module."""
    changed = adapter.deltas.keys() | adapter.biases.keys()
    modules: dict[Module, dict[str, Tensor]] = {}
    others: list[Tensor] = []
    for name, tensor in adapter.file.tensors.items():
        key = parse_key(name)
        if key.algorithm == BUNDLED:
            others.append(tensor)
        if key.path is None:
            continue
        # A name that does not say which text encoder it means belongs to the one that the reading has chosen.
        components = (key.component,) if key.component else ("text_encoder", "text_encoder_2")
        for component in components:
            if (component, key.path) in changed:
                modules.setdefault((component, key.path), {}).setdefault(key.role, tensor)
                break
    return modules, others


def _to_kohya(adapter: Adapter, module: Module, roles: Mapping[str, Tensor]) -> dict[str, Stored]:
    name = module_name(*module, adapter.base_model, "kohya")
    tensors: dict[str, Stored] = {}
    alpha = _alpha(adapter, module, roles)
    delta = adapter.deltas.get(module)
    # A LoKr of two whole matrices has no rank, so no alpha can express its scale.
    folded = delta.scale if delta and delta.rank is None and "lokr_w1" in roles else 1.0
    for role, tensor in roles.items():
        if role not in _KOHYA:
            raise _cannot(adapter, tensor, "kohya")
        if role in NUMBERS and (alpha is not None or folded != 1):
            continue
        kind, values = _shaped(adapter, module, role, tensor)
        if role == "lokr_w1" and folded != 1:
            kind, values = _scaled(tensor, folded, values.shape)
        if role == "magnitude":  # one number for each output channel, as in LyCORIS
            values = values.reshape(-1, *(1,) * (max(2, len(roles["down"].shape)) - 1))
        tensors[name + _KOHYA[role]] = kind, values
    if alpha is not None:
        tensors[f"{name}.alpha"] = "F32", np.float32(alpha).reshape(())
    return tensors


def _alpha(adapter: Adapter, module: Module, roles: Mapping[str, Tensor]) -> float | None:
    """Return the alpha to write for a module; None if the module's own tensors give the right scale."""
    delta = adapter.deltas.get(module)
    if delta is None or delta.rank is None:
        return None
    own_scale = scale_of(" ".join(module), module[1], roles, delta.rank, ScaleSettings()).factor
    return None if own_scale == delta.scale else delta.scale * delta.rank


def _to_diffusers(adapter: Adapter, module: Module, roles: Mapping[str, Tensor]) -> dict[str, Stored]:
    delta = adapter.deltas.get(module)
    for role, tensor in roles.items():
        if role not in _DIFFUSERS and role not in NUMBERS:
            raise _cannot(adapter, tensor, "diffusers")
    if delta is None or delta.algorithm not in ("lora", "dora") or ".embeddings." in module[1]:
        raise _cannot(adapter, next(iter(roles.values())), "diffusers")
    if isinstance(delta, DoraDelta) and delta.on_input:
        raise _cannot(adapter, roles["dora_scale"], "diffusers")
    name = module_name(*module, adapter.base_model, "diffusers")
    tensors: dict[str, Stored] = {}
    for role, tensor in roles.items():
        if role in NUMBERS:
            continue
        kind, values = _shaped(adapter, module, role, tensor)
        if role in ("up", "up_bias") and delta.scale != 1:
            kind, values = _scaled(tensor, delta.scale, values.shape)
        if role in _CHANNELS:
            convolution = len(roles["down"].shape) == 4
            values = values.reshape((1, -1, 1, 1) if convolution else (-1,))
        tensors[name + _DIFFUSERS[role]] = kind, values
    return tensors


def _shaped(adapter: Adapter, module: Module, role: str, tensor: Tensor) -> Stored:
    """Return a tensor as it is; but factors get the dimensions of a 1×1 kernel if, and only if, the module has one."""
    kind, values = _same(tensor)
    if role in ("down", "up") and values.shape[2:] in ((), (1, 1)):
        flat = module[0] != "unet" or not is_convolution(module[1], adapter.base_model)
        values = values.reshape(values.shape[:2] if flat else (*values.shape[:2], 1, 1))
    return kind, values


def _same(tensor: Tensor) -> Stored:
    return tensor.dtype, tensor.array


def _scaled(tensor: Tensor, scale: float, shape: tuple[int, ...]) -> Stored:
    """Return the tensor times `scale`, in its own type if that represents every product exactly, else in float32."""
    product = (tensor.float32() * np.float32(scale)).reshape(shape)
    if tensor.dtype == "F16":
        with np.errstate(over="ignore"):
            half = product.astype("<f2")
        return ("F16", half) if np.array_equal(half, product) else ("F32", product)
    bits = product.view(np.uint32)
    if tensor.dtype == "BF16" and not (bits & 0xFFFF).any():  # a bfloat16 is the upper half of a float32
        return "BF16", (bits >> 16).astype("<u2")
    return "F32", product


def _cannot(adapter: Adapter, tensor: Tensor, naming: Naming) -> AdapterError:
    """Return the error about a tensor that the names cannot express."""
    return AdapterError(f"{shown(adapter.name)}: {_NAMES[naming]} cannot express tensor {shown(tensor.name)}")


def _with_way_on(adapter: Adapter, naming: Naming, error: AdapterError) -> AdapterError:
    """Return the error with what the user can do instead, which works for this file."""
    unnamed = adapter.base_model == "unknown" and any(component != "unet" for component, _ in adapter.deltas)
    lora_names: list[Naming] = [each for each in (naming, *NAMINGS) if not (unnamed and each == "kohya")]
    lora_names = [each for each in lora_names if not why_not_lora(adapter, each)]
    other: Naming = "diffusers" if naming == "kohya" else "kohya"
    prefer_lora = naming == "diffusers" and lora_names[:1] == ["diffusers"]
    if not prefer_lora and not isinstance(_renamed(adapter, other), AdapterError):
        return AdapterError(f"{error.message}; use {_NAMES[other]}")
    if not lora_names:
        return AdapterError(f"{error.message}; blend or bake it as it is")
    out = adapter.path.with_name(f"{adapter.path.stem}-lora.safetensors")
    return AdapterError(
        f"{error.message}; a LoRA can have the same effect",
        command=f"lorablend adapters resize {shlex.quote(str(adapter.path))} --names {lora_names[0]} --keep 1"
        f"{' --model MODEL' * needs_model(adapter)} --out {shlex.quote(str(out))}",
    )
