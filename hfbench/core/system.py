"""Small files that the Linux kernel describes itself in, read without ever failing."""

import os
import re
from itertools import takewhile
from pathlib import Path

import psutil


def openmp_threads() -> str:
    """Return the value of OMP_NUM_THREADS for such a process: the ambient one, or the physical cores it may use."""
    return os.environ.get("OMP_NUM_THREADS") or str(_usable_cores())


def _usable_cores() -> int:
    """Return the physical cores that this process may use; threads beyond them slow matrix products down."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(affinity, psutil.cpu_count(logical=False) or affinity)


FILESYSTEM = Path("/")


def read_text(path: Path) -> str | None:
    """Return the stripped text of a file, or None where it is missing, unreadable or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def read_integer(path: Path) -> int | None:
    """Return the integer that a file holds, or None."""
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def read_choice(path: Path) -> str | None:
    """Return the chosen word of a file such as `always [madvise] never`, or None."""
    chosen = re.search(r"\[(\S+)\]", read_text(path) or "")
    return chosen[1] if chosen else None


def read_first_line(path: Path) -> str | None:
    """Return the first line of a file that may be long, or None."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return lines.readline().strip() or None
    except OSError:
        return None


def read_cpu_list(path: Path) -> frozenset[int]:
    """Return the numbers in a list as the kernel writes it (`0-3,8`); empty where there is none."""
    numbers: set[int] = set()
    for span in (read_text(path) or "").split(","):
        first, _, last = span.strip().partition("-")
        if first.isdigit():
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def read_cpuinfo(root: Path = FILESYSTEM) -> dict[str, str]:
    """Return the entries of the first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        # The kernel makes the file while it is read: the other processors' parts cost time, and say the same.
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            first = list(takewhile(str.strip, lines))
    except OSError:
        return {}
    entries = (line.partition(":") for line in first)
    return {key.strip(): value.strip() for key, _, value in entries}
