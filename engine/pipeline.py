"""The entry point of the engine: prompt, adapters and settings in, pictures out."""

import dataclasses
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from lorablend.adapters import Adapter, Blend, BlendItem, Entry, load_adapter, parse_prompt, resolve_blend
from lorablend.adapters.blends.blend import MAX_ITEMS
from lorablend.adapters.errors import RequestError
from lorablend.engine.attach import check_attach
from lorablend.engine.devices import resolve_device
from lorablend.engine.disk_cache import default_cache_dir
from lorablend.engine.given import ImageLike, entries_of, latents_of, on_white, picture_of
from lorablend.engine.mask import greys, open_mask
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.request import Callback, Drawn, Inputs, Request, Result
from lorablend.engine.schedulers import NoiseSchedule, from_diffusers_class, not_followed, plan
from lorablend.engine.settings import BATCH, SETTINGS, Settings
from lorablend.shipped import adapters_dir as demo_adapters
from lorablend.shipped import model_dir as demo_model

__all__ = ["Pipeline"]

BlendLike = Blend | BlendItem | Adapter | Mapping[str, Any] | Sequence[Entry] | Entry | str | Path | None
RUNTIMES = ("auto", "live", "genai")
PRECISIONS = ("f32", "f16", "bf16")
_KEPT_ADAPTERS = 4 * MAX_ITEMS  # parsed adapters; each takes a megabyte, and keeps its file mapped


class _Runtime(Protocol):
    def generate(self, request: Request, blend: Blend, inputs: Inputs, callback: Callback | None) -> Drawn: ...


