"""The C++ compiler that torch.compile uses on the CPU."""

import subprocess
import sys
from collections.abc import Mapping


def describe_compiler(variables: Mapping[str, str]) -> str | None:
    """Return the compiler's own version line, or None where there is none.

    The choice is that of `torch._inductor.config.cpp.cxx` (torch 2.13): CXX, else clang++ on macOS and g++ elsewhere;
    CXX is one command without arguments, and no other compiler is tried.
    """
    command = variables.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    try:
        output = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(output.splitlines()), None)
