"""The schedulers on their own: refusals, and samplers of models whose answer is known."""

import numpy as np
import pytest

from lorablend.adapters.errors import ModelError, RequestError
from lorablend.engine.schedulers import (
    SCHEDULERS,
    SPACINGS,
    NoiseSchedule,
    denoiser,
    from_diffusers_class,
    plan,
    sample,
)

SDXL = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
SCHEDULE = NoiseSchedule.from_config(SDXL)
NOISY = ("euler_a", "dpmpp_2m_sde", "lcm", "tcd")
MEAN, STD = 0.3, 0.8


def gaussian(x, sigma, t):
    """The perfect denoiser of pictures whose values are all normal with MEAN and STD."""
    return (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)


def normal(shape, seed=0):
    rng = np.random.default_rng(seed)
    return lambda: rng.standard_normal(shape, dtype=np.float32)


def no_noise():
    raise AssertionError("a deterministic sampler drew noise")


def test_labels():
    assert {name: info.label for name, info in SCHEDULERS.items()} == {
        "euler": "Euler",
        "euler_a": "Euler a",
        "dpmpp_2m": "DPM++ 2M",
        "dpmpp_2m_sde": "DPM++ 2M SDE",
        "unipc": "UniPC",
        "ddim": "DDIM",
        "lcm": "LCM",
        "tcd": "TCD",
    }


