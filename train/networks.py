"""The trained network: factors at the layers of a frozen model, by PEFT (LoRA, DoRA) or LyCORIS (LoCon, LoHa, LoKr).

The targets are those of kohya's sd-scripts: every linear layer and 1×1 convolution of the UNet's transformers, and
attention and MLP of the text encoders; LoCon adds the residual blocks and the samplers between levels. The factors are
f32 whatever the base model's type, and change nothing at the start.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lorablend.adapters.errors import MissingExtraError, TrainError
from lorablend.adapters.names.naming import Naming, module_name
from lorablend.adapters.wording import shown
from lorablend.convert.extras import install_hint

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from lorablend.train.base import BaseNetworks
    from lorablend.train.config import TrainConfig

__all__ = ["LOCON_TARGETS", "TEXT_TARGETS", "UNET_TARGETS", "Change", "Network", "attach", "default_alpha"]

UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
LOCON_TARGETS = (
    *UNET_TARGETS,
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
)
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

_ADAPTER = "default"  # PEFT's name for the only adapter
_LYCORIS = ("locon", "loha", "lokr")
# One factor of the Kronecker product is about 8×8: LyCORIS' own advice for a LoKr that behaves like a LoRA.
_LOKR_FACTOR = 8
_ROLES_OF_DIFFUSERS = {
    "lora_down.weight": "lora_A.weight",
    "lora_up.weight": "lora_B.weight",
    "dora_scale": "lora_magnitude_vector",
}
_ROLES_OF_TRANSFORMERS = {"dora_scale": "lora_magnitude_vector.weight"}


class Change(NamedTuple):
    """The f32 weight of a base layer and what the trained module adds to it, both [out, in] or [out, in, *kernel]."""

    weight: np.ndarray
    change: np.ndarray


@dataclass(frozen=True)
class _Target:
    """One adapted layer; `path` is the module path of lorablend.adapters, which may differ from transformers'."""

    component: str
    path: str
    layer: Any  # the base layer
    adapter: Any  # PEFT's LoraLayer or a LyCORIS module


