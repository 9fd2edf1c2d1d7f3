"""From the name of an IR's node to the diffusers name of its module.

Optimum Intel traces the torch model, and each node keeps the path of the module that made it:

    __module.model.down_blocks.1.attentions.0.proj_in/aten::linear/MatMul      SDXL's UNet, in a wrapper named "model"
    __module.down_blocks.0.attentions.0.proj_in/aten::_convolution/Convolution  SD 1.5's UNet, no wrapper
    __module.model.mid_block.attentions.0.proj_in/ov_ext::linear/MatMul         a network loaded as fp16
    __module.text_model.encoder.layers.0.mlp.fc1/aten::linear/MatMul            a text encoder
    __module.encoder.layers.0.mlp.fc1/aten::linear/MatMul                       a text encoder without its "text_model"
"""

import re

__all__ = ["EXACT_TOKENS", "module_path", "parameters_of"]

EXACT_TOKENS = "lorablend_clip_tokens"  # in the runtime information of tokenizer graphs that `clip_tokenizer` changed

# Matches the whole name, so that no layer is taken for another one whose name contains its own.
_NODE = re.compile(r"__module\.(?:model\.)?(?P<path>[A-Za-z_]\w*(?:\.\w+)*)/(?P<operation>\w+::\w+/[A-Za-z]+)(?:_\d+)?")
_LAYERS = ("aten::linear/MatMul", "ov_ext::linear/MatMul", "aten::_convolution/Convolution")
_BARE_TEXT_ENCODER = re.compile(r"(?:encoder\.layers\.\d+|embeddings)\..+|final_layer_norm")

# Which inputs of an operation are parameters of its module: (input, torch's name for the parameter).
_PARAMETERS = {
    **dict.fromkeys(_LAYERS, (("1", "weight"),)),
    "aten::linear/Add": (("1", "bias"),),
    "ov_ext::linear/Add": (("1", "bias"),),
    "aten::_convolution/Add": (("1", "bias"),),
    "aten::group_norm/GroupNormalization": (("1", "weight"), ("2", "bias")),
    "aten::layer_norm/Multiply": (("1", "weight"),),
    "aten::layer_norm/Add": (("1", "bias"),),
    "aten::embedding/Gather": (("0", "weight"),),
}


def module_path(friendly_name: str) -> str | None:
    """The module path of a linear layer's MatMul or a convolution's Convolution node; None for every other node.

    Text encoders' paths always begin with "text_model.", as adapter files have them.
    """
    match = _NODE.fullmatch(friendly_name)
    return _path(match) if match and match["operation"] in _LAYERS else None


def parameters_of(friendly_name: str) -> list[tuple[str, str]]:
    """The (input, "module path.weight" or "….bias") of each input of a node that is a parameter of its module."""
    match = _NODE.fullmatch(friendly_name)
    if match is None:
        return []
    return [(port, f"{_path(match)}.{name}") for port, name in _PARAMETERS.get(match["operation"], ())]


def _path(match: re.Match[str]) -> str:
    path = match["path"]
    return f"text_model.{path}" if _BARE_TEXT_ENCODER.fullmatch(path) else path
