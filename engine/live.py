"""The live runtime: sockets, our own denoising loop, any blend without recompiling."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openvino as ov
import psutil
from openvino import opset13 as op

from lorablend.adapters import Blend
from lorablend.adapters.errors import Cancelled
from lorablend.engine.attach import check_attach
from lorablend.engine.disk_cache import make_room
from lorablend.engine.graphs import new_model
from lorablend.engine.mask import masked_cells, paste
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.noise import noise_source, picture_noise
from lorablend.engine.plugs import TensorCache
from lorablend.engine.request import Callback, Inputs, Request, Step
from lorablend.engine.schedulers import NoiseSchedule, Plan, denoiser, plan, sample
from lorablend.engine.schedulers.plans import Denoise
from lorablend.engine.text import Conditioning, TextEncoders
from lorablend.engine.unet import Prompted, Unet
from lorablend.engine.vae import Vae

__all__ = ["LiveRuntime"]

_KEPT_PART = 1 / 8  # of the machine's memory, for tensors of blends seen before


class LiveRuntime:
    """One model on one device. Not for two threads at once."""

    def __init__(self, model: ModelFolder, device: str, precision: str | None, cache_dir: Path | None) -> None:
        self._model = model
        self._device = device
        self._core = ov.Core()
        self._options: dict[str, str] = {}
        if precision is not None:
            self._options["INFERENCE_PRECISION_HINT"] = precision
        self._socket_type = _socket_type(self._core, device, self._options)
        if cache_dir is not None:
            compiled = cache_dir / "live"
            compiled.mkdir(parents=True, exist_ok=True)
            make_room(compiled)
            self._options["CACHE_DIR"] = str(compiled)
        self._cache = TensorCache(int(psutil.virtual_memory().total * _KEPT_PART))
        self._schedule = NoiseSchedule.from_config(dict(model.scheduler_config))
        self._text: TextEncoders | None = None
        self._unet: Unet | None = None
        self._vae = Vae(self._core, model, device, self._options)

    def generate(
        self, request: Request, blend: Blend, inputs: Inputs, callback: Callback | None
    ) -> tuple[list[np.ndarray], dict[str, float], tuple[str, ...]]:
        """uint8 [height, width, 3] per seed; seconds per phase; warnings.

        Raises:
            AdapterError, BaseModelError: an adapter does not fit this model. Nothing has been drawn then.
            RequestError: the scheduler cannot do what is asked.
            Cancelled: the callback returned False.
        """
        clock = _Clock()
        run = plan(request.scheduler, request.steps, self._schedule, request.spacing, request.strength)
        if blend:
            check_attach(blend, self._model.modules, self._model.family)
        with clock.phase("load"):
            text, unet = self._load((request.width, request.height))
        with clock.phase("blend"):
            unet.plug(blend)
        with clock.phase("text"):
            conditionings = [text.encode(request.prompt, blend)]
            if request.guidance_scale > 1:
                conditionings.append(text.encode(request.negative_prompt, blend))
            prompted = [unet.prompt(conditioning) for conditioning in conditionings]
        cell = self._model.vae_scale_factor
        with clock.phase("encode"):
            start = None if inputs.image is None else self._vae.encode(inputs.image)
            mask = None if inputs.mask is None else masked_cells(inputs.mask, cell).astype(np.float32)[None, None]
        pictures = []
        for index, seed in enumerate(request.seeds):
            with clock.phase("denoise"):
                noise = self._noise(request, inputs, index, seed)
                latent = self._denoise(request, run, unet, prompted, noise, start, mask, callback, index, seed)
            with clock.phase("decode"):
                picture = self._vae.decode(latent)
                if inputs.image is not None and inputs.mask is not None:
                    picture = paste(picture, inputs.image, inputs.mask)
                pictures.append(picture)
        return pictures, clock.seconds, _warnings(conditionings)

    def _load(self, size: tuple[int, int]) -> tuple[TextEncoders, Unet]:
        """The networks, compiled when they are first needed; the UNet again when the size changes."""
        common = (self._device, self._options, self._socket_type, self._cache)
        if self._text is None:
            self._text = TextEncoders(self._core, self._model, *common)
        if self._unet is None or self._unet.size != size:
            self._unet = None  # gives its memory back before the next one takes as much
            self._unet = Unet(self._core, self._model, size, *common)
        return self._text, self._unet

    def _noise(self, request: Request, inputs: Inputs, index: int, seed: int) -> np.ndarray:
        if inputs.latents is not None:
            return inputs.latents[index : index + 1]
        cell = self._model.vae_scale_factor
        return picture_noise(seed, (1, self._model.latent_channels, request.height // cell, request.width // cell))

    def _denoise(
        self,
        request: Request,
        run: Plan,
        unet: Unet,
        prompted: list[Prompted],
        noise: np.ndarray,
        start: np.ndarray | None,
        mask: np.ndarray | None,
        callback: Callback | None,
        index: int,
        seed: int,
    ) -> np.ndarray:
        """f32 [1, 4, h, w]: the clean latent. start: the input picture's latent; mask: [1, 1, h, w], 1 = repaint."""
        guidance = np.float32(request.guidance_scale)

        def predict(x: np.ndarray, t: float) -> np.ndarray:
            output = unet(x, t, prompted[0])
            if len(prompted) == 1:
                return output
            negative = unet(x, t, prompted[1])  # classifier-free guidance (arXiv 2207.12598)
            return negative + guidance * (output - negative)

        denoise = denoiser(predict, self._schedule.prediction_type)
        if start is not None and mask is not None:
            denoise = _repaint(denoise, start, noise, mask)

        def report(step: int, sigma: float, _x: np.ndarray, denoised: np.ndarray) -> None:
            if callback is None:
                return
            info = Step(
                index=step, steps=len(run), picture=index, pictures=request.batch, sigma=float(sigma), latent=denoised
            )
            if callback(info) is False:
                raise Cancelled(f"stopped after step {step + 1} of {len(run)}, picture {index + 1} of {request.batch}")

        # As in diffusers, inpainting at full strength forgets what was there, image to image does not.
        if start is None or (mask is not None and request.strength == 1):
            x = noise * np.float32(run.init_sigma)
        else:
            x = start + noise * np.float32(run.sigmas[0])
        source = noise_source(seed)
        return sample(run, denoise, x, lambda: source.standard_normal(x.shape, dtype=np.float32), callback=report)


def _socket_type(core: ov.Core, device: str, options: dict[str, str]) -> ov.Type:
    """The type that the device really computes in with these options: asked for f16, some CPUs take bf16."""
    value = op.parameter([1], ov.Type.f32)
    compiled = core.compile_model(new_model([op.result(op.relu(value))], [value], "probe"), device, options)
    return compiled.get_property("INFERENCE_PRECISION_HINT")


def _repaint(denoise: Denoise, start: np.ndarray, noise: np.ndarray, mask: np.ndarray) -> Denoise:
    """Outside the mask, x is the input picture at the step's own noise level, and the answer is the input picture."""

    def masked(x: np.ndarray, sigma: float, t: float) -> np.ndarray:
        denoised = denoise(x * mask + (start + noise * np.float32(sigma)) * (1 - mask), sigma, t)
        return denoised * mask + start * (1 - mask)

    return masked


def _warnings(conditionings: list[Conditioning]) -> tuple[str, ...]:
    names = ("prompt", "negative prompt")
    return tuple(
        f"the {name} is too long for the model; left out: {conditioning.cut}"
        for name, conditioning in zip(names, conditionings, strict=False)
        if conditioning.cut
    )


class _Clock:
    """Adds up seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
