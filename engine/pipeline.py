"""The one door: prompt, adapters and settings in, pictures out."""

import dataclasses
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from lorablend.adapters import Adapter, Blend, Entry, load_adapter, parse_prompt, resolve_blend
from lorablend.adapters.blends.blend import MAX_ITEMS
from lorablend.adapters.errors import RequestError
from lorablend.engine.attach import check_attach
from lorablend.engine.devices import resolve_device
from lorablend.engine.disk_cache import default_cache_dir
from lorablend.engine.mask import greys, open_mask
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.request import Callback, Drawn, Inputs, Request, Result, plain_timesteps
from lorablend.engine.schedulers import NoiseSchedule, from_diffusers_class, plan
from lorablend.shipped import adapters_dir as demo_adapters
from lorablend.shipped import model_dir as demo_model

__all__ = ["Pipeline"]

RUNTIMES = ("auto", "live", "genai")
PRECISIONS = ("f32", "f16", "bf16")
DEFAULT_STRENGTH = 0.65
DEFAULT_STEPS = 20
_KEPT_ADAPTERS = 4 * MAX_ITEMS  # read and understood; each takes a megabyte, and keeps its file mapped


class _Runtime(Protocol):
    def generate(self, request: Request, blend: Blend, inputs: Inputs, callback: Callback | None) -> Drawn: ...


