"""The worker with all that it started: the time it took from the CPU, its memory, and which processes are not it."""

import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import psutil

from hfbench.monitoring.gauges import Gauge, Value
from hfbench.monitoring.kernel_files import read_text

_SEARCH_SECONDS = 1.0  # between two looks for new children, which cost a file a thread
_ENDED = "the worker's process could not be read"


class ProcessTree:
    """The worker's process and its descendants, as far as they are known."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._processes: dict[int, psutil.Process] = {}
        self._searched_at = float("-inf")
        self._search()
        self._read_at, self._seconds = time.perf_counter(), self._cpu_seconds()

    def members(self) -> frozenset[int]:
        """Return the process ids; a child younger than a second may not be among them."""
        return frozenset(self._processes)

    def gauge(self) -> Gauge:
        """Return the gauge of the CPU time that the tree took, in cores, and of the worker's own resident set."""
        return Gauge(("worker_cpu_cores", "worker_rss_bytes"), self._read, _ENDED)

    def _read(self) -> Sequence[Value]:
        now = time.perf_counter()
        if now - self._searched_at >= _SEARCH_SECONDS:
            self._search()
        seconds = self._cpu_seconds()
        elapsed, taken = now - self._read_at, seconds - self._seconds
        self._read_at, self._seconds = now, seconds
        # A child that leaves the tree takes its time with it.
        cores = round(taken / elapsed, 3) if self.pid in self._processes and elapsed > 0 and taken >= 0 else None
        return [cores, self._rss_bytes()]

    def _cpu_seconds(self) -> float:
        """Return the CPU time of all members and of the children that each has waited for.

        A child that ends moves from the one to the other, so that the sum goes on without a step.
        """
        total = 0.0
        for pid, process in list(self._processes.items()):
            try:
                times = process.cpu_times()
            except psutil.Error:
                del self._processes[pid]
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def _rss_bytes(self) -> int | None:
        """Return the worker's own resident set: its children share pages with it, which a sum would count twice."""
        worker = self._processes.get(self.pid)
        try:
            return None if worker is None else int(worker.memory_info().rss)
        except psutil.Error:
            return None

    def _search(self) -> None:
        self._searched_at = time.perf_counter()
        found, waiting = set[int](), [self.pid]
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting += _children(pid)
        for pid in found - self._processes.keys():
            try:
                self._processes[pid] = psutil.Process(pid)
            except psutil.Error:
                continue


def count_others(
    listed: Collection[int], ours: Collection[int], is_here: Callable[[int], bool] = psutil.pid_exists
) -> int | None:
    """Return how many of the process ids that a driver listed are not `ours`, or None where that cannot be told.

    In a container some drivers list the ids of the host: then none is ours, and some are of no process here.
    """
    others = set(listed) - set(ours)
    is_same_namespace = len(others) < len(set(listed)) or all(is_here(pid) for pid in others)
    return len(others) if is_same_namespace else None


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 (names are all that is needed, at a third of the cost)
    except OSError:
        return _children_elsewhere(pid)
    lists = (read_text(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for line in lists if line for child in line.split()]


def _children_elsewhere(pid: int) -> list[int]:
    if Path("/proc/self/task").exists():
        return []  # on Linux: the process has ended
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []
