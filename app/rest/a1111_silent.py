"""The fields of A1111's requests that change nothing here, so that a reply can name those that were sent.

Source: modules/processing.py and modules/api/models.py of A1111 1.10.1. What is not here has an effect, or is refused
(`a1111_forms.py`). tests/app/rest/test_a1111_fields.py holds the verdict of each field.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, create_model

__all__ = ["is_none", "silent_warnings", "with_silent"]

# The values with which A1111 does nothing either: its own defaults, and what clients send in their place.
_BOTH: dict[str, tuple[Any, ...]] = {
    "subseed": (-1,),
    "do_not_save_samples": (False,),
    "do_not_save_grid": (False,),
    "save_images": (False,),
    "eta": (1.0,),  # A1111's own, but for DDIM
    "s_min_uncond": (0.0,),
    "s_churn": (0.0,),
    "s_tmax": (0.0,),
    "s_tmin": (0.0,),
    "s_noise": (1.0,),
    "override_settings_restore_afterwards": (True,),
    "refiner_switch_at": (0.0,),
    "comments": ({},),
    "script_args": ([],),
    "force_task_id": ("",),
    "infotext": ("",),
}
_TEXT: dict[str, tuple[Any, ...]] = {
    "denoising_strength": (0.75, 0.7, 0.0),
    "firstphase_width": (0,),
    "firstphase_height": (0,),
    "hr_scale": (2.0, 1.0),
    "hr_upscaler": ("", "Latent", "None"),
    "hr_second_pass_steps": (0,),
    "hr_resize_x": (0,),
    "hr_resize_y": (0,),
    "hr_checkpoint_name": ("", "Use same checkpoint", "None"),
    "hr_sampler_name": ("", "Use same sampler", "None"),
    "hr_scheduler": ("", "Use same scheduler", "None"),
    "hr_prompt": ("",),
    "hr_negative_prompt": ("",),
}
_IMAGE: dict[str, tuple[Any, ...]] = {
    "image_cfg_scale": (1.5, 0.0),
    "mask_round": (True,),
    "inpaint_full_res_padding": (0,),
    "initial_noise_multiplier": (1.0,),
    "latent_mask": ("",),
}


def with_silent(base: type[BaseModel]) -> type[BaseModel]:
    """A form that has these fields too, with whatever values."""
    names = {*_BOTH, *_TEXT, *_IMAGE} - {"denoising_strength"}  # which has an effect in img2img
    fields: dict[str, Any] = dict.fromkeys(sorted(names), (Any, None))
    return create_model("Silent", __base__=base, **fields)


def silent_warnings(form: BaseModel, *, from_image: bool) -> list[str]:
    """One line that names the fields with other values than A1111's defaults; none if there are none."""
    table = {**_BOTH, **(_IMAGE if from_image else _TEXT)}
    sent = {name: getattr(form, name) for name in table}
    named = [name for name, value in sent.items() if value is not None and value not in table[name]]
    return [f"without effect here: {', '.join(named)}"] if named else []


def is_none(word: Any) -> bool:
    """Whether a client says "none" with it."""
    return word is None or (isinstance(word, str) and word.strip().casefold() in ("", "none"))