class Pipeline:
    """A model on a device.

        pipe = Pipeline("sdxl-int8", lora_dir="adapters")
        result = pipe.generate("a fox <lora:ink:0.8>", seed=7)
        result.images[0].save("fox.png")

    Nothing is compiled before the first picture. Not for use by two threads at once.

    Args:
        model_dir: A folder that `lorablend convert` wrote, or "demo", the small model that is shipped, with its
            adapters.
        device: As OpenVINO names it.
        runtime: "live" plugs adapters into the compiled graph (CPU); "genai" bakes them into a copy of the model that
            openvino_genai runs (any device); "auto" is live on the CPU and genai elsewhere.
        precision: What the device computes in, "f32", "f16" or "bf16"; None is the device's own choice.
        lora_dir: Where adapters are found by name.
        max_rank: Where the ranks of a blend's adapters add up to more in one module, the best approximation of this
            rank replaces them (live runtime; `Result.rank_errors` tells the cost).
        lenient: Use adapters with tensors that are not understood, without those tensors.

    Raises:
        ModelError: the folder is incomplete or holds another kind of model.
        DeviceError: there is no such device.
        RequestError: unknown runtime or precision.
    """

    def __init__(
        self,
        model_dir: str | Path,
        device: str = "CPU",
        runtime: str = "auto",
        precision: str | None = None,
        *,
        lora_dir: str | Path | None = None,
        cache_dir: str | Path | None = None,
        max_rank: int | None = None,
        lenient: bool = False,
    ) -> None:
        for name, path in (("model_dir", model_dir), ("lora_dir", lora_dir), ("cache_dir", cache_dir)):
            if not isinstance(path, str | os.PathLike) and (path is not None or name == "model_dir"):
                raise RequestError(f"{name} is of type {type(path).__name__}; give a folder")
        if not isinstance(device, str):
            raise RequestError(f"device is of type {type(device).__name__}; give OpenVINO's name of it, such as CPU")
        if max_rank is not None and (isinstance(max_rank, bool) or not isinstance(max_rank, Integral)):
            raise RequestError(f"max_rank is {max_rank!r}; give a whole number")
        if runtime not in RUNTIMES:
            raise RequestError(f"runtime is {runtime!r}; choose one of {', '.join(RUNTIMES)}")
        if precision is not None and precision not in PRECISIONS:
            raise RequestError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
        if str(model_dir) == "demo":
            model_dir, lora_dir = demo_model(), lora_dir or demo_adapters()
        self.model = ModelFolder(Path(model_dir))
        self.device = resolve_device(device)
        usual = "live" if self.device == "CPU" or self.model.latent_statistics else "genai"
        self.runtime = usual if runtime == "auto" else runtime
        self.precision, self.max_rank, self.lenient = precision, max_rank, lenient
        self._lora_dir = None if lora_dir is None else Path(lora_dir)
        self._adapters = _AdapterStore(lenient)
        self._schedule = NoiseSchedule.from_config(dict(self.model.scheduler_config))
        cache = default_cache_dir() if cache_dir is None else Path(cache_dir)
        if max_rank is not None and max_rank < 1:
            raise RequestError(f"max_rank is {max_rank}; give 1 or more")
        self._runtime: _Runtime
        if self.runtime == "live":
            from lorablend.engine.live.runtime import LiveRuntime

            self._runtime = LiveRuntime(self.model, self.device, precision, cache, max_rank)
        else:
            from lorablend.engine.genai import GenaiRuntime  # OpenVINO GenAI loads in half a second

            if max_rank is not None:
                raise RequestError(
                    "max_rank is for the live runtime; with runtime genai a blend costs nothing per step"
                )
            self._runtime = GenaiRuntime(self.model, self.device, precision, cache)

    def generate(
        self,
        prompt: str,
        negative_prompt: str | None = None,
        *,
        blend: BlendLike = (),
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance_scale: float = Settings.guidance_scale,
        seed: int | None = None,
        scheduler: str | None = None,
        spacing: str | None = None,
        timesteps: Sequence[float] | None = None,
        batch: int = BATCH.default,
        image: ImageLike | None = None,
        strength: float | None = None,
        prompt_rule: str = Settings.prompt_rule,
        mask: ImageLike | None = None,
        latents: np.ndarray | None = None,
        callback: Callback | None = None,
    ) -> Result:
        """Draw `batch` pictures; picture i has the seed `seed + i`, and is the same whatever the batch.

        `lorablend.engine.settings` declares the settings, with their ranges and defaults.

        Args:
            prompt: What the picture shows. `<lora:name:weight>` tags in it are added to the blend.
            negative_prompt: What to keep out. None is not "", see the model's `force_zeros_for_empty_prompt`.
            blend: Pairs of an adapter (file, name in lora_dir, or Adapter) and its weight, or anything else that
                `resolve_blend` takes, with weights per block, schedules and masks; or a blend's JSON form, such as
                `Request.blend`; or a text of tags, or one adapter alone, with weight 1.
            width: Pixels. None is the model's own width, or the input picture's.
            height: Pixels, like the width.
            steps: Denoising steps.
            guidance_scale: How closely to follow the prompt; 1 or less is not at all.
            seed: The noise to start from; None draws one by chance.
            scheduler: A name of `lorablend.engine.schedulers`; None is the model's own.
            spacing: How the noise levels are spread over the steps; None is the model's own.
            timesteps: What the model is told in each step, falling, such as [999, 749, 499, 249]; in place of steps and
                spacing.
            batch: How many pictures to draw.
            image: The picture to start from, scaled to the size: a PIL image, a path, or an array as `ImageLike` has
                it. What is transparent in it is white.
            strength: With an image, the last part of the steps that is run.
            prompt_rule: Whose rule reads the weights of words in the prompts, such as (red:1.3): "a1111" or "comfy",
                see `lorablend.engine.prompt.weights`.
            mask: Where it is white, the image is repainted; where it is black or transparent, the image stays. Colours
                count by their brightness: pure red repaints a third. In the same forms as the image.
            latents: f32 [batch, 4, height/8, width/8], unit variance, instead of the seeds' noise.
            callback: Called after every step.

        Raises:
            AdapterError, BaseModelError, BlendError, RequestError: see each; nothing is drawn then.
            Cancelled: the callback returned False.
        """
        started = time.perf_counter()
        if callback is not None and not callable(callback):
            raise RequestError(f"callback is of type {type(callback).__name__}; give a function")
        settings = Settings(
            prompt=prompt,
            negative_prompt=negative_prompt,
            steps=steps,
            scheduler=scheduler,
            spacing=spacing,
            timesteps=timesteps,  # pyright: ignore[reportArgumentType] - checked, and turned into a tuple
            guidance_scale=guidance_scale,
            seed=seed,
            width=width,
            height=height,
            strength=strength,
            prompt_rule=prompt_rule,
        )
        request, resolved, inputs, loaded = self._prepare(settings, blend, batch, image, mask, latents)
        drawn = self._runtime.generate(request, resolved, inputs, callback)
        timings = drawn.timings
        timings["blend"] = timings.get("blend", 0.0) + loaded
        timings["total"] = time.perf_counter() - started
        images = [Image.fromarray(picture) for picture in drawn.pictures]
        of_adapters = [f"{item.adapter.name}: {text}" for item in resolved.items for text in item.adapter.warnings]
        of_scheduler = not_followed(self.model.scheduler_config) if scheduler is None else ()
        return Result(
            images=images,
            seeds=request.seeds,
            timings=timings,
            blend=resolved,
            request=request,
            warnings=(*of_adapters, *of_scheduler, *drawn.warnings),
            rank_errors=drawn.rank_errors,
        )

    def check(self, prompt: str, negative_prompt: str | None = None, **arguments: Any) -> Request:
        """The request that `generate` would draw with these arguments; raises what it would raise before it begins.

        Reads the adapters, so that a wrong one is refused at once. May be called while another thread draws.
        """
        own = {name: arguments.pop(name) for name in SETTINGS.keys() & arguments.keys() - {"batch"}}
        settings = Settings(prompt=prompt, negative_prompt=negative_prompt, **own)
        request, resolved, _, _ = self._prepare(settings, **arguments)
        check_attach(resolved, self.model.parameters, self.model.family)
        return request

    def resolve(
        self,
        settings: Settings,
        blend: Blend,
        batch: int = BATCH.default,
        image: Image.Image | None = None,
        mask: Image.Image | None = None,
    ) -> Request:
        """The request for these settings, with every default filled in from the model and the input picture.

        Raises:
            RequestError: the settings do not go together, or not with the scheduler.
        """
        if mask is not None and image is None:
            raise RequestError("mask is given without image; give the picture that it belongs to")
        for name, setting in SETTINGS.items():
            if setting.needs == "image" and image is None and getattr(settings, name) != setting.neutral:
                raise RequestError(f"{name} is given without image; give the picture to start from")
        width, height = self.model.default_size if image is None else _floor_to_eight(image.size)
        scheduler, steps, strength = settings.scheduler, settings.steps, settings.strength
        if scheduler is None:
            scheduler = from_diffusers_class(self.model.scheduler_class, dict(self.model.scheduler_config))
        if steps is None:
            steps = SETTINGS["steps"].default if settings.timesteps is None else len(settings.timesteps)
        if strength is None and image is not None:
            strength = SETTINGS["strength"].default
        own: dict[str, Any] = {
            "width": width if settings.width is None else settings.width,
            "height": height if settings.height is None else settings.height,
            "steps": steps,
            "seed": secrets.randbelow(2**32) if settings.seed is None else settings.seed,
            "scheduler": scheduler,
            "strength": strength,
        }
        request = Request(**vars(settings) | own, blend=blend.to_dict(), batch=BATCH.checked(batch))
        run = plan(scheduler, request.steps, self._schedule, request.spacing, request.strength, request.timesteps)
        return dataclasses.replace(request, spacing=run.spacing)

    def _prepare(
        self,
        settings: Settings,
        blend: BlendLike = (),
        batch: int = BATCH.default,
        image: ImageLike | None = None,
        mask: ImageLike | None = None,
        latents: np.ndarray | None = None,
    ) -> tuple[Request, Blend, Inputs, float]:
        """The request, the adapters, the arrays, and the seconds that reading the adapters took."""
        text, tags = parse_prompt(settings.prompt)
        entries = [*entries_of(blend), *tags]
        image, mask = picture_of("image", image), picture_of("mask", mask)
        loading = time.perf_counter()
        resolved = resolve_blend(entries, self._lora_dir, load=self._adapters.load, open_mask=open_mask)
        loaded = time.perf_counter() - loading
        request = self.resolve(dataclasses.replace(settings, prompt=text), resolved, batch, image, mask)
        return request, resolved, self._inputs(request, image, mask, latents), loaded

    def _inputs(
        self, request: Request, image: Image.Image | None, mask: Image.Image | None, latents: np.ndarray | None
    ) -> Inputs:
        size = (request.width, request.height)
        cell = self.model.vae_scale_factor
        latents = latents_of(latents)
        if latents is not None:
            expected = (request.batch, self.model.latent_channels, request.height // cell, request.width // cell)
            if latents.shape != expected:
                raise RequestError(
                    f"latents have the shape {list(latents.shape)}; these settings need {list(expected)}"
                )
        return Inputs(
            image=None if image is None else np.array(on_white(image).resize(size, Image.Resampling.LANCZOS)),
            mask=None
            if mask is None
            else np.array(Image.fromarray(greys(mask)).resize(size, Image.Resampling.BILINEAR)),
            latents=latents,
        )


class _AdapterStore:
    """The adapters that were used last, as long as their files do not change."""

    def __init__(self, lenient: bool) -> None:
        self._lenient = lenient
        self._known: OrderedDict[Path, tuple[object, Adapter]] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, path: str | Path) -> Adapter:
        with self._lock:
            return self._load(path)

    def _load(self, path: str | Path) -> Adapter:
        key = Path(path).absolute()  # links stay: their own name counts, and PEFT's settings are next to them
        stamp = [_stamp(file) for file in (key, key.with_name("adapter_config.json"))]
        if key not in self._known or self._known[key][0] != stamp:
            self._known[key] = (stamp, load_adapter(path, lenient=self._lenient))
        self._known.move_to_end(key)
        while len(self._known) > _KEPT_ADAPTERS:
            self._known.popitem(last=False)
        return self._known[key][1]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _floor_to_eight(size: tuple[int, int]) -> tuple[int, int]:
    return max(size[0] // 8 * 8, 64), max(size[1] // 8 * 8, 64)
