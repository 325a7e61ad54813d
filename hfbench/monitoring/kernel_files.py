"""Small files in which the Linux kernel tells a value; read often, so with as few calls as there can be."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hfbench.monitoring.gauges import Gauge, Value

ROOT = Path("/")
_BYTES = 4096  # a file of /sys holds one page at most; of /proc/self/cgroup it is enough


def read_text(path: str | Path) -> str | None:
    """Return the beginning of a file, stripped, or None where it is missing, unreadable or empty."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(descriptor, _BYTES).decode(errors="replace").strip() or None
    except OSError:  # a driver may refuse while its device sleeps
        return None
    finally:
        os.close(descriptor)


def read_integer(path: str | Path) -> int | None:
    """Return the integer that a file holds, or None."""
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def existing(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return those of the paths that are there, as strings."""
    return tuple(str(path) for path in paths if path.exists())


def file_gauge(name: str, paths: Iterable[Path], scale: float, otherwise: str) -> Gauge:
    """Return a gauge of the first of the files that is there: the integer in it, times `scale`."""
    found = existing(paths)[:1]

    def read() -> Sequence[Value]:
        value = read_integer(found[0]) if found else None
        return [None if value is None else round(value * scale, 6)]

    return Gauge((name,), read, otherwise)
