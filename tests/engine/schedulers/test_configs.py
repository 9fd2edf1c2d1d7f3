"""Every class of diffusers' schedulers, and every setting of those that draw here: done, refused, or said."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters.errors import ModelError
from lorablend.engine.schedulers import NoiseSchedule, from_diffusers_class, not_followed, plan

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers and numpy 2

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}

DRAWN = """
DDIM DDIMParallel DDPM DDPMParallel DEISMultistep DPMSolverMultistep DPMSolverSDE DPMSolverSinglestep
EulerAncestralDiscrete EulerDiscrete HeunDiscrete KDPM2AncestralDiscrete KDPM2Discrete LCM LMSDiscrete PNDM SASolver TCD
UniPCMultistep
""".split()  # noqa: SIM905
# For models of another kind, whose noise has no betas: EDM, flow matching, consistency models, tokens, video…
OTHER_KINDS = """
CMStochasticIterative ConsistencyDecoder CosineDPMSolverMultistep DDPMWuerstchen EDMDPMSolverMultistep EDMEuler
FlowMapEulerDiscrete FlowMatchEulerDiscrete FlowMatchHeunDiscrete FlowMatchLCM Helios HeliosDMD IPNDM
LTXEulerAncestralRF SCM ScoreSdeVe VQDiffusion
""".split()  # noqa: SIM905
# They have betas, but are for another task, so that no Stable Diffusion folder names them.
NEVER = {
    "CogVideoXDDIM": "video; refused for snr_shift_scale",
    "CogVideoXDPM": "video; refused for snr_shift_scale",
    "DDIMInverse": "from a picture to noise",
    "DPMSolverMultistepInverse": "from a picture to noise",
    "RePaint": "inpainting in pixels",
    "UnCLIP": "another model",
    **dict.fromkeys(("Amused", "BlockRefinement", "DiscreteDDIM", "EntropyBound"), "tokens"),
}

LONG = {"lower_order_final": False}  # which only counts in short runs
# The class and value with which a setting changes the run.
DONE: dict[str, tuple[str, dict[str, Any]]] = {
    "algorithm_type": ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}),
    "beta_end": ("EulerDiscrete", {"beta_end": 0.02}),
    "beta_schedule": ("EulerDiscrete", {"beta_schedule": "squaredcos_cap_v2"}),
    "beta_start": ("EulerDiscrete", {"beta_start": 0.001}),
    "clip_sample": ("DDIM", {"clip_sample": True}),
    "clip_sample_range": ("DDIM", {"clip_sample": True, "clip_sample_range": 3.0}),
    "euler_at_final": ("DPMSolverMultistep", {"final_sigmas_type": "sigma_min", "euler_at_final": True, **LONG}),
    "final_sigmas_type": ("EulerDiscrete", {"final_sigmas_type": "sigma_min"}),
    "lower_order_final": ("UniPCMultistep", {"final_sigmas_type": "sigma_min", **LONG}),
    "num_train_timesteps": ("EulerDiscrete", {"num_train_timesteps": 500}),
    "original_inference_steps": ("LCM", {"original_inference_steps": 20}),
    "prediction_type": ("EulerDiscrete", {"prediction_type": "v_prediction"}),
    "rescale_betas_zero_snr": ("EulerDiscrete", {"rescale_betas_zero_snr": True}),
    "set_alpha_to_one": ("DDIM", {"set_alpha_to_one": False}),
    "sigma_max": ("EulerDiscrete", {"use_karras_sigmas": True, "sigma_max": 20.0}),
    "sigma_min": ("EulerDiscrete", {"use_karras_sigmas": True, "sigma_min": 0.1}),
    "steps_offset": ("DDIM", {"steps_offset": 1}),
    "timestep_spacing": ("EulerDiscrete", {"timestep_spacing": "trailing"}),
    "trained_betas": ("EulerDiscrete", {"trained_betas": [0.001] * 1000}),
    "use_exponential_sigmas": ("EulerDiscrete", {"use_exponential_sigmas": True}),
    "use_karras_sigmas": ("EulerDiscrete", {"use_karras_sigmas": True}),
}
REFUSED: dict[str, Any] = {
    "interpolation_type": "log_linear",
    "lambda_min_clipped": -5.1,
    "shift_terminal": 0.1,
    "thresholding": True,
    "timestep_scaling": 5.0,
    "timestep_type": "continuous",
    "use_beta_sigmas": True,
    "use_dynamic_shifting": True,
    "use_flow_sigmas": True,
    "use_lu_lambdas": True,
    "variance_type": "learned_range",
}
SAID = [
    ("DPMSolverMultistep", "algorithm_type", "dpmsolver", "dpmpp_2m"),
    ("DPMSolverMultistep", "solver_order", 3, "dpmpp_2m"),
    ("DPMSolverMultistep", "solver_type", "heun", "dpmpp_2m"),
    ("UniPCMultistep", "solver_order", 3, "unipc"),
    ("UniPCMultistep", "solver_type", "bh1", "unipc"),
    ("UniPCMultistep", "predict_x0", False, "unipc"),
    ("UniPCMultistep", "disable_corrector", [0], "unipc"),
    ("DDPM", "clip_sample", True, "euler_a"),
    ("HeunDiscrete", "clip_sample", True, "dpmpp_2m"),
]
NO_EFFECT = {
    "dynamic_thresholding_ratio": "only with thresholding",
    "sample_max_value": "only with thresholding",
    "flow_shift": "only with use_flow_sigmas",
    "time_shift_type": "only with use_dynamic_shifting",
    "skip_prk_steps": "another scheduler stands for PNDM",
    "corrector_order": "another scheduler stands for SASolver",
    "predictor_order": "another scheduler stands for SASolver",
    "tau_func": "another scheduler stands for SASolver",
    "noise_sampler_seed": "noise comes from the request's seed",
    "solver_p": "a Python object, which no file can hold",
}


def settings_of_classes() -> dict[str, set[str]]:
    """The settings of each scheduler class, from diffusers' source: some can be imported only with more packages."""
    diffusers = pytest.importorskip("diffusers")
    found: dict[str, set[str]] = {}
    for file in sorted((Path(diffusers.__file__).parent / "schedulers").glob("scheduling_*.py")):
        for part in ast.parse(file.read_text(encoding="utf-8")).body:
            if not isinstance(part, ast.ClassDef) or "flax" in file.name or "deprecated" in str(file):
                continue
            for method in part.body:
                if isinstance(method, ast.FunctionDef) and any(
                    "register_to_config" in ast.unparse(decorator) for decorator in method.decorator_list
                ):
                    names = {argument.arg for argument in method.args.args} - {"self"}
                    found[part.name.removesuffix("Scheduler")] = names
    return found


