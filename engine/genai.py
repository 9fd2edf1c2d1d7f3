"""The genai runtime: OpenVINO GenAI's pipelines on a copy of the model with the blend baked in.

It runs on any device that GenAI runs on, with none of our code inside the loop. A new blend costs a bake and a
compilation, which are both cached; the live runtime changes a blend in milliseconds.

GenAI 2026.4 differs from diffusers and from the live runtime. These differences are made up for:
- Its noise levels are up to 0.3 % low, because its betas stop one short of the last. It is given diffusers' betas.
- It gives SDXL width and height in each other's place, see `blend_cache._turn_size`.
- It has one noise generator for a whole batch. Pictures are drawn one at a time, each with the noise of its own seed.
- It samples the input picture's latent from the VAE's distribution. The noise is zero here, which gives the mean.
- An exception in a callback ends the process. It is kept, and raised when GenAI has returned.
- It cuts a prompt that is too long without its end token. The prompt is cut here, with a warning.
- lcm starts elsewhere with a strength below 1, and ends the process with any prediction but epsilon. Both are refused.
- In trailing spacing it takes a step too many for some numbers of steps. These are refused.
- It cannot open most of diffusers' schedulers. Their folder is copied with another one, see `genai_scheduler`.
- It ignores latents_mean and latents_std of a VAE. Such a model is refused.

These remain:
- With euler, euler_a and lcm, the latent outside an inpainting mask is not restored after the last step. The pixels
  are, but those inside the mask were decoded next to the wrong ones: they differ by 8 levels after 8 steps of the
  tests' small model, and by more after fewer. ddim does it right.
- With linspace, euler and euler_a round the timesteps, which moves them by half a timestep at most.
- With euler it decodes the denoised latent, so that final_sigmas_type does not show.
- With ddim, the callback gets the noisy latent, not the clean one.
- Pictures are truncated to 8 bits, not rounded: they are half a level darker on average.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from lorablend.adapters import Blend
from lorablend.adapters.errors import Cancelled, DeviceError, LorablendError, ModelError, RequestError
from lorablend.engine.attach import check_attach
from lorablend.engine.blend_cache import BlendCache
from lorablend.engine.devices import devices
from lorablend.engine.genai_scheduler import genai_settings, has_extra_step
from lorablend.engine.mask import masked_cells, paste
from lorablend.engine.model_folder import ModelFolder, refuse_statistics
from lorablend.engine.noise import noise_source, picture_noise
from lorablend.engine.parts import parts_to_bake, refuse_unbakeable
from lorablend.engine.prompt.syntax import text_only_warnings, unescaped
from lorablend.engine.request import Callback, Drawn, Inputs, Request, Step
from lorablend.engine.schedulers import NoiseSchedule, Plan, plan
from lorablend.engine.schedulers.spacing import TIMESTEP_SPACINGS

__all__ = ["GenaiRuntime"]

_SCHEDULERS = {  # all of `GENAI_CLASSES` but pndm, which the live runtime has not
    "euler": genai.Scheduler.Type.EULER_DISCRETE,
    "euler_a": genai.Scheduler.Type.EULER_ANCESTRAL_DISCRETE,
    "ddim": genai.Scheduler.Type.DDIM,
    "lcm": genai.Scheduler.Type.LCM,
}
_PIPELINES: Mapping[str, Callable[[str], Any]] = {
    "text": genai.Text2ImagePipeline,
    "image": genai.Image2ImagePipeline,
    "mask": genai.InpaintingPipeline,
}


@dataclass(frozen=True)
class _Compiled:
    """What a pipeline was compiled for. Static shapes make the first step much faster, and an NPU takes no others."""

    kind: str
    folder: Path
    width: int
    height: int
    guided: bool


class GenaiRuntime:
    """One model on one device. The last pipeline stays compiled. Only one thread may use it at a time."""

    def __init__(self, model: ModelFolder, device: str, precision: str | None, cache_dir: Path) -> None:
        refuse_statistics(model)
        self._model = model
        self._device = device
        self._options = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
        self._cache = BlendCache(cache_dir / "genai")
        self._schedule = NoiseSchedule.from_config(dict(model.scheduler_config))
        self._compiled: _Compiled | None = None
        self._pipeline: Any = None
        self._tokenizer: Any = None

    def generate(self, request: Request, blend: Blend, inputs: Inputs, callback: Callback | None) -> Drawn:
        """Draw `request.batch` pictures.

        Raises:
            AdapterError: an adapter does not fit this model; this and the next come before anything is drawn.
            BaseModelError: an adapter is for another base model.
            BlendError: the blend has a schedule, a mask or a mode, which cannot be baked.
            RequestError: GenAI does not have the scheduler, or cannot do what the request needs.
            ModelError: GenAI cannot read the folder, or the folder lacks a network that the request needs.
            DeviceError: the device cannot run the model.
            ResourceError: the disk has no space for the baked folder.
            Cancelled: the callback returned False.
        """
        _check(request, self._schedule)
        run = plan(request.scheduler, request.steps, self._schedule, request.spacing, request.strength)
        with _openvino_errors(_request_error):
            scheduler = _scheduler(request, self._model.scheduler_config)
        started = time.perf_counter()
        refuse_unbakeable(blend)
        check_attach(blend, self._model.parameters, self._model.family)
        turned = self._model.family == "sdxl" and request.width != request.height
        parts = parts_to_bake(blend, self._model.parameters, None)
        folder, compiled_dir = self._cache.folder(self._model, blend, parts, turned=turned)
        baked = time.perf_counter()
        kind = "text" if inputs.image is None else "image" if inputs.mask is None else "mask"
        wanted = _Compiled(kind, folder, request.width, request.height, request.guidance_scale > 1)
        if wanted != self._compiled:
            self._compile(wanted, request.guidance_scale, compiled_dir)
        loaded = time.perf_counter()
        timings = {"blend": baked - started, "load": loaded - baked, "text": 0.0, "denoise": 0.0, "decode": 0.0}
        with _openvino_errors(_request_error):
            self._pipeline.set_scheduler(scheduler)
            texts, warnings = self._texts(request, folder)
        pictures = [self._draw(request, run, texts, inputs, callback, i, timings) for i in range(request.batch)]
        return Drawn(pictures, timings, (*text_only_warnings(request.prompt, request.negative_prompt), *warnings))

    def _texts(self, request: Request, folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
        """The prompts, cut to the length that the text encoders take, and warnings about what was cut.

        Without a negative prompt GenAI does what diffusers does: zeros if the model's settings say so, else an empty
        prompt.
        """
        texts = {"prompt": unescaped(request.prompt)}
        if request.negative_prompt is not None and request.guidance_scale > 1:
            texts["negative_prompt"] = unescaped(request.negative_prompt)
        length, warnings = self._model.tokenizers["tokenizer"].max_length, []
        tokenizer = self._tokenizer = self._tokenizer or genai.Tokenizer(folder / "tokenizer")
        for name, text in texts.items():
            ids = tokenizer.encode(text).input_ids.data[0]
            if len(ids) > length:
                texts[name], cut = tokenizer.decode([ids[1 : length - 1], ids[length - 1 : -1]])
                warnings.append(f"the {name.replace('_', ' ')} is too long for the model; left out: {cut.strip()}")
        return texts, tuple(warnings)

    def _compile(self, wanted: _Compiled, guidance_scale: float, compiled_dir: Path) -> None:
        self._compiled = self._pipeline = None  # frees its memory before the next one needs as much
        if wanted.kind != "text":
            self._model.component("vae_encoder")
        with _openvino_errors(self._model_error):
            pipeline = _PIPELINES[wanted.kind](str(wanted.folder))
            pipeline.reshape(1, wanted.height, wanted.width, guidance_scale)
        with _openvino_errors(self._device_error):
            # A folder for each precision, see `Compiler.of`.
            compiled_dir /= self._options.get("INFERENCE_PRECISION_HINT", "own")
            pipeline.compile(self._device, **self._options, CACHE_DIR=str(compiled_dir))
        self._compiled, self._pipeline = wanted, pipeline

    def _model_error(self, reason: str) -> ModelError:
        return ModelError(f"openvino_genai cannot read {self._model.path}: {reason}; choose runtime=live")

    def _device_error(self, reason: str) -> DeviceError:
        available = ", ".join(name for name, _ in devices())
        return DeviceError(
            f"device {self._device} cannot run {self._model.path}: {reason}; this machine has {available}"
        )

    def _draw(
        self,
        request: Request,
        run: Plan,
        texts: Mapping[str, str],
        inputs: Inputs,
        callback: Callback | None,
        index: int,
        timings: dict[str, float],
    ) -> np.ndarray:
        """Draw one picture. In a batch drawn by GenAI, a picture's noise would depend on its neighbours."""
        model, seed = self._model, request.seeds[index]
        cell = model.vae_scale_factor
        shape = (1, model.latent_channels, request.height // cell, request.width // cell)
        start = picture_noise(seed, shape) if inputs.latents is None else inputs.latents[index : index + 1]
        noise = _Noise([start] if inputs.image is None else [np.zeros_like(start), start], noise_source(seed))
        report = _Report(callback, run, index, request)
        settings: dict[str, Any] = {
            **texts,
            **_pictures(inputs, cell),
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "width": request.width,
            "height": request.height,
            "generator": noise,
            "callback": report,
        }
        if request.strength is not None:
            settings["strength"] = request.strength
        with _openvino_errors(_request_error):
            result = self._pipeline.generate(**settings)
        if report.failure is not None:
            raise report.failure
        metrics = self._pipeline.get_performance_metrics()
        seconds = metrics.get_generate_duration() / 1000
        decode = metrics.get_vae_decoder_infer_duration() / 1000
        text = sum(metrics.get_text_encoder_infer_duration().values()) / 1000
        for phase, spent in (("text", text), ("decode", decode), ("denoise", seconds - text - decode)):
            timings[phase] += spent
        picture = np.array(result.data[0])
        if inputs.image is not None and inputs.mask is not None:
            picture = paste(picture, inputs.image, inputs.mask)
        return picture


class _Noise(genai.Generator):
    """Our noise in GenAI's loop: first `starts`, one per call, then the picture's own source."""

    def __init__(self, starts: list[np.ndarray], source: np.random.Generator) -> None:
        super().__init__()
        self._starts = starts
        self._source = source

    def next(self) -> float:
        return float(self._source.standard_normal(dtype=np.float32))

    def seed(self, new_seed: int) -> None:
        """Does nothing: the seed is the picture's own."""

    def randn_tensor(self, shape: ov.Shape) -> ov.Tensor:
        array = self._starts.pop(0) if self._starts else self._source.standard_normal(tuple(shape), dtype=np.float32)
        return ov.Tensor(np.ascontiguousarray(array))


class _Report:
    """Translates GenAI's callback to ours.

    An exception of the caller's callback is kept in `failure`; if it passed through GenAI, it would end the process.
    """

    def __init__(self, callback: Callback | None, run: Plan, index: int, request: Request) -> None:
        self._callback = callback
        self._run = run
        self._index = index
        self._request = request
        self.failure: BaseException | None = None

    def __call__(self, step: int, steps: int, latent: ov.Tensor) -> bool:
        """Returns True to stop GenAI."""
        if self._callback is None:
            return False
        picture, pictures = self._index, self._request.batch
        try:
            info = Step(
                index=step,
                steps=steps,
                picture=picture,
                pictures=pictures,
                sigma=float(self._run.sigmas[step]),
                latent=np.array(latent.data),
            )
            if self._callback(info) is False:
                raise Cancelled(f"stopped after step {step + 1} of {steps}, picture {picture + 1} of {pictures}")
        except BaseException as error:
            self.failure = error
            return True
        return False


def _check(request: Request, schedule: NoiseSchedule) -> None:
    """Refuse what GenAI does not have, or does differently."""
    name, spacing, steps = request.scheduler, request.spacing, request.steps
    train_steps, prediction_type = len(schedule.alphas_cumprod), schedule.prediction_type
    if name not in _SCHEDULERS:
        choices = ", ".join(_SCHEDULERS)
        raise RequestError(f"runtime=genai has no scheduler {name}: choose one of {choices}, or runtime=live")
    if request.timesteps is not None:
        raise RequestError("runtime=genai cannot follow timesteps: give steps and spacing, or choose runtime=live")
    if spacing not in TIMESTEP_SPACINGS:
        choices = ", ".join(TIMESTEP_SPACINGS)
        raise RequestError(f"runtime=genai has no spacing {spacing}: choose one of {choices}, or runtime=live")
    if name != "lcm" and spacing == "trailing" and has_extra_step(steps, train_steps):
        less, more = (_without_extra_step(steps, train_steps, way) for way in (-1, 1))
        raise RequestError(
            f"runtime=genai cannot take {steps} steps in trailing spacing: give {less} or {more} steps, or choose "
            "another spacing, or runtime=live"
        )
    if name == "lcm" and prediction_type != "epsilon":
        raise RequestError(f"runtime=genai cannot run lcm with {prediction_type}: choose euler, or runtime=live")
    if name == "lcm" and request.strength not in (None, 1):
        raise RequestError(
            f"runtime=genai cannot run lcm with strength {request.strength}: choose strength 1, euler, or runtime=live"
        )


def _without_extra_step(steps: int, train_steps: int, way: int) -> int:
    """The next number of steps, up or down, that GenAI follows in trailing spacing. 1 is one of them."""
    while has_extra_step(steps, train_steps):
        steps += way
    return steps


def _scheduler(request: Request, config: Mapping[str, Any]) -> genai.Scheduler:
    """GenAI's scheduler with the request's spacing and diffusers' betas."""
    assert request.spacing is not None
    settings = genai_settings(request.scheduler, config, request.spacing)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler_config.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        return genai.Scheduler.from_config(file, _SCHEDULERS[request.scheduler])


def _pictures(inputs: Inputs, cell: int) -> dict[str, ov.Tensor]:
    """The input picture and mask as GenAI takes them, uint8 [1, height, width, 3]; cells are masked as a whole."""
    if inputs.image is None:
        return {}
    image = {"image": ov.Tensor(np.ascontiguousarray(inputs.image[None]))}
    if inputs.mask is None:
        return image
    mask = np.kron(masked_cells(inputs.mask, cell), np.ones((cell, cell), bool))
    return {**image, "mask_image": ov.Tensor(np.repeat(mask[None, ..., None], 3, axis=-1).astype(np.uint8) * 255)}


@contextmanager
def _openvino_errors(translate: Callable[[str], LorablendError]) -> Iterator[None]:
    """Translate OpenVINO's exceptions. Only their last line is the reason; the others are places in its source."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise translate(lines[-1].rstrip(".") if lines else type(error).__name__) from error


def _request_error(reason: str) -> RequestError:
    return RequestError(f"openvino_genai: {reason}; choose runtime=live")
