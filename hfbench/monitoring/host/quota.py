"""The time for which a container's CPU limit held its processes back."""

from collections.abc import Sequence
from pathlib import Path

from hfbench.monitoring.gauges import Gauge, Value
from hfbench.monitoring.kernel_files import ROOT, existing, read_text

_GROUPS = "sys/fs/cgroup"
# Versions 2 and 1 of control groups (Documentation/admin-guide/cgroup-v2.rst, scheduler/sched-bwc.rst of Linux).
_SECONDS = {"throttled_usec": 1e-6, "throttled_time": 1e-9}


def quota_gauge(root: Path = ROOT) -> Gauge:
    """Return the gauge of the seconds, summed over this process's control groups; it only grows."""
    files = existing(dict.fromkeys(_files(root)))

    def read() -> Sequence[Value]:
        seconds = [value for file in files if (value := _throttled_seconds(read_text(file) or "")) is not None]
        return [round(sum(seconds), 6) if seconds else None]

    return Gauge(("quota_throttled_seconds",), read, "the control group of this process has no CPU controller")


def _files(root: Path) -> list[Path]:
    """Return where `cpu.stat` may lie: in the process's own group and in each above it."""
    files: list[Path] = []
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount = root / _GROUPS
        elif "cpu" in controllers.split(","):
            mount = root / _GROUPS / "cpu"
        else:
            continue
        parts = [part for part in group.split("/") if part not in ("", "..")]
        files += [mount.joinpath(*parts[:depth]) / "cpu.stat" for depth in range(len(parts), -1, -1)]
    return files


def _throttled_seconds(text: str) -> float | None:
    pairs = (line.split() for line in text.splitlines())
    values = [int(pair[1]) * _SECONDS[pair[0]] for pair in pairs if len(pair) == 2 and pair[0] in _SECONDS]
    return sum(values) if values else None