def config_of(name: str, **settings: Any) -> dict[str, Any]:
    return {"_class_name": f"{name}Scheduler", **BETAS, **settings}


def run_of(name: str, **settings: Any) -> list[np.ndarray]:
    """All that a run of six steps depends on."""
    config = config_of(name, **settings)
    schedule, scheduler = NoiseSchedule.from_config(config), from_diffusers_class(f"{name}Scheduler", config)
    run = plan(scheduler, 6, schedule)
    facts = [str(value) for value in (scheduler, schedule.prediction_type, run.clip, run.first_order_end)]
    return [np.array(facts), run.timesteps, run.sigmas, run.sigmas_down]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def test_every_class_has_a_verdict() -> None:
    verdicts = [*DRAWN, *OTHER_KINDS, *NEVER]
    assert len(verdicts) == len(set(verdicts))
    assert set(settings_of_classes()) <= set(verdicts)
    assert set(DRAWN) <= set(settings_of_classes())


def test_every_setting_has_a_verdict() -> None:
    verdicts = {*DONE, *REFUSED, *NO_EFFECT, *(key for _, key, _, _ in SAID)}
    classes = settings_of_classes()
    assert set().union(*(classes[name] for name in DRAWN)) == verdicts


@pytest.mark.parametrize("name", DRAWN)
def test_a_class_that_is_drawn(name: str) -> None:
    assert len(run_of(name)[1]) == 6
    assert len(NoiseSchedule.from_config({"_class_name": f"{name}Scheduler"}).alphas_cumprod) == 1000


@pytest.mark.parametrize("name", DRAWN)
def test_betas_that_a_file_leaves_out(name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    if name == "DPMSolverSDE":
        pytest.importorskip("torchsde")
    theirs = getattr(diffusers, f"{name}Scheduler")().alphas_cumprod
    ours = NoiseSchedule.from_config({"_class_name": f"{name}Scheduler"}).alphas_cumprod
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_a_class_for_another_kind_of_model(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        NoiseSchedule.from_config({"_class_name": f"{name}Scheduler", "num_train_timesteps": 1000})
    assert str(caught.value) == (
        f"scheduler config: {name}Scheduler has no betas, so it is for another kind of model; give a Stable Diffusion "
        "or SDXL model whose scheduler has them"
    )


@pytest.mark.parametrize("setting", DONE)
def test_a_setting_that_is_done(setting: str) -> None:
    name, settings = DONE[setting]
    others = {key: value for key, value in settings.items() if key != setting}
    assert not same(run_of(name, **settings), run_of(name, **others))


@pytest.mark.parametrize("setting", REFUSED)
def test_a_setting_that_is_refused(setting: str) -> None:
    with pytest.raises(ModelError):
        run_of("DPMSolverMultistep", **{setting: REFUSED[setting]})


@pytest.mark.parametrize(("name", "setting", "value", "scheduler"), SAID)
def test_a_setting_that_is_said(name: str, setting: str, value: Any, scheduler: str) -> None:
    assert not_followed(config_of(name)) == ()
    (warning,) = not_followed(config_of(name, **{setting: value}))
    assert warning.startswith(f"the model's scheduler has {setting} ")
    assert warning.endswith(f", which {scheduler} does not follow")


@pytest.mark.parametrize("setting", NO_EFFECT)
def test_a_setting_without_effect(setting: str) -> None:
    assert same(run_of("DPMSolverMultistep", **{setting: 1}), run_of("DPMSolverMultistep"))


@pytest.mark.parametrize("name", DRAWN)
def test_what_diffusers_writes_is_followed_without_a_word(name: str) -> None:
    """With the betas of Stable Diffusion, and without clipping, which its own configurations switch off."""
    diffusers = pytest.importorskip("diffusers")
    if name == "DPMSolverSDE":
        pytest.importorskip("torchsde")
    known = settings_of_classes()[name]
    own = {key: value for key, value in {**BETAS, "clip_sample": False}.items() if key in known}
    config = dict(getattr(diffusers, f"{name}Scheduler")(**own).config)
    NoiseSchedule.from_config(config)
    assert not_followed(config | {"_class_name": f"{name}Scheduler"}) == ()


def test_betas_of_another_number() -> None:
    with pytest.raises(ModelError) as caught:
        NoiseSchedule.from_config({"trained_betas": [0.001] * 500, "num_train_timesteps": 1000})
    assert str(caught.value) == (
        "scheduler config: trained_betas has 500 numbers, num_train_timesteps is 1000; one of the two is wrong"
    )
