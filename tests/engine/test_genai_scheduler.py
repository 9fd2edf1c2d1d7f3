"""Folders with every scheduler of diffusers, opened and drawn with by OpenVINO GenAI itself."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai
import pytest

from lorablend.adapters.errors import ModelError, RequestError
from lorablend.engine import Pipeline
from lorablend.engine.bake import bake
from lorablend.engine.genai_scheduler import GENAI_CLASSES, genai_scheduler, has_extra_step
from lorablend.engine.noise import noise_source
from tests.engine.reference import levels_apart
from tests.engine.schedulers.test_configs import DONE, DRAWN, REFUSED

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers and numpy 2

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
APART = 1  # one rounds to 8 bits, the other truncates
PLACE = "takes its place, which needs more steps for the same picture"
OTHER_NOISE = "takes its place, which draws another picture from the same seed"

# What is said of each class as diffusers writes it, with the settings that Stable Diffusion's folders have.
SAID = {
    **dict.fromkeys(("EulerDiscrete", "EulerAncestralDiscrete", "DDIM", "LCM"), ()),
    "PNDM": ("OpenVINO GenAI draws with the model's own PNDMScheduler, the live runtime with dpmpp_2m",),
    "DDIMParallel": (
        "OpenVINO GenAI has no DDIMParallelScheduler: DDIMScheduler takes its place, as in the live runtime",
    ),
    "TCD": (
        "OpenVINO GenAI has no TCDScheduler: EulerDiscreteScheduler takes its place, which adds no noise",
        "OpenVINO GenAI spoils pictures in trailing spacing with 9, 11, 12, 18, 21, 22, 30, 31, 34, 35, 36, 42, "
        "43, 48, 49 and some more steps",
    ),
    **{
        name: (f"OpenVINO GenAI has no {name}Scheduler: EulerDiscreteScheduler {PLACE}",)
        for name in (
            *("DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "HeunDiscrete", "KDPM2Discrete"),
            *("LMSDiscrete", "UniPCMultistep"),
        )
    },
    **{
        name: (
            f"OpenVINO GenAI has no {name}Scheduler: EulerAncestralDiscreteScheduler takes its place, as in the live "
            "runtime",
        )
        for name in ("DDPM", "DDPMParallel", "KDPM2AncestralDiscrete")
    },
    **{
        name: (f"OpenVINO GenAI has no {name}Scheduler: EulerAncestralDiscreteScheduler {OTHER_NOISE}",)
        for name in ("DPMSolverSDE", "SASolver")
    },
}


def config_of(name: str, **settings: Any) -> dict[str, Any]:
    """What diffusers writes for a class with these settings."""
    cls = getattr(diffusers, f"{name}Scheduler")
    if name == "DPMSolverSDE":
        pytest.importorskip("torchsde")
    given = {**BETAS, "clip_sample": False, "skip_prk_steps": True, **settings}
    known = inspect.signature(cls.__init__).parameters
    assert settings.keys() <= known.keys()
    return json.loads(cls(**{key: value for key, value in given.items() if key in known}).to_json_string())


def folder_with(model: Path, config: dict[str, Any], folder: Path) -> Path:
    """The model with another scheduler."""
    shutil.copytree(model, folder, copy_function=os.link)
    file = folder / "scheduler" / "scheduler_config.json"
    file.unlink()
    file.write_text(json.dumps(config))
    return folder


class Noise(openvino_genai.Generator):
    """The noise of the live runtime's picture with this seed."""

    def __init__(self, start: np.ndarray, seed: int) -> None:
        super().__init__()
        self._starts, self._source = [start], noise_source(seed)

    def next(self) -> float:
        return float(self._source.standard_normal(dtype=np.float32))

    def seed(self, new_seed: int) -> None:
        pass

    def randn_tensor(self, shape: ov.Shape) -> ov.Tensor:
        array = self._starts.pop() if self._starts else self._source.standard_normal(tuple(shape), dtype=np.float32)
        return ov.Tensor(np.ascontiguousarray(array))


def drawn_by_genai(folder: Path, latents: np.ndarray, steps: int) -> np.ndarray:
    """A picture of plain OpenVINO GenAI, with the folder's own scheduler."""
    pipeline = openvino_genai.Text2ImagePipeline(folder, "CPU", INFERENCE_PRECISION_HINT="f32")
    noise = Noise(latents, 3)
    settings: dict[str, Any] = {"num_inference_steps": steps, "width": 64, "height": 64, "guidance_scale": 5.0}
    return np.array(pipeline.generate("a fox", generator=noise, **settings).data[0])


def drawn_live(folder: Path, latents: np.ndarray, steps: int, **settings: Any) -> np.ndarray:
    pipeline = Pipeline(folder, precision="f32")
    return np.array(pipeline.generate("a fox", steps=steps, latents=latents, seed=3, **settings).images[0])


def opens(config: dict[str, Any], folder: Path) -> None:
    """Let GenAI read a file, as its pipelines do; it raises if it cannot."""
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    openvino_genai.Scheduler.from_config(folder / "scheduler_config.json")