class Pipeline:
    """A model on a device.

        pipe = Pipeline("sdxl-int8", lora_dir="adapters")
        result = pipe.generate("a fox <lora:ink:0.8>", seed=7)
        result.images[0].save("fox.png")

    model_dir: a folder that `lorablend convert` wrote, or "demo", the small model that is shipped, with its adapters.
    runtime: "live" plugs adapters into the compiled graph (CPU); "genai" bakes them into a copy of the model that
    openvino_genai runs (any device); "auto" is live on the CPU and genai elsewhere. precision: what the device computes
    in, "f32", "f16" or "bf16"; None is the device's own choice. lora_dir: where adapters are found by name. max_rank:
    where the ranks of a blend's adapters add up to more in one module, the best approximation of this rank takes their
    place (live runtime; `Result.rank_errors` says what it cost). lenient: adapters with tensors that are not understood
    are used without them. Nothing is compiled before the first picture. Not for two threads at once.

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
        if runtime not in RUNTIMES:
            raise RequestError(f"runtime is {runtime!r}; choose one of {', '.join(RUNTIMES)}")
        if precision is not None and precision not in PRECISIONS:
            raise RequestError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
        if str(model_dir) == "demo":
            model_dir, lora_dir = demo_model(), lora_dir or demo_adapters()
        self.model = ModelFolder(Path(model_dir))
        self.device = resolve_device(device)
        self.runtime = ("live" if self.device == "CPU" else "genai") if runtime == "auto" else runtime
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
        blend: Blend | Mapping[str, Any] | Sequence[Entry] = (),
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance_scale: float = 5.0,
        seed: int | None = None,
        scheduler: str | None = None,
        spacing: str | None = None,
        timesteps: Sequence[float] | None = None,
        batch: int = 1,
        image: Image.Image | None = None,
        strength: float | None = None,
        mask: Image.Image | None = None,
        latents: np.ndarray | None = None,
        callback: Callback | None = None,
    ) -> Result:
        """Draw `batch` pictures; picture i has the seed `seed + i`, and is the same whatever the batch.

        blend: (file, name in lora_dir, or Adapter; weight) pairs, or what else `resolve_blend` takes, with weights per
        block, schedules and masks; or a blend's JSON form, such as `Request.blend`. `<lora:name:weight>` tags in the
        prompt are added.
        width, height: pixels, multiples of 8; the model's own size if not given, the input picture's with `image`.
        steps: 20 if not given. guidance_scale: 1 or less is none. negative_prompt: None is not "", see the model's
        `force_zeros_for_empty_prompt`. seed: None draws one. scheduler, spacing: names of
        `lorablend.engine.schedulers`; None is the model's own. timesteps: in place of steps and spacing, what the model
        is told in each step, falling, such as [999, 749, 499, 249]. image, strength: start from this picture, scaled to
        the size, and redo the last `strength` part of the steps (0.65 if not given). mask: where white, the picture is
        redone, where black it stays. latents: f32 [batch, 4, height/8, width/8], unit variance, instead of the seeds'
        noise. callback: called after every step.

        Raises:
            AdapterError, BaseModelError, BlendError, RequestError: see each; nothing is drawn then.
            Cancelled: the callback returned False.
        """
        started = time.perf_counter()
        request, resolved, inputs, loaded = self._prepare(
            prompt,
            negative_prompt,
            blend=blend,
            width=width,
            height=height,
            steps=steps,
            guidance_scale=guidance_scale,
            seed=seed,
            scheduler=scheduler,
            spacing=spacing,
            timesteps=timesteps,
            batch=batch,
            image=image,
            strength=strength,
            mask=mask,
            latents=latents,
        )
        drawn = self._runtime.generate(request, resolved, inputs, callback)
        timings = drawn.timings
        timings["blend"] = timings.get("blend", 0.0) + loaded
        timings["total"] = time.perf_counter() - started
        images = [Image.fromarray(picture) for picture in drawn.pictures]
        of_adapters = [f"{item.adapter.name}: {text}" for item in resolved.items for text in item.adapter.warnings]
        return Result(
            images=images,
            seeds=request.seeds,
            timings=timings,
            blend=resolved,
            request=request,
            warnings=(*of_adapters, *drawn.warnings),
            rank_errors=drawn.rank_errors,
        )

    def check(self, prompt: str, negative_prompt: str | None = None, **settings: Any) -> Request:
        """The request that `generate` would draw with these settings; raises what it would raise before it begins.

        Reads the adapters, so that a wrong one is known of at once. May be called while another thread draws.
        """
        request, resolved, _, _ = self._prepare(prompt, negative_prompt, **settings)
        check_attach(resolved, self.model.parameters, self.model.family)
        return request

    def _prepare(
        self,
        prompt: str,
        negative_prompt: str | None,
        *,
        blend: Blend | Mapping[str, Any] | Sequence[Entry] = (),
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance_scale: float = 5.0,
        seed: int | None = None,
        scheduler: str | None = None,
        spacing: str | None = None,
        timesteps: Sequence[float] | None = None,
        batch: int = 1,
        image: Image.Image | None = None,
        strength: float | None = None,
        mask: Image.Image | None = None,
        latents: np.ndarray | None = None,
    ) -> tuple[Request, Blend, Inputs, float]:
        """Of `generate`'s arguments: the request, the adapters, the arrays, and the seconds that reading them took."""
        text, tags = parse_prompt(prompt)
        if timesteps is not None:
            timesteps = plain_timesteps(timesteps)
        if steps is None:
            steps = DEFAULT_STEPS if timesteps is None else len(timesteps)
        entries: list[Entry] = [blend, *tags] if isinstance(blend, Blend | Mapping) else [*blend, *tags]
        with_image = image is not None
        if mask is not None and not with_image:
            raise RequestError("mask is given without image; give the picture that it belongs to")
        if strength is not None and not with_image:
            raise RequestError("strength is given without image; give the picture to start from")
        own_width, own_height = self.model.default_size if image is None else _floor_to_eight(image.size)
        if scheduler is None:
            scheduler = from_diffusers_class(self.model.scheduler_class, dict(self.model.scheduler_config))
        strength = (DEFAULT_STRENGTH if strength is None else strength) if with_image else None
        loading = time.perf_counter()
        resolved = resolve_blend(entries, self._lora_dir, load=self._adapters.load, open_mask=open_mask)
        loaded = time.perf_counter() - loading
        request = Request(
            prompt=text,
            negative_prompt=negative_prompt,
            blend=resolved.to_dict(),
            width=own_width if width is None else width,
            height=own_height if height is None else height,
            steps=steps,
            guidance_scale=float(guidance_scale),
            seed=secrets.randbelow(2**32) if seed is None else seed,
            scheduler=scheduler,
            spacing=spacing,
            batch=batch,
            strength=strength,
            timesteps=timesteps,
        )
        # The model's own spacing where None.
        spacing = plan(scheduler, steps, self._schedule, spacing, strength, timesteps).spacing
        request = dataclasses.replace(request, spacing=spacing)
        return request, resolved, self._inputs(request, image, mask, latents), loaded

    def _inputs(
        self, request: Request, image: Image.Image | None, mask: Image.Image | None, latents: np.ndarray | None
    ) -> Inputs:
        size = (request.width, request.height)
        cell = self.model.vae_scale_factor
        if latents is not None:
            expected = (request.batch, self.model.latent_channels, request.height // cell, request.width // cell)
            if latents.shape != expected:
                raise RequestError(
                    f"latents have the shape {list(latents.shape)}; these settings need {list(expected)}"
                )
            if not np.isfinite(latents).all():
                raise RequestError("latents hold NaN or infinity; give finite numbers")
            latents = latents.astype(np.float32)
        return Inputs(
            image=None if image is None else np.array(image.convert("RGB").resize(size, Image.Resampling.LANCZOS)),
            mask=None
            if mask is None
            else np.array(Image.fromarray(greys(mask)).resize(size, Image.Resampling.BILINEAR)),
            latents=latents,
        )


class _AdapterStore:
    """The adapters used last, as long as their files stay what they were."""

    def __init__(self, lenient: bool) -> None:
        self._lenient = lenient
        self._known: OrderedDict[Path, tuple[object, Adapter]] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, path: str | Path) -> Adapter:
        with self._lock:
            return self._load(path)

    def _load(self, path: str | Path) -> Adapter:
        key = Path(path).absolute()  # links stay: an adapter goes by its name, and PEFT's settings lie beside it
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
