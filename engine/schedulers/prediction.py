"""From a UNet's prediction to a denoised picture, in one place, so that samplers need not know what it predicts."""

from collections.abc import Callable

from lorablend.engine.schedulers.plans import Array, Denoise

__all__ = ["denoiser"]


def denoiser(model: Callable[[Array, float], Array], prediction_type: str) -> Denoise:
    """Turn `model(x, t)`, which takes latents of unit variance, into `denoise(x, sigma, t) -> x0`.

    With s = sqrt(sigma^2 + 1) and the model's answer y to x / s, x0 is x - sigma * y for epsilon,
    x / s^2 - sigma / s * y for v, and y for sample.

    Args:
        model: The UNet, guidance included.
        prediction_type: `NoiseSchedule.prediction_type`: "epsilon" (the noise), "v_prediction" (arXiv:2202.00512) or
            "sample" (the picture itself).

    Returns:
        A function for `sample`; its x0 has the shape of x.
    """

    def denoise(x: Array, sigma: float, t: float) -> Array:
        scale = (sigma**2 + 1) ** 0.5
        output = model(x / scale, t)
        if prediction_type == "epsilon":
            return x - sigma * output
        if prediction_type == "v_prediction":
            return x / scale**2 - (sigma / scale) * output
        return output

    return denoise
