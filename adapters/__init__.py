"""Read, understand and combine adapter files: numpy and safetensors only."""

from .adapter import Adapter, load_adapter
from .blend import Blend, BlendItem, resolve_blend
from .delta import Delta, RawFactors
from .inspect import inspect_adapter
from .prompt import parse_lora_option, parse_prompt

__all__ = [
    "Adapter",
    "Blend",
    "BlendItem",
    "Delta",
    "RawFactors",
    "inspect_adapter",
    "load_adapter",
    "parse_lora_option",
    "parse_prompt",
    "resolve_blend",
]