# Samplers


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (2, 3), (5,)])
def test_a_model_sure_of_its_picture_gets_it(name, shape):
    """With any noise, in any shape, as float32."""
    picture = np.linspace(-2, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    run = plan(name, 10, SCHEDULE)
    noise = normal(shape)
    latents = sample(run, lambda x, sigma, t: picture, run.init_sigma * noise(), noise)
    assert latents.dtype == np.float32
    # tcd ends at the noise level of timestep 0.
    np.testing.assert_allclose(latents, picture, atol=0.2 if name == "tcd" else 1e-6)


@pytest.mark.parametrize(
    ("name", "spacing", "order"),
    [("euler", "exponential", 1), ("ddim", "trailing", 1), ("dpmpp_2m", "exponential", 2), ("unipc", "exponential", 2)],
)
def test_deterministic_samplers_solve_the_ode(name, spacing, order):
    """For Gaussian pictures the probability flow is known; doubling the steps divides the error by 2^order.

    The run ends at the lowest of the model's own sigmas, because a last step down to 0 is of first order anyway.
    """
    schedule = NoiseSchedule.from_config(SDXL | {"final_sigmas_type": "sigma_min", "set_alpha_to_one": False})
    start = np.linspace(-20, 20, 9, dtype=np.float32)
    errors = []
    for steps in (25, 50, 100):
        run = plan(name, steps, schedule, spacing)
        got = sample(run, gaussian, start, no_noise)
        first, last = float(run.sigmas[0]), float(run.sigmas[-1])
        exact = MEAN + (start - MEAN) * ((STD**2 + last**2) / (STD**2 + first**2)) ** 0.5
        if name != "euler":
            exact = exact / (last**2 + 1) ** 0.5
        errors.append(np.abs(got - exact).max())
    assert errors[0] < 0.2
    assert errors[0] / errors[1] > 0.9 * 2**order
    assert errors[1] / errors[2] > 0.9 * 2**order


@pytest.mark.parametrize("name", ["euler_a", "dpmpp_2m_sde"])
def test_stochastic_samplers_keep_the_distribution(name):
    shape = (40_000,)
    run = plan(name, 200, SCHEDULE, spacing="trailing")
    noise = normal(shape)
    got = sample(run, gaussian, run.init_sigma * noise(), noise)
    assert got.mean() == pytest.approx(MEAN, abs=0.03)
    assert got.std() == pytest.approx(STD, rel=0.03)


def test_lcm_keeps_the_distribution_of_a_consistency_model():
    def consistent(x, sigma, t):
        return MEAN + (x - MEAN) * STD / (STD**2 + sigma**2) ** 0.5

    shape = (40_000,)
    run = plan("lcm", 4, SCHEDULE)
    noise = normal(shape)
    got = sample(run, consistent, run.init_sigma * noise(), noise)
    assert got.mean() == pytest.approx(MEAN, abs=0.03)
    assert got.std() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_callback_sees_every_step_and_noise_is_drawn_once_per_noisy_step(name):
    run = plan(name, 6, SCHEDULE)
    noises, reports, calls = [], [], []

    def noise():
        noises.append(0)
        return np.ones((2, 2), dtype=np.float32)

    def denoise(x, sigma, t):
        calls.append((sigma, t))
        return x / 2

    start = np.ones((2, 2), dtype=np.float32)
    sample(run, denoise, start, noise, lambda *report: reports.append(report))
    assert [index for index, *_ in reports] == list(range(6))
    assert calls == list(zip(run.sigmas[:-1].tolist(), run.timesteps.tolist(), strict=True))
    np.testing.assert_array_equal(reports[0][2], start)
    for (_, sigma, x, denoised), (called_sigma, _) in zip(reports, calls, strict=True):
        assert sigma == called_sigma
        np.testing.assert_array_equal(denoised, x / 2)
    # The last step ends without noise.
    assert len(noises) == (5 if name in NOISY else 0)


def test_a_callback_that_raises_ends_the_run():
    def stop(index, sigma, x, denoised):
        if index == 2:
            raise KeyboardInterrupt

    run = plan("euler", 6, SCHEDULE)
    with pytest.raises(KeyboardInterrupt):
        sample(run, gaussian, np.ones(3, dtype=np.float32), no_noise, stop)


@pytest.mark.parametrize("name", ["euler", "euler_a"])
def test_large_sigmas_stay_exact(name):
    """From a zero-SNR start (sigma 4096) the float32 run ends where the float64 run ends."""
    schedule = NoiseSchedule.from_config(
        SDXL | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    )
    run = plan(name, 4, schedule)
    denoise = denoiser(lambda x, t: np.tanh(x + t / 500), "v_prediction")
    noise = normal((1, 4, 8, 8))()
    start = np.float32(run.init_sigma) * noise
    single = sample(run, denoise, start, lambda: noise)
    double = sample(run, denoise, start.astype(np.float64), lambda: noise.astype(np.float64))
    assert np.abs(single - double).max() < 1e-5


# Plans


@pytest.mark.parametrize("name", SCHEDULERS)
def test_strength_leaves_out_the_first_steps(name):
    whole = plan(name, 20, SCHEDULE)
    part = plan(name, 20, SCHEDULE, strength=0.65)
    assert len(part) == 13
    np.testing.assert_array_equal(part.timesteps, whole.timesteps[7:])
    np.testing.assert_array_equal(part.sigmas, whole.sigmas[7:])
    assert len(plan(name, 20, SCHEDULE, strength=1.0)) == 20


def test_spacing_none_is_the_models_own():
    karras = NoiseSchedule.from_config(SDXL | {"timestep_spacing": "leading", "use_karras_sigmas": True})
    assert {name: plan(name, 4, karras).spacing for name in SCHEDULERS} == {
        "euler": "karras",
        "euler_a": "karras",
        "dpmpp_2m": "karras",
        "dpmpp_2m_sde": "karras",
        "unipc": "karras",
        "ddim": "leading",
        "lcm": "trailing",
        "tcd": "trailing",
    }
    assert plan("dpmpp_2m", 4, SCHEDULE).spacing == "linspace"
    assert plan("ddim", 4, SCHEDULE).spacing == "leading"


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
def test_euler_a_takes_the_sigmas_of_euler(spacing):
    np.testing.assert_array_equal(
        plan("euler_a", 9, SCHEDULE, spacing).sigmas, plan("euler", 9, SCHEDULE, spacing).sigmas
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_timesteps_that_a_spacing_would_choose(name):
    """The run is the same. For ddim too: 125 timesteps down, the next of the eight steps begins."""
    spaced = plan(name, 8, SCHEDULE, spacing="trailing")
    own = plan(name, 8, SCHEDULE, timesteps=spaced.timesteps.tolist())
    assert own.spacing is None
    assert own.first_order_end == spaced.first_order_end
    assert own.timesteps.dtype == spaced.timesteps.dtype
    for values in ("timesteps", "sigmas", "sigmas_down"):
        np.testing.assert_allclose(getattr(own, values), getattr(spaced, values), rtol=1e-6)


def test_timesteps_replace_a_spacing_that_is_not_built():
    schedule = NoiseSchedule.from_config(SDXL | {"use_beta_sigmas": True})
    np.testing.assert_array_equal(plan("euler", 2, schedule, timesteps=(999, 499)).timesteps, [999, 499])


def test_ddim_goes_down_to_the_next_of_its_own_timesteps():
    run = plan("ddim", 3, SCHEDULE, timesteps=(900, 300, 250))
    np.testing.assert_array_equal(run.sigmas_down, run.sigmas[1:])


def test_euler_starts_higher_in_the_leading_spacing():
    leading, trailing = plan("euler", 20, SCHEDULE, "leading"), plan("euler", 20, SCHEDULE, "trailing")
    assert leading.init_sigma == pytest.approx((float(leading.sigmas[0]) ** 2 + 1) ** 0.5)
    assert trailing.init_sigma == float(trailing.sigmas[0])


def test_trailing_has_as_many_steps_as_requested():
    """diffusers has 62 timesteps for 61 steps, the last of them -1."""
    for steps in (61, 103, 995):
        run = plan("euler", steps, SCHEDULE, "trailing")
        assert len(run) == steps
        assert run.timesteps.min() >= 0


# Refusals


def refusal(error, call, *args, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_unknown_scheduler():
    assert refusal(RequestError, plan, "dpmp_2m", 20, SCHEDULE) == (
        'unknown scheduler "dpmp_2m": choose one of dpmpp_2m, dpmpp_2m_sde, ddim, lcm, tcd, unipc, euler_a, euler'
    )


def test_unknown_spacing():
    assert refusal(RequestError, plan, "euler", 20, SCHEDULE, "even") == (
        'unknown spacing "even": choose one of leading, trailing, linspace, karras, exponential'
    )
    assert SPACINGS == ("leading", "trailing", "linspace", "karras", "exponential")


def test_spacing_that_the_scheduler_does_not_take():
    assert refusal(RequestError, plan, "ddim", 20, SCHEDULE, "karras") == (
        "ddim does not take karras spacing: choose one of leading, trailing, linspace"
    )
    assert refusal(RequestError, plan, "lcm", 4, SCHEDULE, "karras") == (
        "lcm does not take karras spacing: choose one of trailing"
    )
    assert refusal(RequestError, plan, "tcd", 4, SCHEDULE, "leading") == (
        "tcd does not take leading spacing: choose one of trailing"
    )


def test_own_spacing_that_is_not_built():
    schedule = NoiseSchedule.from_config(SDXL | {"use_beta_sigmas": True})
    assert refusal(ModelError, plan, "euler", 20, schedule) == (
        "the model's own beta spacing is not supported: choose one of leading, trailing, linspace, karras, exponential"
    )
    assert plan("euler", 20, schedule, "karras").spacing == "karras"


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("euler", 0, "steps 0 is out of range for euler: give 1 to 1000"),
        ("ddim", 1001, "steps 1001 is out of range for ddim: give 1 to 1000"),
        ("lcm", 51, "steps 51 is out of range for lcm: give 1 to 50"),
        ("dpmpp_2m", 1000, "steps 1000 is too many for dpmpp_2m with linspace spacing: two share a timestep"),
    ],
)
def test_steps_out_of_range(name, steps, message):
    assert refusal(RequestError, plan, name, steps, SCHEDULE) == message


@pytest.mark.parametrize(
    ("name", "timesteps", "message"),
    [
        ("lcm", (999, 499, 499), "timesteps must fall, but 499 comes after 499: give the largest first"),
        ("euler", (249, 999), "timesteps must fall, but 999 comes after 249: give the largest first"),
        ("euler", (1000, 1), "timestep 1000 is out of range: the model was trained on 0 to 999"),
        ("euler", (999.5,), "timestep 999.5 is out of range: the model was trained on 0 to 999"),
        ("tcd", (999, -1), "timestep -1 is out of range: the model was trained on 0 to 999"),
        ("ddim", (749.5, 1), "timestep 749.5 is a fraction, which ddim cannot take: round it, or choose euler"),
    ],
)
def test_timesteps_that_make_no_sense(name, timesteps, message):
    assert refusal(RequestError, plan, name, len(timesteps), SCHEDULE, timesteps=timesteps) == message


def test_timesteps_with_what_they_stand_for():
    assert refusal(RequestError, plan, "lcm", 2, SCHEDULE, "trailing", timesteps=(999, 499)) == (
        "spacing trailing and timesteps are both given: give one of the two"
    )
    assert refusal(RequestError, plan, "lcm", 4, SCHEDULE, timesteps=(999, 499)) == (
        "steps is 4, but 2 timesteps are given: give one of the two"
    )


def test_more_steps_than_the_model_was_trained_on():
    short = NoiseSchedule.from_config({"num_train_timesteps": 100})
    assert refusal(RequestError, plan, "ddim", 101, short) == "steps 101 is out of range for ddim: give 1 to 100"


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan")])
def test_strength_out_of_range(strength):
    assert refusal(RequestError, plan, "euler", 20, SCHEDULE, strength=strength) == (
        f"strength {strength} is out of range: give more than 0 and at most 1"
    )


def test_strength_that_leaves_no_step():
    assert refusal(RequestError, plan, "euler", 3, SCHEDULE, strength=0.3) == (
        "strength 0.3 of 3 steps leaves none to run: give 0.334 or more"
    )
    assert len(plan("euler", 3, SCHEDULE, strength=0.334)) == 1


def test_zero_snr_with_epsilon_prediction():
    schedule = NoiseSchedule.from_config(SDXL | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"})
    assert refusal(RequestError, plan, "ddim", 20, schedule) == (
        "ddim cannot start from zero SNR with epsilon prediction: choose euler"
    )
    assert len(plan("ddim", 20, schedule, strength=0.5)) == 10


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"prediction_type": "flow_prediction"},
            "scheduler config: prediction_type is 'flow_prediction', expected one of epsilon, v_prediction, sample",
        ),
        (
            {"beta_schedule": "sigmoid"},
            "scheduler config: beta_schedule is 'sigmoid', expected one of linear, scaled_linear, squaredcos_cap_v2",
        ),
        ({"thresholding": True}, "scheduler config: thresholding is True, only False is supported"),
        (
            {"timestep_type": "continuous"},
            "scheduler config: timestep_type is 'continuous', only 'discrete' is supported",
        ),
    ],
)
def test_configs_that_cannot_be_followed(setting, message):
    assert refusal(ModelError, NoiseSchedule.from_config, SDXL | setting) == message


