"""Whether the processes that this one works for are still there: DVC, and the shell that it started the stage with."""

import os
import sys
from contextlib import suppress

import psutil

_SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}


def watch_parents() -> list[int]:
    """Return descriptors that become readable when a process that this one works for ends; none but on Linux.

    A signal to DVC alone ends DVC and not the stage that it started through `sh -c`: without this, a measurement would
    go on with nobody to take its result.
    """
    if sys.platform != "linux":
        return []
    descriptors = []
    with suppress(OSError, psutil.Error):
        for parent in psutil.Process().parents():
            descriptors.append(os.pidfd_open(parent.pid))
            if parent.name() not in _SHELLS or "-c" not in parent.cmdline():
                break
    return descriptors
