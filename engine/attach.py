"""Does a blend belong on a model? Asked before anything is baked or plugged in; both runtimes ask it here."""

from collections.abc import Mapping

from lorablend.adapters import Blend
from lorablend.adapters.errors import AdapterError, BaseModelError

__all__ = ["check_attach"]


def check_attach(blend: Blend, modules: Mapping[tuple[str, str], tuple[int, ...]], family: str) -> None:
    """Raise unless every delta of the blend has its module in the model, with the shape it was made for.

    modules: (component, module path) -> the weight's shape, [out, in] or [out, in, height, width]. An adapter whose
    base model cannot be told is taken if all its modules match.

    Raises:
        BaseModelError: an adapter is for another base model.
        AdapterError: an adapter changes a module that the model does not have, or has in another shape.
    """
    for item in blend.items:
        adapter = item.adapter
        if adapter.base_model not in (family, "unknown"):
            raise BaseModelError(
                f"{adapter.name} is for {adapter.base_model}, the model is {family}; choose an adapter for {family}"
            )
        for (component, path), delta in adapter.deltas.items():
            shape = modules.get((component, path))
            made_for = (delta.out_features, delta.in_features, *delta.kernel)
            if shape is None:
                raise AdapterError(
                    f"{adapter.name} changes {component} {path}, which the model does not have; "
                    "choose an adapter made for this model"
                )
            if _without_ones(made_for) != _without_ones(shape):
                raise AdapterError(
                    f"{adapter.name} changes {component} {path} of shape {list(made_for)}, "
                    f"the model's is {list(shape)}; choose an adapter made for this model"
                )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A linear layer and a 1×1 convolution are the same thing; files and models differ in which they write."""
    return shape[:2] if set(shape[2:]) <= {1} else shape
