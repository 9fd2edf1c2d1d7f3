"""How adapter files name their tensors, as tables: the prefix gives the component, the suffix gives the tensor's role.

A new spelling is a new row. `modules.find_module` looks up what is between prefix and suffix.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lorablend.adapters.names.modules import find_module

__all__ = [
    "BUNDLED",
    "BUNDLE_PREFIX",
    "COMPONENTS",
    "LONGEST_NAME",
    "NOT_ADAPTERS",
    "OTHER_BASES",
    "PEFT_METHODS",
    "PREFIXES",
    "ROLES",
    "Key",
    "algorithm_of",
    "parse_key",
]

BUNDLED = "bundled embedding"  # the algorithm of tensors that belong to no module
BUNDLE_PREFIX = "bundle_emb."  # bundle_emb.<token>.<part>

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")

# The first row that matches decides. None means the UNet or a text encoder, whichever has the module; the same holds
# for a name without a prefix.
PREFIXES = (
    ("lora_unet_", "unet"),  # kohya and everything descended from it
    ("lora_te_wrapped_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("lycoris_", None),  # LyCORIS' own wrapper, SimpleTuner
    ("oft_unet_", "unet"),  # kohya's networks.oft
    ("oft_te1_", "text_encoder"),
    ("oft_te2_", "text_encoder_2"),
    ("oft_te_", "text_encoder"),
    ("unet.", "unet"),  # diffusers; OMI with SGM names behind it
    ("unet_", "unet"),  # ai-toolkit's unet_conv_in and unet_conv_out
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("diffusion_model.", "unet"),  # ComfyUI
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_h.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("clip_l.", "text_encoder"),  # OMI
    ("clip_g.", "text_encoder_2"),
)
_FLAT_PREFIXES = tuple((prefix.replace(".", "_"), component) for prefix, component in PREFIXES)
_PEFT_PREFIX = "base_model_model_"
_PEFT_SUFFIX = "_base_layer"  # the module that PEFT wraps, whose bias is saved with bias="all"

# (suffix, role, algorithm). The longest suffix that matches decides; * stands for the adapter's name, which PEFT
# sometimes leaves in. If a module has roles of several algorithms, the highest row decides its algorithm: DoRA comes
# with LoRA's tensors, and any of them may come with an alpha. A "bias" is a change separate from the weight's.
ROLES = (
    (".bias_indices", "bias_indices", "sparse residual"),
    (".bias_values", "bias_values", "sparse residual"),
    (".bias_size", "bias_size", "sparse residual"),
    (".dora_scale", "dora_scale", "DoRA"),  # LyCORIS
    (".lora_magnitude_vector", "magnitude", "DoRA"),  # PEFT
    (".lora_magnitude_vector.weight", "magnitude", "DoRA"),
    (".lora_magnitude_vector.*.weight", "magnitude", "DoRA"),
    (".lora_magnitude_vector.*", "magnitude", "DoRA"),
    (".magnitude", "magnitude", "DoRA"),  # ai-toolkit
    (".hada_w1_a", "hada_w1_a", "LoHa"),
    (".hada_w1_b", "hada_w1_b", "LoHa"),
    (".hada_w2_a", "hada_w2_a", "LoHa"),
    (".hada_w2_b", "hada_w2_b", "LoHa"),
    (".hada_t1", "hada_t1", "LoHa"),
    (".hada_t2", "hada_t2", "LoHa"),
    (".hada_w1_a.*", "hada_w1_a", "LoHa"),
    (".hada_w1_b.*", "hada_w1_b", "LoHa"),
    (".hada_w2_a.*", "hada_w2_a", "LoHa"),
    (".hada_w2_b.*", "hada_w2_b", "LoHa"),
    (".hada_t1.*", "hada_t1", "LoHa"),
    (".hada_t2.*", "hada_t2", "LoHa"),
    (".lokr_w1", "lokr_w1", "LoKr"),
    (".lokr_w1_a", "lokr_w1_a", "LoKr"),
    (".lokr_w1_b", "lokr_w1_b", "LoKr"),
    (".lokr_w2", "lokr_w2", "LoKr"),
    (".lokr_w2_a", "lokr_w2_a", "LoKr"),
    (".lokr_w2_b", "lokr_w2_b", "LoKr"),
    (".lokr_t2", "lokr_t2", "LoKr"),
    (".lokr_w1.*", "lokr_w1", "LoKr"),
    (".lokr_w1_a.*", "lokr_w1_a", "LoKr"),
    (".lokr_w1_b.*", "lokr_w1_b", "LoKr"),
    (".lokr_w2.*", "lokr_w2", "LoKr"),
    (".lokr_w2_a.*", "lokr_w2_a", "LoKr"),
    (".lokr_w2_b.*", "lokr_w2_b", "LoKr"),
    (".lokr_t2.*", "lokr_t2", "LoKr"),
    (".a1.weight", "a1", "GLoRA"),
    (".a2.weight", "a2", "GLoRA"),
    (".b1.weight", "b1", "GLoRA"),
    (".b2.weight", "b2", "GLoRA"),
    (".bm.weight", "bm", "GLoRA"),
    (".on_input", "on_input", "IA3"),
    (".ia3_l", "ia3", "IA3"),
    (".ia3_l.*", "ia3", "IA3"),
    (".boft_R", "boft_r", "BOFT"),
    (".boft_R.*", "boft_r", "BOFT"),
    (".boft_s", "boft_s", "BOFT"),
    (".boft_s.*", "boft_s", "BOFT"),
    (".oft_blocks", "oft_blocks", "OFT"),
    (".oft_diag", "oft_diag", "OFT"),
    (".oft_R.weight", "oft_r", "OFT"),
    (".oft_R.*.weight", "oft_r", "OFT"),
    (".oft_R.scaled_oft", "scaled_oft", "OFT"),
    (".rescale", "rescale", "OFT"),
    (".lora_embedding_A", "embedding_down", "embedding LoRA"),
    (".lora_embedding_A.*", "embedding_down", "embedding LoRA"),
    (".lora_embedding_B", "embedding_up", "embedding LoRA"),
    (".lora_embedding_B.*", "embedding_up", "embedding LoRA"),
    (".lora_down.weight", "down", "LoRA"),  # kohya
    (".lora_up.weight", "up", "LoRA"),
    (".lora_mid.weight", "mid", "LoRA"),
    (".lora_A.weight", "down", "LoRA"),  # PEFT
    (".lora_B.weight", "up", "LoRA"),
    (".lora_A.*.weight", "down", "LoRA"),
    (".lora_B.*.weight", "up", "LoRA"),
    (".lora_A", "down", "LoRA"),
    (".lora_B", "up", "LoRA"),
    (".lora.down.weight", "down", "LoRA"),  # diffusers before PEFT
    (".lora.up.weight", "up", "LoRA"),
    ("_lora.down.weight", "down", "LoRA"),  # its attention processors
    ("_lora.up.weight", "up", "LoRA"),
    (".lora_linear_layer.down.weight", "down", "LoRA"),
    (".lora_linear_layer.up.weight", "up", "LoRA"),
    (".down.weight", "down", "LoRA"),
    (".up.weight", "up", "LoRA"),
    (".diff", "diff", "full difference"),
    (".set_weight", "set_weight", "full difference"),
    (".w_norm", "w_norm", "full difference"),
    (".reshape_weight", "reshape_weight", "base reshaping"),  # ComfyUI's, for adapters that enlarge a weight
    (".weight", "weight", "full weights"),
    (".lora_up.bias", "up_bias", "bias"),
    (".lora_B.bias", "up_bias", "bias"),
    (".lora_B.*.bias", "up_bias", "bias"),
    (".diff_b", "diff_b", "bias"),
    (".b_norm", "b_norm", "bias"),
    (".bias", "bias", "full bias"),
    (".scale", "scale", "number"),
    (".scalar", "scalar", "number"),
    (".alpha", "alpha", "number"),
)

# Files of another kind, recognised by one tensor name.
NOT_ADAPTERS = (
    (r"^lora_controlnet$", "a Control-LoRA"),
    (r"^lllite_unet", "a ControlNet-LLLite"),
    (r"^(image_proj|ip_adapter)\.", "an IP-Adapter"),
    (r"_custom_diffusion\.weight$", "a Custom Diffusion file"),
    (r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.", "a full checkpoint"),
    (r"^(unet|text_encoder):\d+:(up|down)$", "a file of the first LoRA tool, which does not name its modules"),
    (r"^(emb_params|string_to_param(\..*)?|clip_[lg])$", "a textual inversion"),
)

# PEFT's methods that we do not apply, by the start of a word in their tensors' names (each tuner's `prefix`, 0.21).
PEFT_METHODS = {
    "adamss_": "AdaMSS", "adaption_": "adaption prompt", "beft_": "BEFT", "c3a_": "C3A", "deft_": "DEFT",
    "delora_": "DeLoRA", "fourierft_": "FourierFT", "frod_": "FRoD", "glora_": "its own GLoRA", "gralora_": "GraLoRA",
    "hira_": "HiRA", "hra_": "HRA", "internal_xlora_": "X-LoRA", "lily_": "Lily", "ln_tuning_": "LN tuning",
    "lora_E": "AdaLoRA", "lora_diag": "KaSA", "miss_": "MiSS", "osf_": "OSF", "peanut_": "PEANuT", "poly_": "Poly",
    "prompt_embeddings": "prompt tuning", "psoft_": "PSOFT", "pvera_": "PVeRA", "randlora_": "RandLoRA",
    "road_": "RoAd", "shadow_": "shadow", "shira_": "SHiRA", "supertuning_": "supertuning", "tinylora_": "TinyLoRA",
    "trainable_tokens_": "trainable tokens", "unilora_": "Uni-LoRA", "vblora_": "VB-LoRA", "vera_": "VeRA",
    "waveft_": "WaveFT",
}  # fmt: skip

# Models with other modules than Stable Diffusion's UNet and CLIP, recognised by a name that matches no module of ours.
# The first row that matches any such name decides.
OTHER_BASES = (
    (r"^(lora_)?prior_(unet|te)_", "Stable Cascade"),
    (r"double_blocks\.\d+\.(img|txt)_attn_qkv", "HunyuanVideo"),
    (r"(double_blocks|single_blocks|single_transformer_blocks)[._]", "FLUX"),
    (r"(joint_blocks|context_block)[._]", "Stable Diffusion 3"),
    (r"(caption_projection|adaln_single)", "PixArt"),
    (r"blocks[._]\d+[._]cross_attn", "Wan"),
    (r"transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)", "Qwen-Image"),
    (r"transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj|^(text_encoder_3\.|lora_te3_)", "Stable Diffusion 3"),
    (r"(noise_refiner|context_refiner)[._]", "Lumina or Z-Image"),
    (r"(motion_modules|temporal_transformer)[._]", "AnimateDiff"),
    (
        r"^(lora_)?(unet_|transformer[._]|diffusion_model\.)_?(transformer_)?(blocks|layers)[._]",
        "a diffusion transformer",
    ),
)

_BY_SUFFIX = {suffix: (role, algorithm) for suffix, role, algorithm in ROLES}
_PRECEDENCE = {algorithm: -index for index, (_, _, algorithm) in reversed(list(enumerate(ROLES)))}
_UNDERSCORES = re.compile("__+")
_SUFFIX_START = re.compile(r"(?=\.|_lora\.)")
LONGEST_NAME = 400  # characters; the longest real names have about 130


@dataclass(frozen=True)
class Key:
    """The parts of a tensor's name.

    `component` is None if the name does not say which text encoder it belongs to, `path` is None if no model has such a
    module, and `role` and `algorithm` are "" if the suffix is unknown.
    """

    name: str
    component: str | None = None
    path: str | None = None
    role: str = ""
    algorithm: str = ""
    module: str = field(default="", compare=False)  # the name before the role, as it is in the file


def parse_key(name: str) -> Key:
    """Split a tensor's name; parts that are not understood stay empty, nothing is guessed."""
    if name.startswith(BUNDLE_PREFIX):
        return Key(name, role="embedding", algorithm=BUNDLED)
    if len(name) > LONGEST_NAME:
        return Key(name)
    for match in _SUFFIX_START.finditer(name):  # from the left, so the longest suffix comes first
        module, suffix = name[: match.start()], name[match.start() :]
        if role_and_algorithm := _BY_SUFFIX.get(suffix) or _BY_SUFFIX.get(_without_adapter_name(suffix)):
            return Key(name, *_find(module), *role_and_algorithm, module)
    return Key(name)


