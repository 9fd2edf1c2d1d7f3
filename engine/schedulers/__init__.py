"""Schedulers: the path from noise to a picture, in numpy, with the numbers of diffusers.

Each sampler has a file of its own: a loop over noise levels that can be read next to its paper, and what the planner
has to know about it. All samplers work on variance-exploding latents, x = x0 + sigma * noise. The variance-preserving
latents of some diffusers schedulers are x / sqrt(sigma^2 + 1).

    schedule = NoiseSchedule.from_config(json.loads(config_file.read_text()))
    run = plan("euler", 20, schedule)
    denoise = denoiser(unet, schedule.prediction_type)
    latents = sample(run, denoise, run.init_sigma * noise(), noise)
"""

from lorablend.engine.schedulers.catalogue import SCHEDULERS, from_diffusers_class, not_followed
from lorablend.engine.schedulers.noise_schedule import NoiseSchedule, beta_settings
from lorablend.engine.schedulers.planner import plan
from lorablend.engine.schedulers.plans import Plan
from lorablend.engine.schedulers.prediction import denoiser
from lorablend.engine.schedulers.sampling import sample
from lorablend.engine.schedulers.scheduler_info import SchedulerInfo
from lorablend.engine.schedulers.spacing import SPACINGS

__all__ = [
    "SCHEDULERS",
    "SPACINGS",
    "NoiseSchedule",
    "Plan",
    "SchedulerInfo",
    "beta_settings",
    "denoiser",
    "from_diffusers_class",
    "not_followed",
    "plan",
    "sample",
]
