"""An RMSNorm for the CPU, as the kernels library loads it."""

from . import layers

__all__ = ["layers"]
