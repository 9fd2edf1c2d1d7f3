"""The live runtime: sockets and our own denoising loop; a change of blend needs no compilation."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import openvino as ov
import psutil

from lorablend.adapters import Blend, BlendItem
from lorablend.adapters.errors import BlendError, Cancelled, ModelError
from lorablend.engine.attach import check_attach
from lorablend.engine.blend_cache import BlendCache
from lorablend.engine.live.compiler import Compiler
from lorablend.engine.live.program import (
    Pass,
    PluggedProgram,
    Program,
    SteeredProgram,
    Texts,
    always_on,
    needs_steering,
)
from lorablend.engine.live.tensor_cache import TensorCache
from lorablend.engine.live.text import Conditioning, TextEncoders, changes_text
from lorablend.engine.live.unet import GraphVariant, Unet
from lorablend.engine.live.vae import Vae
from lorablend.engine.mask import masked_cells, paste
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.noise import noise_source, picture_noise
from lorablend.engine.parts import Parts, content_of, parts_to_bake, whole_modules
from lorablend.engine.prompt.editing import texts_by_step
from lorablend.engine.prompt.syntax import unsupported_warnings
from lorablend.engine.request import Callback, Drawn, Inputs, Request, Step
from lorablend.engine.schedulers import NoiseSchedule, Plan, denoiser, plan, sample
from lorablend.engine.schedulers.plans import Denoise

__all__ = ["LiveRuntime"]

_CACHE_SHARE = 1 / 8  # of the machine's memory, for the tensors of recent blends
_SMALL = 2**27  # bytes of a UNet's weights


class LiveRuntime:
    """One model on one device. Only one thread may use it at a time.

    A blend needs a new compilation only if its adapters change something that has no socket (see `parts`), or if it is
    the first one with a gate, a mask or a ramp (see `unet.GraphVariant`). Baked folders are kept on disk by their
    content, and so are the graphs compiled from them.
    """

    def __init__(
        self, model: ModelFolder, device: str, precision: str | None, cache_dir: Path, max_rank: int | None = None
    ) -> None:
        self._model = model
        options: dict[str, str] = {}
        if precision is not None:
            options["INFERENCE_PRECISION_HINT"] = precision
        if device == "CPU" and model.component("unet").with_suffix(".bin").stat().st_size < _SMALL:
            # Each graph has a TBB arena of its own. On a busy machine a thread stays in an arena for up to a second
            # without work. Graphs that run for milliseconds in turn never get it back in that time, and the tasks that
            # static_partitioner left for it pile up: 2 MB per picture of the demo model (OpenVINO 2026.4.1; see
            # uxlfoundation/oneTBB#1403; TBB_PARTITIONER AUTO, or threads for the UNet alone, reduce it but do not end
            # it). Without streams a graph runs on its caller's thread: 1.05 s instead of 0.82 s per picture on two
            # quiet cores. Large graphs keep their threads.
            options["NUM_STREAMS"] = "0"
        cache = TensorCache(int(psutil.virtual_memory().total * _CACHE_SHARE))
        self._compiler = Compiler.of(ov.Core(), device, options, cache_dir / "live", cache, max_rank)
        self._baked = BlendCache(cache_dir / "baked")
        self._schedule = NoiseSchedule.from_config(dict(model.scheduler_config))
        self._text: tuple[object, TextEncoders] | None = None
        self._unet: tuple[object, Unet] | None = None
        self._vae = Vae(self._compiler.core, model, device, self._compiler.options)

    def generate(self, request: Request, blend: Blend, inputs: Inputs, callback: Callback | None) -> Drawn:
        """Draw `request.batch` pictures.

        Raises:
            AdapterError: an adapter does not fit this model; this and the next come before anything is drawn.
            BaseModelError: an adapter is for another base model.
            BlendError: parts of the blend cannot be combined, such as a mask with a change that has to be baked.
            ModelError: the model cannot be compiled with sockets, or its numbers overflow.
            RequestError: the scheduler cannot do what the request needs.
            ResourceError: the disk has no space for the weights that have to be baked.
            Cancelled: the callback returned False.
        """
        clock = _Clock()
        run = plan(
            request.scheduler, request.steps, self._schedule, request.spacing, request.strength, request.timesteps
        )
        if blend:
            check_attach(blend, self._model.parameters, self._model.family)
        steered = needs_steering(blend, len(run))
        with clock.phase("blend"):
            parts = self._parts_to_bake(blend, len(run))
        with clock.phase("load"):
            text, unet = self._load((request.width, request.height), blend, parts, steered)
        texts = _texts(request, len(run))
        encoded: dict[tuple[str | None, tuple[BlendItem, ...]], Conditioning] = {}

        def encode(prompts: Texts, items: Sequence[BlendItem]) -> list[Conditioning]:
            heard = tuple(item for item in items if changes_text(item))
            for prompt in prompts:
                if (prompt, heard) not in encoded:
                    with clock.phase("text"):
                        encoded[prompt, heard] = text.encode(prompt, heard, request.prompt_rule)
            return [encoded[prompt, heard] for prompt in prompts]

        with clock.phase("blend"):
            make = SteeredProgram if steered else PluggedProgram
            program = make(blend, texts, unet, encode)
        clock.seconds["blend"] -= clock.seconds["text"]
        cell = self._model.vae_scale_factor
        with clock.phase("encode"):
            start = None if inputs.image is None else self._vae.encode(inputs.image)
            mask = None if inputs.mask is None else masked_cells(inputs.mask, cell).astype(np.float32)[None, None]
        task = _Task(request, run, unet, program, start, mask, callback)
        pictures = []
        for index in range(request.batch):
            with clock.phase("denoise"):
                latent = self._denoise(task, index, self._noise(request, inputs, index))
            with clock.phase("decode"):
                picture = self._vae.decode(latent)
                if inputs.image is not None and inputs.mask is not None:
                    picture = paste(picture, inputs.image, inputs.mask)
                pictures.append(picture)
        syntax = unsupported_warnings(request.prompt, request.negative_prompt) if request.prompt_rule == "a1111" else ()
        warnings = (*syntax, *_baked_warning(parts))
        return Drawn(pictures, clock.seconds, warnings, program.errors)

    def _parts_to_bake(self, blend: Blend, steps: int) -> Parts:
        """The parts that cannot be live.

        Raises:
            BlendError: an adapter with such a part has a schedule, a mask or a turn.
        """
        shapes = self._model.parameters
        parts = parts_to_bake(blend, shapes, self._sockets())
        adapters = {id(part.adapter) for of_parameter in parts.values() for part in of_parameter}
        for index, item in enumerate(blend.items):
            if id(item.adapter) in adapters and not always_on(blend, index, steps):
                raise BlendError(
                    f"{item.adapter.name} has changes that can only be baked into the model's weights, so it cannot "
                    "have a schedule, a mask or a turn; leave those out"
                )
        return parts

    def _sockets(self) -> set[tuple[str, str]]:
        """The module of every linear layer and convolution; an embedding is looked up, not multiplied with."""
        return {
            (component, name.removesuffix(".weight"))
            for (component, name), shape in self._model.parameters.items()
            if len(shape) > 1 and name.endswith(".weight") and "embeddings." not in name
        }

    def _load(self, size: tuple[int, int], blend: Blend, parts: Parts, steered: bool) -> tuple[TextEncoders, Unet]:
        """The networks, compiled when first needed, and again for another size or for other baked weights."""
        folder = self._model
        if parts:
            folder = ModelFolder(self._baked.folder(self._model, blend, parts)[0])
        whole = whole_modules(parts, self._model.parameters)
        gated = {
            component
            for item in blend.items
            for (component, _), delta in item.adapter.deltas.items()
            if delta.live == "gate"
        }
        text_gates = bool(gated - {"unet"})

        encoders = [name for name in ("text_encoder", "text_encoder_2") if name in self._model.components]
        changed = content_of({key: value for key, value in parts.items() if key[0] != "unet"})
        if self._text is None or self._text[0] != changed or (text_gates and not self._text[1].gates):
            graphs = {name: folder.component(name) for name in encoders}
            self._text = None
            text = TextEncoders(self._compiler, self._model, graphs, self._read_weight, text_gates, whole)
            self._text = (changed, text)

        variant = GraphVariant(gates="unet" in gated, steered=steered)
        key = (size, content_of({key: value for key, value in parts.items() if key[0] == "unet"}))
        if self._unet is None or self._unet[0] != key or not self._unet[1].variant.covers(variant):
            if self._unet is not None:
                variant |= self._unet[1].variant  # a user of masks will use them again
            self._unet = None  # frees its memory before the next one needs as much
            baked = [path for component, path in whole if component == "unet"]
            read = partial(self._read_weight, "unet")
            self._unet = (key, Unet(self._compiler, folder, size, read, variant, baked))
        self._refuse_unplugged(blend, parts, self._unet[1])
        return self._text[1], self._unet[1]

    def _refuse_unplugged(self, blend: Blend, parts: Parts, unet: Unet) -> None:
        """Raise ModelError for a layer that `_sockets` counts on, but that got no socket: it is of an unknown kind."""
        for item in blend.items:
            for component, path in item.adapter.deltas:
                changes = component == "unet" and (component, f"{path}.weight") not in parts
                if changes and path not in unet.sockets and item.weight_of(component, path):
                    raise ModelError(
                        f"{item.adapter.name} changes {path}, which in {self._model.path} is not a layer that an "
                        "adapter can be plugged into; use runtime=genai"
                    )

    def _read_weight(self, component: str, path: str) -> np.ndarray:
        """A module's weight in the model itself, f32."""
        return self._model.graphs[component].read(f"{path}.weight")

    def _noise(self, request: Request, inputs: Inputs, index: int) -> np.ndarray:
        if inputs.latents is not None:
            return inputs.latents[index : index + 1]
        cell = self._model.vae_scale_factor
        shape = (1, self._model.latent_channels, request.height // cell, request.width // cell)
        return picture_noise(request.seeds[index], shape)

    def _denoise(self, task: "_Task", index: int, noise: np.ndarray) -> np.ndarray:
        """The clean latent of one picture, f32 [1, 4, h, w], from noise of the same shape."""
        request, run, start, mask, callback = task.request, task.run, task.start, task.mask, task.callback
        guidance = np.float32(request.guidance_scale)
        done = 0

        def predict(x: np.ndarray, t: float) -> np.ndarray:
            passes = task.program.passes(done)
            return sum(guided(x, t, one_pass) for one_pass in passes) / np.float32(len(passes))

        def guided(x: np.ndarray, t: float, one_pass: Pass) -> np.ndarray:
            one_pass.bind()
            output = task.unet(x, t, one_pass.prompted[0])
            if len(one_pass.prompted) == 1:
                return output
            negative = task.unet(x, t, one_pass.prompted[1])  # classifier-free guidance (arXiv:2207.12598)
            return negative + guidance * (output - negative)

        denoise = denoiser(predict, self._schedule.prediction_type)
        if start is not None and mask is not None:
            denoise = _repaint(denoise, start, noise, mask)

        def report(step: int, sigma: float, _x: np.ndarray, denoised: np.ndarray) -> None:
            nonlocal done
            done = step + 1
            if callback is None:
                return
            info = Step(
                index=step, steps=len(run), picture=index, pictures=request.batch, sigma=float(sigma), latent=denoised
            )
            if callback(info) is False:
                raise Cancelled(f"stopped after step {step + 1} of {len(run)}, picture {index + 1} of {request.batch}")

        # As in diffusers, inpainting at full strength starts from noise alone; image to image does not.
        if start is None or (mask is not None and request.strength == 1):
            x = noise * np.float32(run.init_sigma)
        else:
            x = start + noise * np.float32(run.sigmas[0])
        source = noise_source(request.seeds[index])
        return sample(run, denoise, x, lambda: source.standard_normal(x.shape, dtype=np.float32), callback=report)


@dataclass(frozen=True)
class _Task:
    """What all pictures of one request share.

    start: the input picture's latent, f32 [1, 4, h, w]. mask: f32 [1, 1, h, w], 1 = repaint.
    """

    request: Request
    run: Plan
    unet: Unet
    program: Program
    start: np.ndarray | None
    mask: np.ndarray | None
    callback: Callback | None


def _repaint(denoise: Denoise, start: np.ndarray, noise: np.ndarray, mask: np.ndarray) -> Denoise:
    """Keep the input picture outside the mask: x is replaced by it there, at the step's noise level, and so is x0."""

    def masked(x: np.ndarray, sigma: float, t: float) -> np.ndarray:
        denoised = denoise(x * mask + (start + noise * np.float32(sigma)) * (1 - mask), sigma, t)
        return denoised * mask + start * (1 - mask)

    return masked


def _baked_warning(parts: Parts) -> tuple[str, ...]:
    """The warning that parts of the blend were baked."""
    if not parts:
        return ()
    names = sorted({part.adapter.name for of_parameter in parts.values() for part in of_parameter})
    return (f"baked, because no socket can hold them: {len(parts)} changes of {', '.join(names)}",)


def _texts(request: Request, steps: int) -> list[Texts]:
    """The prompts of each step."""
    prompts = (request.prompt, request.negative_prompt) if request.guidance_scale > 1 else (request.prompt,)
    if request.prompt_rule != "a1111":
        return [prompts] * steps
    by_prompt = [[None] * steps if prompt is None else texts_by_step(prompt, steps) for prompt in prompts]
    return list(zip(*by_prompt, strict=True))


class _Clock:
    """Adds up the seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
