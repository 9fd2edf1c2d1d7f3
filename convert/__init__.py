"""Convert a diffusers model or a checkpoint file to the OpenVINO model folder that the engine runs.

torch, diffusers, Optimum Intel and NNCF come with the extra `lorablend[convert]` and are imported only in the child
process that exports; importing this package is cheap.
"""

from lorablend.convert.conversion import convert
from lorablend.convert.extras import require_extra

__all__ = ["convert", "require_extra"]
