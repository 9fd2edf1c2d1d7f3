"""Which base model an adapter was made for: inferred from module names and shapes, from metadata as a last resort."""

from collections.abc import Collection, Iterable, Iterator

from lorablend.adapters.errors import BaseModelError
from lorablend.adapters.files.metadata import base_model_hint
from lorablend.adapters.names.modules import TOPOLOGIES, bases_of
from lorablend.adapters.reading import Reading
from lorablend.adapters.wording import shown

__all__ = ["BASE_NAMES", "tell_base_model"]

# Names for messages. The refiner is recognised only so that it can be refused.
BASE_NAMES = {"sd15": "SD 1.5", "sd2": "SD 2", "sdxl": "SDXL", "sdxl-refiner": "the SDXL refiner", "unknown": "unknown"}

_CROSS_ATTENTION_WIDTH = {768: {"sd15"}, 1024: {"sd2"}, 2048: {"sdxl"}, 1280: {"sdxl-refiner"}}
_TEXT_WIDTH = {768: {"sd15", "sdxl"}, 1024: {"sd2"}}
_SECOND_TEXT_ENCODER = {"sdxl", "sdxl-refiner"}
# The width of up_blocks.1, which has attention in every model.
_UP_BLOCK_1_WIDTH = {1280: {"sd15", "sd2"}, 640: {"sdxl"}}


def tell_base_model(reading: Reading) -> str:
    """Return "sd15", "sd2", "sdxl", or "unknown" if several models fit.

    Raises BaseModelError for the SDXL refiner, and for modules that no single model has.
    """
    bases = _by_modules([*reading.deltas, *reading.biases])
    for clue in _clues(reading):
        bases = bases & clue or bases
    # Prefer the common models: adapters for the refiner are rare, and the widths would have shown SD 2.
    if len(bases) > 1:
        bases = bases - {"sdxl-refiner"}
    if bases == {"sd15", "sd2"}:
        return "sd15"
    if len(bases) > 1:
        return "unknown"
    (base,) = bases
    if base == "sdxl-refiner":
        raise BaseModelError("made for the SDXL refiner, which lorablend does not run: use an SDXL adapter")
    return base


def _by_modules(modules: Iterable[tuple[str, str]]) -> set[str]:
    """Return the models that have all of these modules."""
    bases = set(TOPOLOGIES)
    for component, path in modules:
        if component == "unet":
            having = bases_of(path)
        elif component == "text_encoder_2":
            having = _SECOND_TEXT_ENCODER
        else:
            continue
        if not bases & having:
            raise BaseModelError(
                f"modules of different models: {shown(component)} {shown(path)} belongs to {_either(having)}, "
                f"those before it to {_either(bases)}"
            )
        bases &= having
    return bases


def _clues(reading: Reading) -> Iterator[set[str]]:
    """Yield the models that each piece of evidence points to, the strongest evidence first; a set may be empty."""
    names, deltas = reading.file.tensors, reading.deltas
    for (component, path), delta in deltas.items():
        if component == "unet" and path.endswith(("attn2.to_k", "attn2.to_v")):
            yield _CROSS_ATTENTION_WIDTH.get(delta.in_features or 0, set())
    for (component, path), delta in deltas.items():
        if component == "text_encoder" and path.endswith((".q_proj", ".k_proj", ".v_proj", ".fc1")):
            yield _TEXT_WIDTH.get(delta.in_features or 0, set())
        if path.startswith("up_blocks.1.attentions") and path.endswith("attn1.to_q"):
            yield _UP_BLOCK_1_WIDTH.get(delta.in_features or 0, set())
    if any(path.endswith("proj_in") for _, path in reading.convolutions):
        yield {"sd15"}  # a convolution in SD 1.5, linear in the others
    if any("text_encoder_2" in vectors for vectors in reading.embeddings.values()):
        yield {"sdxl"}
    if any(name.startswith("lora_te1_") for name in names):
        yield {"sdxl"}
    if any(name.startswith("lora_te_") for name in names):
        yield {"sd15", "sd2"}
    if hint := base_model_hint(reading.file.metadata):
        yield {hint}


def _either(bases: Collection[str]) -> str:
    return " or ".join(BASE_NAMES[base] for base in TOPOLOGIES if base in bases)
