"""Read, understand and combine adapter files. Needs only numpy."""

from lorablend.adapters.adapter import Adapter, load_adapter
from lorablend.adapters.algorithms.delta import BiasDelta, Delta, Gated, RawFactors
from lorablend.adapters.blends.blend import Blend, BlendItem
from lorablend.adapters.blends.block_weights import BlockWeights
from lorablend.adapters.blends.mask import Mask
from lorablend.adapters.blends.prompt import parse_lora_option, parse_prompt
from lorablend.adapters.blends.resolve import Entry, read_blend_json, resolve_blend
from lorablend.adapters.blends.schedule import Schedule
from lorablend.adapters.blends.tags import write_tags
from lorablend.adapters.inspect import inspect_adapter

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