def algorithm_of(algorithms: Iterable[str]) -> str:
    """Return the algorithm of a module whose tensors belong to these algorithms."""
    return max(algorithms, key=lambda algorithm: _PRECEDENCE[algorithm])


def _without_adapter_name(suffix: str) -> str:
    """Replace the adapter's name as in the table: ".lora_A.default.weight" becomes ".lora_A.*.weight"."""
    words = suffix.split(".")
    return ".".join([*words[:2], "*", *words[3:]]) if len(words) > 2 else suffix


def _find(module: str) -> tuple[str | None, str | None]:
    """Return the component and the module path for a name with its prefix.

    Converters leave names dotted in part (diffusers' own leaves "lora_unet_…_attn1.to_q.lora_magnitude_vector"), so
    the whole name is flattened first.
    """
    name = _strip_peft(module.replace(".", "_")).removesuffix(_PEFT_SUFFIX)
    for prefix, component in _FLAT_PREFIXES:
        if name.startswith(prefix):
            rest = _strip_peft(name[len(prefix) :])
            return (component, _find_in(component, rest)) if component else _find_anywhere(rest)
    return _find_anywhere(name)


def _find_anywhere(name: str) -> tuple[str | None, str | None]:
    if path := _find_in("unet", name):
        return "unet", path
    return None, _find_in("text_encoder", name)


def _find_in(component: str, name: str) -> str | None:
    # Some tools write superfluous underscores, in the middle or at the end.
    return find_module(component, name) or find_module(component, _UNDERSCORES.sub("_", name).strip("_"))


def _strip_peft(name: str) -> str:
    while name.startswith(_PEFT_PREFIX):
        name = name[len(_PEFT_PREFIX) :]
    return name
