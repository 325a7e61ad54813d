"""What must be equal on both sides for a difference between them to be one of the software.

The machine and how it is set up must be equal: processor, memory, accelerators with their drivers and settings, the
operating system with its kernel and limits, and the environment variables that hfbench records because they change how
fast a model runs. Packages, Python and the compiler need not: they are what is compared, like hfbench's own code, the
params and the model's revision, and `hfbench.comparison.changes` names them.
"""

from collections.abc import Mapping
from typing import Any

from hfbench.comparison.differences import Difference, differences

_MACHINE = ("system", "cpu", "memory", "accelerators", "variables")
UNKNOWN = "unknown"


def environment_differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between two machines (contents of environment.json); nothing where they are equal.

    Where a side does not say what machine it is from, that is the difference.
    """
    if not baseline or not candidate:
        return [Difference("machine", *("known" if content else UNKNOWN for content in (baseline, candidate)))]
    old, new = ({part: content.get(part) for part in _MACHINE} for content in (baseline, candidate))
    return differences(old, new)
