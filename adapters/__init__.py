"""Read, understand and combine adapter files: numpy and safetensors only."""

from .adapter import Adapter, load_adapter
from .blend import Blend, BlendItem
from .block_weights import BlockWeights
from .delta import BiasDelta, Delta, Gated, RawFactors
from .inspect import inspect_adapter
from .mask import Mask
from .prompt import parse_lora_option, parse_prompt
from .resolve import Entry, read_blend_json, resolve_blend
from .schedule import Schedule
from .tags import write_tags

__all__ = [
    "Adapter",
    "BiasDelta",
    "Blend",
    "BlendItem",
    "BlockWeights",
    "Delta",
    "Entry",
    "Gated",
    "Mask",
    "RawFactors",
    "Schedule",
    "inspect_adapter",
    "load_adapter",
    "parse_lora_option",
    "parse_prompt",
    "read_blend_json",
    "resolve_blend",
    "write_tags",
]
