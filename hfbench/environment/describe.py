"""The description of this machine that every measurement depends on."""

import os
import platform
import sys
from typing import Any

from hfbench.environment.accelerators import describe_accelerators
from hfbench.environment.compiler import describe_compiler
from hfbench.environment.cpu import describe_cpu
from hfbench.environment.memory import describe_memory
from hfbench.environment.nvidia import name_visible_devices
from hfbench.environment.packages import describe_packages
from hfbench.environment.system import describe_system
from hfbench.environment.variables import relevant_variables
from hfbench.foundation.records import SCHEMA_VERSION

_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def describe() -> dict[str, Any]:
    """Return what changes performance on this machine, and nothing that changes by itself.

    Every measurement depends on each byte of it: equal machines return equal content, in the same order. It holds no
    time, load, temperature, clock reading, host name, user, absolute path or serial number.
    """
    accelerators, notes = describe_accelerators()
    return {
        "schema_version": SCHEMA_VERSION,
        "system": describe_system(),
        "cpu": describe_cpu(),
        "memory": describe_memory(),
        "accelerators": accelerators,
        "accelerator_notes": notes,
        "python": _describe_python(),
        "compiler": describe_compiler(os.environ),
        "packages": describe_packages(),
        "variables": _describe_variables(),
    }


def _describe_python() -> dict[str, str]:
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "compiler": platform.python_compiler(),
        "abi_flags": getattr(sys, "abiflags", ""),  # a debug build, or one without the global interpreter lock
    }


def _describe_variables() -> dict[str, str]:
    variables = relevant_variables(os.environ)
    if _VISIBLE_DEVICES in variables:
        variables[_VISIBLE_DEVICES] = name_visible_devices(variables[_VISIBLE_DEVICES])
    return variables
