"""The VAE: from pictures to latents and back."""

from collections.abc import Mapping

import numpy as np
import openvino as ov

from lorablend.adapters.errors import ModelError
from lorablend.engine.model_folder import ModelFolder

__all__ = ["Vae"]


class Vae:
    """Encoder and decoder. Each is compiled when first needed, and kept for the last picture size."""

    def __init__(self, core: ov.Core, model: ModelFolder, device: str, options: Mapping[str, str]) -> None:
        self._core = core
        self._model = model
        self._device = device
        self._options = dict(options)
        self._compiled: dict[str, tuple[list[int], ov.InferRequest]] = {}

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Turn a latent in the UNet's scale, f32 [1, 4, h, w], into a picture, uint8 [8h, 8w, 3].

        Raises:
            ModelError: numbers have overflowed, which would give a black picture.
        """
        sample = latent / self._model.scaling_factor
        if statistics := self._model.latent_statistics:
            sample = sample * statistics[1] + statistics[0]
        sample = sample + self._model.shift_factor
        pixels = self._run("vae_decoder", sample.astype(np.float32))[0]
        if not np.isfinite(pixels).all():
            network = "VAE" if np.isfinite(latent).all() else "UNet"
            raise ModelError(
                f"no picture was drawn: numbers in the {network} of {self._model.path} overflow; "
                "use precision f32, or give adapters less weight"
            )
        return (np.clip(pixels / 2 + 0.5, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)

    def encode(self, picture: np.ndarray) -> np.ndarray:
        """Turn a picture, uint8 [8h, 8w, 3], into a latent in the UNet's scale, f32 [1, 4, h, w].

        The latent is the mode of the encoder's distribution, not a sample.
        """
        pixels = (picture.astype(np.float32) / 255 * 2 - 1).transpose(2, 0, 1)[None]
        mean, _ = np.split(self._run("vae_encoder", np.ascontiguousarray(pixels)), 2, axis=1)
        mean = mean - self._model.shift_factor
        if statistics := self._model.latent_statistics:
            mean = (mean - statistics[0]) / statistics[1]
        return mean * np.float32(self._model.scaling_factor)

    def _run(self, component: str, value: np.ndarray) -> np.ndarray:
        shape, request = self._compiled.get(component, (None, None))
        if request is None or shape != list(value.shape):
            self._compiled.pop(component, None)
            graph = self._core.read_model(self._model.component(component))
            graph.reshape(list(value.shape))
            request = self._core.compile_model(graph, self._device, self._options).create_infer_request()
            self._compiled[component] = (list(value.shape), request)
        request.infer([ov.Tensor(value)])
        return np.array(request.get_output_tensor(0).data, np.float32)