# diffusers' names


def test_from_diffusers_class():
    assert from_diffusers_class("EulerDiscreteScheduler") == "euler"
    assert from_diffusers_class("EulerAncestralDiscreteScheduler") == "euler_a"
    assert from_diffusers_class("DPMSolverMultistepScheduler") == "dpmpp_2m"
    sde = {"algorithm_type": "sde-dpmsolver++"}
    assert from_diffusers_class("DPMSolverMultistepScheduler", sde) == "dpmpp_2m_sde"
    assert from_diffusers_class("UniPCMultistepScheduler") == "unipc"
    assert from_diffusers_class("DDIMScheduler") == "ddim"
    assert from_diffusers_class("LCMScheduler") == "lcm"
    assert from_diffusers_class("TCDScheduler") == "tcd"
    assert from_diffusers_class("PNDMScheduler") == "dpmpp_2m"
    assert from_diffusers_class("DDPMScheduler") == "euler_a"


def test_from_a_diffusers_class_of_another_kind():
    assert refusal(ModelError, from_diffusers_class, "FlowMatchEulerDiscreteScheduler") == (
        'scheduler class "FlowMatchEulerDiscreteScheduler" is not supported: '
        "choose one of euler, euler_a, dpmpp_2m, dpmpp_2m_sde, unipc, ddim, lcm, tcd"
    )