class Network:
    """The trainable part of a model; `attach` makes it.

    It stays in the model: `parameters()` are trained in place, and the model's forward pass includes the change.
    """

    def __init__(
        self,
        targets: tuple[_Target, ...],
        components: Mapping[str, torch.nn.Module],
        config: TrainConfig,
        alpha: float,
        family: str,
        sgm_names: bool,
    ) -> None:
        self._targets, self._components, self._config = targets, dict(components), config
        self.alpha, self.family = alpha, family
        # kohya names SDXL's UNet as the original checkpoint does, which assumes two layers per level.
        self._kohya_base = family if sgm_names else {"sdxl": "unknown"}.get(family, family)

    @property
    def algorithm(self) -> str:
        """ "lora", "dora", "locon", "loha" or "lokr"."""
        return self._config.algorithm

    @property
    def modules(self) -> tuple[tuple[str, str], ...]:
        """(component, module path) of every adapted layer, in the model's order."""
        return tuple((target.component, target.path) for target in self._targets)

    @property
    def parameter_count(self) -> int:
        """The number of numbers that are trained."""
        return sum(parameter.numel() for parameter in self._named().values())

    def parameters(self) -> list[dict[str, Any]]:
        """Groups for an optimizer: {"name": component, "params": f32 tensors, "lr": learning rate}."""
        rates = {"unet": self._config.learning_rate}
        return [
            {
                "name": component,
                "params": [parameter for _, parameter in _trainable(model)],
                "lr": rates.get(component, self._config.text_encoder_learning_rate),
            }
            for component, model in self._components.items()
        ]

    def state(self) -> dict[str, torch.Tensor]:
        """Copy everything that is trained: f32, on the CPU, by "component.parameter name"."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._named().items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state()` returned, bit for bit. TrainError, and no change, if it is another network's."""
        import torch

        named = self._named()
        wrong = sorted(named.keys() ^ state.keys()) or sorted(
            name for name, parameter in named.items() if parameter.shape != state[name].shape
        )
        if wrong:
            raise TrainError(
                f"the saved state is another network's: {shown(wrong[0])} and {len(wrong) - 1} more parameters differ; "
                "resume with the settings of that training"
            )
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(state[name])

    def tensors(self, keys: Naming = "kohya") -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """The file's contents: f32 arrays by tensor name, and the metadata that describes the network.

        With kohya's keys alpha is a tensor per module; with diffusers' it is in `lora_adapter_metadata`, where
        diffusers puts it. Raises TrainError for an algorithm that diffusers has no names for.
        """
        _check_keys(keys, self.algorithm)
        tensors: dict[str, np.ndarray] = {}
        for target in self._targets:
            roles = self._roles(target)
            if keys == "diffusers":
                del roles["alpha"]
                name = module_name(target.component, target.path, self.family, keys)
                # transformers, which loads the text encoders' part, silently drops a magnitude without ".weight".
                names = _ROLES_OF_DIFFUSERS | ({} if target.component == "unet" else _ROLES_OF_TRANSFORMERS)
                roles = {names[role]: values for role, values in roles.items()}
            else:
                name = self._kohya_name(target)
                if "dora_scale" in roles:  # the shape of LyCORIS, ComfyUI and A1111; PEFT's is [out] or [1, out, …]
                    magnitude = roles["dora_scale"]
                    roles["dora_scale"] = magnitude.reshape(-1, *[1] * (roles["lora_down.weight"].ndim - 1))
            tensors |= {f"{name}.{role}": values for role, values in roles.items()}
        return tensors, self._metadata(keys)

    def changes(self) -> Iterator[tuple[tuple[str, str], Change]]:
        """Yield each adapted layer's weight and what training added to it, as PEFT or LyCORIS compute it."""
        import torch

        for target in self._targets:
            with torch.no_grad():
                weight = target.layer.weight.detach().float()
                change = _change(target.adapter, weight).reshape(weight.shape)
            yield (target.component, target.path), Change(_array(weight), _array(change))

    def _named(self) -> dict[str, torch.nn.Parameter]:
        return {
            f"{component}.{name}": parameter
            for component, model in self._components.items()
            for name, parameter in _trainable(model)
        }

    def _roles(self, target: _Target) -> dict[str, np.ndarray]:
        """Map kohya's name of each tensor's role to its values; the magnitude has PEFT's shape."""
        if self.algorithm in _LYCORIS:
            return {role: _array(values) for role, values in target.adapter.custom_state_dict().items()}
        layer = target.adapter
        roles = {
            "lora_down.weight": _array(layer.lora_A[_ADAPTER].weight),
            "lora_up.weight": _array(layer.lora_B[_ADAPTER].weight),
            "alpha": np.array(self.alpha, np.float32),
        }
        if self.algorithm == "dora":
            roles["dora_scale"] = _array(layer.lora_magnitude_vector[_ADAPTER].weight)
        return roles

    def _kohya_name(self, target: _Target) -> str:
        base = self._kohya_base if target.component == "unet" else self.family
        return module_name(target.component, target.path, base, "kohya")

    def _metadata(self, keys: Naming) -> dict[str, str]:
        config = self._config
        plain = self.algorithm == "lora"
        arguments = {
            "lora": {},
            "dora": {"algo": "lora", "dora_wd": "True"},
            "locon": {"algo": "locon", "conv_dim": str(config.rank), "conv_alpha": f"{self.alpha:g}"},
            "loha": {"algo": "loha"},
            "lokr": {"algo": "lokr", "factor": str(_LOKR_FACTOR)},
        }[self.algorithm]
        entries = {
            "ss_network_module": "networks.lora" if plain else "lycoris.kohya",
            "ss_network_dim": str(config.rank),
            "ss_network_alpha": f"{self.alpha:g}",
        }
        if arguments:
            entries["ss_network_args"] = json.dumps(arguments, sort_keys=True)
        if keys == "diffusers":
            settings = {
                f"{component}.{key}": sorted(value) if isinstance(value, set) else value
                for component in self._components
                for key, value in _peft_config(component, config, self.alpha).to_dict().items()
            }
            entries["lora_adapter_metadata"] = json.dumps(settings, sort_keys=True)
        return entries


def default_alpha(family: str, rank: int) -> float:
    """The rank for SDXL, half of it for SD 1.5."""
    return float(rank) if family == "sdxl" else rank / 2


def attach(models: BaseNetworks, config: TrainConfig) -> Network:
    """Freeze the model and put a new network into its UNet, and into its text encoders if the configuration says so.

    The initial numbers depend on `config.seed` alone. A model takes only one network.

    Raises:
        TrainError: The keys have no names for the algorithm, or the model has no layer to adapt.
        MissingExtraError: LyCORIS is not installed.
    """
    import torch

    _check_keys(config.keys, config.algorithm)
    frozen = {"unet": models.unet, **_text_encoders(models)}
    for model in (*frozen.values(), models.vae):
        model.requires_grad_(False)
    components = frozen if config.text_encoder else {"unet": models.unet}
    alpha = default_alpha(models.family, config.rank) if config.alpha is None else float(config.alpha)
    add = _add_lycoris if config.algorithm in _LYCORIS else _add_peft
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(config.seed)
        targets = tuple(
            target for component, model in components.items() for target in add(component, model, config, alpha)
        )
    if not targets:
        raise TrainError(
            f"the {models.family} model has no layer that an adapter could change; give an SDXL or SD 1.x model"
        )
    for model in components.values():
        for _, parameter in _trainable(model):
            parameter.data = parameter.data.float()
    if config.algorithm == "dora":
        _set_magnitudes(targets)
    settings = models.unet.config
    two_layers = settings["layers_per_block"] == 2 and len(settings["block_out_channels"]) == 3
    return Network(targets, components, config, alpha, models.family, two_layers)


