"""Whether a blend fits a model. Both runtimes check it here before they bake or plug in anything."""

from collections.abc import Mapping

import numpy as np

from lorablend.adapters import Blend
from lorablend.adapters.errors import AdapterError, BaseModelError
from lorablend.adapters.wording import shown

__all__ = ["check_attach"]


def check_attach(blend: Blend, parameters: Mapping[tuple[str, str], tuple[int, ...]], family: str) -> None:
    """Check that the model has the parameter of each delta of the blend, in the shape that the delta was made for.

    An adapter whose base model is unknown is accepted if everything that it changes matches.

    Args:
        blend: The adapters.
        parameters: (component, "module path.weight" or "….bias") -> shape in torch.
        family: The model's family, "sdxl", "sd15" or "sd2".

    Raises:
        BaseModelError: an adapter is for another base model.
        AdapterError: an adapter changes a parameter that the model does not have, or that has another shape there.
    """
    for item in blend.items:
        adapter = item.adapter
        if adapter.base_model not in (family, "unknown"):
            raise BaseModelError(
                f"{adapter.name} is for {adapter.base_model}, the model is {family}; choose an adapter for {family}"
            )
        for (component, path), delta in adapter.deltas.items():
            shape = parameters.get((component, f"{path}.weight"))
            if shape is None:
                raise _missing(adapter.name, f"{component} {path}")
            if not delta.fits(shape):
                raise _other_shape(adapter.name, f"{component} {path}", delta.made_for, shape)
        for (component, path), bias in adapter.biases.items():
            shape = parameters.get((component, f"{path}.bias"))
            if shape is None and not bias.dense(np.zeros(bias.out_features, np.float32)).any():
                continue  # IA3 multiplies the bias, and this layer has none
            if shape is None:
                raise _missing(adapter.name, f"{component} {path}'s bias")
            if shape != (bias.out_features,):
                raise _other_shape(adapter.name, f"{component} {path}'s bias", str(bias.out_features), shape)
        for name, vectors in adapter.embeddings.items():
            for component, rows in vectors.items():
                shape = parameters.get((component, "text_model.embeddings.token_embedding.weight"))
                if shape is None:
                    raise _missing(adapter.name, component)
                if shape[1] != rows.shape[1]:
                    raise AdapterError(
                        f"{adapter.name} brings the word {shown(name)} with {rows.shape[1]} numbers for {component}; "
                        f"the model's words have {shape[1]}; choose an adapter made for this model"
                    )


def _missing(adapter: str, what: str) -> AdapterError:
    return AdapterError(
        f"{adapter} changes {what}, which the model does not have; choose an adapter made for this model"
    )


def _other_shape(adapter: str, what: str, made_for: str, shape: tuple[int, ...]) -> AdapterError:
    return AdapterError(
        f"{adapter} changes {what} of shape {made_for}, the model's is {'×'.join(map(str, shape))}; "
        "choose an adapter made for this model"
    )
