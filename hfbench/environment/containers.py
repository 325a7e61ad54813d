"""The memory and the CPU time that a container's control groups leave to this process."""

from collections.abc import Iterator
from pathlib import Path

from hfbench.environment.readings import FILESYSTEM, read_integer, read_text

_GROUPS = "sys/fs/cgroup"
# Version 1 writes "unlimited" as the largest whole number of pages; no machine has an exbibyte.
_UNLIMITED_BYTES = 2**60


def memory_limit(root: Path = FILESYSTEM) -> int | None:
    """Return the least memory limit over the process's control groups in bytes, or None where there is none."""
    limits = [read_integer(folder / "memory.max") for folder in _folders(root, "")]  # "max" is no integer
    limits += [read_integer(folder / "memory.limit_in_bytes") for folder in _folders(root, "memory")]
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES), default=None)


def cpu_limit(root: Path = FILESYSTEM) -> float | None:
    """Return the least CPU time limit over the process's control groups in cores, or None where there is none."""
    limits = [_quota(*(read_text(folder / "cpu.max") or "max").split()) for folder in _folders(root, "")]
    limits += [
        _quota(read_text(folder / "cpu.cfs_quota_us") or "-1", read_text(folder / "cpu.cfs_period_us") or "0")
        for folder in _folders(root, "cpu")
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def _quota(quota: str, period: str = "100000") -> float | None:
    """Return microseconds of CPU time a period as cores; "max" and negative quotas are no limit."""
    unlimited = not quota.isdigit() or int(quota) == 0 or not period.isdigit() or int(period) == 0
    return None if unlimited else round(int(quota) / int(period), 3)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the control group of this process and each above it; the controller "" stands for version 2."""
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        # A container mounts its own group as the top, while this path may count from the host's: what is not there
        # is passed over, and the mount itself always looked at.
        mounts = [root / _GROUPS / name for name in ([controllers, controller] if controller else ["", "unified"])]
        for mount in dict.fromkeys(mounts):
            parts = [part for part in group.split("/") if part not in ("", "..")]
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))