@pytest.mark.parametrize("name", DRAWN)
def test_every_class_is_one_that_genai_opens(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    new, sentences = genai_scheduler(config)
    assert sentences == SAID[name]
    assert (new is None) == (f"{name}Scheduler" in GENAI_CLASSES.values())
    opens(new or config, tmp_path)
    for spacing in ("leading", "trailing", "linspace"):
        if "timestep_spacing" in config:
            own = config | {"timestep_spacing": spacing}
            new, _ = genai_scheduler(own)
            assert (new or own)["timestep_spacing"] == ("trailing" if name == "TCD" else spacing)


@pytest.mark.parametrize("setting", DONE)
def test_every_setting_leaves_one_that_genai_opens(setting: str, tmp_path: Path) -> None:
    name, settings = DONE[setting]
    config = config_of(name, **settings)
    opens(genai_scheduler(config)[0] or config, tmp_path)


@pytest.mark.parametrize("setting", REFUSED)
def test_what_the_live_runtime_refuses_is_not_baked(setting: str, sdxl_model: Path, tmp_path: Path) -> None:
    """But a spacing of the model's own, in place of which another one can be chosen."""
    config = {**config_of("DPMSolverMultistep"), setting: REFUSED[setting]}
    model = folder_with(sdxl_model, config, tmp_path / "model")
    if setting in ("use_beta_sigmas", "use_lu_lambdas"):
        spacing = "beta" if setting == "use_beta_sigmas" else "lu"
        assert f"OpenVINO GenAI has no {spacing} spacing: linspace takes its place" in bake(model, [], tmp_path / "new")
        return
    with pytest.raises(ModelError):
        bake(model, [], tmp_path / "new")
    assert not (tmp_path / "new").exists()


# class, its settings, steps, our name of the class that the new folder has, what is said
CASES: list[tuple[str, dict[str, Any], int, str, list[str]]] = [
    ("DPMSolverMultistep", {}, 10, "euler", [f"has no DPMSolverMultistepScheduler: EulerDiscreteScheduler {PLACE}"]),
    (
        "DDPM",
        {},
        10,
        "euler_a",
        ["has no DDPMScheduler: EulerAncestralDiscreteScheduler takes its place, as in the live runtime"],
    ),
    ("EulerDiscrete", {"beta_schedule": "squaredcos_cap_v2"}, 10, "euler", []),
    (
        "DPMSolverMultistep",
        {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True, "timestep_spacing": "leading"},
        10,
        "euler",
        [
            f"has no DPMSolverMultistepScheduler: EulerDiscreteScheduler {PLACE}",
            "has no karras spacing: leading takes its place",
        ],
    ),
    (
        "LCM",
        {"prediction_type": "v_prediction"},
        4,
        "euler",
        [
            "cannot run LCMScheduler with prediction_type v_prediction: EulerDiscreteScheduler takes its place, which "
            "adds no noise"
        ],
    ),
    (
        "DDIM",
        {"clip_sample": True},
        10,
        "ddim",
        ["cannot clip the latents, which the model's scheduler does (clip_sample)"],
    ),
    (
        "EulerAncestralDiscrete",
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "leading"},
        10,
        "euler_a",
        [],
    ),
    (
        "EulerDiscrete",
        {"final_sigmas_type": "sigma_min"},
        10,
        "euler",
        ["ends without noise, whatever final_sigmas_type is"],
    ),
]


@pytest.mark.parametrize(("name", "settings", "steps", "takes", "said"), CASES)
def test_a_baked_folder_draws_what_the_live_runtime_draws(
    name: str,
    settings: dict[str, Any],
    steps: int,
    takes: str,
    said: list[str],
    sdxl_model: Path,
    latents: np.ndarray,
    tmp_path: Path,
) -> None:
    """With the folder's new scheduler; where nothing is said, with the model's own too."""
    model = folder_with(sdxl_model, config_of(name, **settings), tmp_path / "model")
    sentences = [sentence.removeprefix("OpenVINO GenAI ") for sentence in bake(model, [], tmp_path / "new")]
    assert [sentence for sentence in sentences if not sentence.startswith("spoils")] == said
    new = json.loads((tmp_path / "new" / "scheduler" / "scheduler_config.json").read_text())
    assert new["_class_name"] == GENAI_CLASSES[takes]
    actual = drawn_by_genai(tmp_path / "new", latents, steps)
    assert levels_apart(actual, drawn_live(tmp_path / "new", latents, steps, scheduler=takes)) <= APART
    if not said:
        assert levels_apart(actual, drawn_live(model, latents, steps)) <= APART


@pytest.mark.parametrize("name", ["EulerDiscrete", "EulerAncestralDiscrete", "DDIM", "LCM"])
def test_settings_that_a_file_leaves_out(name: str, sdxl_model: Path, latents: np.ndarray, tmp_path: Path) -> None:
    """They are those of diffusers, not those of GenAI."""
    model = folder_with(sdxl_model, {"_class_name": f"{name}Scheduler"}, tmp_path / "model")
    assert bake(model, [], tmp_path / "new") == ()
    steps = 4 if name == "LCM" else 10
    actual = drawn_by_genai(tmp_path / "new", latents, steps)
    assert levels_apart(actual, drawn_live(model, latents, steps)) <= APART


