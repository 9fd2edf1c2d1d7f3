"""From a diffusers model or a checkpoint file to the OpenVINO model folder that the engine runs.

torch, diffusers, Optimum Intel and NNCF live behind the extra `lorablend[convert]` and are imported only in the child
process that exports; importing this package costs nothing.
"""

from lorablend.convert.conversion import convert
from lorablend.convert.extras import require_extra

__all__ = ["convert", "require_extra"]