def _set_magnitudes(targets: tuple[_Target, ...]) -> None:
    """Set DoRA's magnitudes to the f32 lengths of the weights' rows, which the forward pass divides by.

    PEFT (0.21) computes them in the base model's type: in bf16 each would be off by up to 0.2 %.
    """
    from peft.utils.integrations import dequantize_module_weight

    for target in targets:
        vector = target.adapter.lora_magnitude_vector[_ADAPTER]
        weight = dequantize_module_weight(target.layer).detach().float()
        vector.weight.data = vector.get_weight_norm(weight, 0, 1).detach()


def _check_keys(keys: str, algorithm: str) -> None:
    if keys == "diffusers" and algorithm in ("loha", "lokr"):
        raise TrainError(f"keys is diffusers, which has no names for {algorithm}; choose kohya")


def _text_encoders(models: BaseNetworks) -> dict[str, torch.nn.Module]:
    return dict(zip(("text_encoder", "text_encoder_2"), models.text_encoders, strict=False))


def _targets_of(component: str, algorithm: str) -> tuple[str, ...]:
    if component != "unet":
        return TEXT_TARGETS
    return LOCON_TARGETS if algorithm == "locon" else UNET_TARGETS


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _canonical(component: str, path: str) -> str:
    """Restore the "text_model." that transformers 5 dropped from the first text encoder's layer names."""
    return path if component == "unet" or path.startswith("text_model.") else f"text_model.{path}"


def _peft_config(component: str, config: TrainConfig, alpha: float) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(
        r=config.rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType] - annotated as int, used as any number
        target_modules=list(_targets_of(component, config.algorithm)),
        use_dora=config.algorithm == "dora",
    )


def _add_peft(component: str, model: torch.nn.Module, config: TrainConfig, alpha: float) -> list[_Target]:
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    inject_adapter_in_model(_peft_config(component, config, alpha), model, adapter_name=_ADAPTER)
    return [
        _Target(component, _canonical(component, path), layer.get_base_layer(), layer)
        for path, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    ]


def _add_lycoris(component: str, model: torch.nn.Module, config: TrainConfig, alpha: float) -> list[_Target]:
    """Make LyCORIS' modules one by one, for its `create_lycoris` keeps the choice of targets in globals.

    With bypass_mode the change is applied to the layer's input; otherwise LyCORIS (4.1.3) computes W + ΔW - W in the
    base model's type, of which bf16 leaves little. Each module becomes a child of the layer it changes, so that the
    model's parameters, and whatever moves or synchronizes them, include it.
    """
    import torch

    endings = tuple(f".{name}" for name in _targets_of(component, config.algorithm))
    kind = _lycoris_class(config.algorithm)
    options = {"factor": _LOKR_FACTOR} if config.algorithm == "lokr" else {}
    targets = []
    for path, layer in list(model.named_modules()):
        if not path.endswith(endings) or not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            continue
        module = kind(
            f"{component}.{path}",
            layer,
            lora_dim=config.rank,
            alpha=alpha,
            bypass_mode=True,
            **options,
        ).to(layer.weight.device)
        module.apply_to()
        layer.add_module("lycoris", module)
        targets.append(_Target(component, _canonical(component, path), layer, module))
    return targets


def _lycoris_class(algorithm: str) -> Any:
    try:
        from lycoris import logging as lycoris_logging
        from lycoris.modules.locon import LoConModule
        from lycoris.modules.loha import LohaModule
        from lycoris.modules.lokr import LokrModule
    except ImportError as error:
        raise MissingExtraError(f"{algorithm} needs lycoris-lora; {install_hint('train')}") from error
    lycoris_logging.logger.setLevel(logging.ERROR)  # it warns of each LoKr layer that is too small to factor
    return {"locon": LoConModule, "loha": LohaModule, "lokr": LokrModule}[algorithm]


def _change(adapter: Any, weight: torch.Tensor) -> torch.Tensor:
    if hasattr(adapter, "make_weight"):  # LyCORIS' LoCon
        return adapter.make_weight() * adapter.scale
    if hasattr(adapter, "get_weight"):  # its LoHa and LoKr; scaled already
        return adapter.get_weight(adapter.shape)
    if adapter.use_dora[_ADAPTER]:
        return adapter.lora_variant[_ADAPTER].merge_safe(adapter, _ADAPTER, weight) - weight
    return adapter.get_delta_weight(_ADAPTER)


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy().copy()