def test_zero_snr_that_genai_would_draw_black() -> None:
    config = config_of("DDIM", rescale_betas_zero_snr=True, timestep_spacing="linspace")
    new, sentences = genai_scheduler(config)
    assert new is not None
    assert new["_class_name"] == "EulerDiscreteScheduler"
    assert sentences == (
        "OpenVINO GenAI cannot run DDIMScheduler with prediction_type epsilon and rescale_betas_zero_snr: "
        "EulerDiscreteScheduler takes its place, which ends in nearly the same picture",
    )


@pytest.mark.parametrize(("name", "shown"), [("MyScheduler", "MyScheduler"), (None, "scheduler without _class_name")])
def test_a_class_that_nobody_knows(name: str | None, shown: str, tmp_path: Path) -> None:
    """The live runtime draws with it where a scheduler is chosen; GenAI must at least open the folder for that."""
    new, sentences = genai_scheduler({**BETAS, "_class_name": name})
    assert new is not None
    opens(new, tmp_path)
    assert sentences == (
        f"OpenVINO GenAI has no {shown}: EulerDiscreteScheduler takes its place, which may draw other pictures",
    )


def test_a_model_keeps_its_own_file(sdxl_model: Path, tmp_path: Path) -> None:
    """A cache of links too: what replaces the file must not be written through the link."""
    model = folder_with(sdxl_model, config_of("UniPCMultistep"), tmp_path / "model")
    before = (model / "scheduler" / "scheduler_config.json").read_bytes()
    pipeline = Pipeline(model, runtime="genai", precision="f32", cache_dir=tmp_path / "cache")
    pipeline.generate("a fox", steps=2, scheduler="euler", seed=3)
    assert (model / "scheduler" / "scheduler_config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DPMSolverMultistep", {}),
        ("DDPM", {"beta_schedule": "squaredcos_cap_v2"}),
        ("LCM", {"prediction_type": "v_prediction"}),
        ("EulerDiscrete", {"use_exponential_sigmas": True}),
    ],
)
def test_the_genai_runtime_draws_with_euler(
    name: str, settings: dict[str, Any], sdxl_model: Path, latents: np.ndarray, tmp_path: Path
) -> None:
    model = folder_with(sdxl_model, config_of(name, **settings), tmp_path / "model")
    own: dict[str, Any] = {"scheduler": "euler", "spacing": "leading", "steps": 6, "seed": 3, "latents": latents}
    genai = Pipeline(model, runtime="genai", precision="f32", cache_dir=tmp_path / "cache")
    live = Pipeline(model, precision="f32")
    pictures = [np.array(pipeline.generate("a fox", **own).images[0]) for pipeline in (genai, live)]
    assert levels_apart(*pictures) <= APART


def test_steps_that_genai_takes_in_trailing_spacing(sdxl_model: Path, tmp_path: Path) -> None:
    """One too many, at timestep -1, for some numbers: counted by its own callback."""
    model = folder_with(sdxl_model, config_of("EulerDiscrete", timestep_spacing="trailing"), tmp_path / "model")
    pipeline = openvino_genai.Text2ImagePipeline(model, "CPU")
    taken: list[int] = []
    for steps in (1, 8, 9, 10, 11, 12, 13):
        calls: list[int] = []
        pipeline.generate(
            "a fox",
            num_inference_steps=steps,
            width=64,
            height=64,
            callback=lambda step, _steps, _latent, calls=calls: calls.append(step) is not None,
        )
        taken.append(len(calls))
        assert len(calls) == steps + has_extra_step(steps, 1000)
    assert taken == [1, 8, 10, 10, 12, 13, 13]


def test_steps_that_are_refused_in_trailing_spacing(sdxl_model: Path) -> None:
    pipeline = Pipeline(sdxl_model, runtime="genai")
    with pytest.raises(RequestError) as caught:
        pipeline.generate("a fox", steps=12, scheduler="euler", spacing="trailing")
    assert str(caught.value) == (
        "runtime=genai cannot take 12 steps in trailing spacing: give 10 or 13 steps, or choose another spacing, or "
        "runtime=live"
    )
    pipeline.generate("a fox", steps=9, scheduler="lcm")  # it has timesteps of its own


def test_a_warning_about_the_solver(sdxl_model: Path, tmp_path: Path) -> None:
    config = config_of("DPMSolverMultistep", solver_order=3)
    pipeline = Pipeline(folder_with(sdxl_model, config, tmp_path / "model"), precision="f32")
    warning = "the model's scheduler has solver_order 3, which dpmpp_2m does not follow"
    assert pipeline.generate("a fox", steps=2).warnings == (warning,)
    assert pipeline.generate("a fox", steps=2, scheduler="dpmpp_2m").warnings == ()
