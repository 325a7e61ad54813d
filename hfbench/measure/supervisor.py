"""The stage process of a measurement: it starts the worker, watches it, and turns whatever happens into a record.

It imports no torch, and while the worker runs it sleeps until the worker reports.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import Any

from safetensors import deserialize

from hfbench.core.errors import UserError
from hfbench.core.files import read_json
from hfbench.core.record import (
    CRASHED,
    FAILED,
    OK,
    OUT_OF_MEMORY,
    TIMED_OUT,
    UNAVAILABLE,
    Iteration,
    Record,
)
from hfbench.core.results import inputs_path
from hfbench.core.system import installed_packages
from hfbench.measure.failure import tells_no_memory
from hfbench.measure.process import end_process_group, oom_kills, scratch_folder, start_worker
from hfbench.measure.progress import NoProgress, Plan, Progress, digests, require_unchanged
from hfbench.measure.support import devices_used, meant_device, obstacle
from hfbench.measure.task import Task
from hfbench.measure.worker import FIRST_CALL
from hfbench.monitoring.devices import TakenDevice, take_device, vendors_of
from hfbench.monitoring.monitor import Monitor, machine_before
from hfbench.workers.forked import end_with_parents, parents, wait_readable, watch_parents

_NODE = "HFBENCH_NODE"  # what a fleet says of the node, as JSON: its name, and how many points it measures at a time
WARM_START = "warm start"


def wants_warm_start(task: Task, record: Record) -> bool:
    """Return whether the point is to be started again: where it was measured, and really compiled.

    Not with continuous batching, whose first call holds the start of its manager and its cache as well.
    """
    asked = (task.settings.compile or {}).get("measure_warm_start", False)
    return bool(asked) and record.status == OK and not task.configuration.continuous_batching


def warm_task(task: Task) -> Task:
    """Return the task of the second process: its hardware is not watched, and it has a log of its own."""
    sampling = dataclasses.replace(task.sampling, monitor_interval_seconds=0.0)
    return dataclasses.replace(task, sampling=sampling, log=task.log.with_suffix(f".warm{task.log.suffix}"))


def warm_start_of(warm: Record) -> dict[str, Any]:
    """Return what the record of the measurement says of the second process, whose own record is `warm`.

    `first_call_seconds`, `compile_seconds` and `cache_hits`, the graphs that inductor found in its cache folder; where
    it failed, `reason` alone.
    """
    if warm.status != OK:
        return {"reason": f"{warm.status}: {warm.reason}"}
    compilation = warm.effective["compilation"]
    return {
        "first_call_seconds": warm.first_call_seconds,
        "compile_seconds": compilation["seconds"],
        "cache_hits": compilation["cache_hits"],
    }


def tensors_sha256(path: Path) -> str:
    """Return a digest of the tensors in a safetensors file, whatever its header says beside."""
    digest = hashlib.sha256()
    for name, tensor in sorted(deserialize(path.read_bytes()), key=lambda each: each[0]):  # type: ignore[no-untyped-call]
        digest.update(f"{name} {tensor['dtype']} {tensor['shape']}\n".encode())
        digest.update(tensor["data"])
    return digest.hexdigest()


_READ_BYTES = 1 << 16
_GRACE_SECONDS = 2.0  # for a worker that has reported its end to be gone
_LOG_LINES = 40  # of the worker's log, kept in the record of a point that is not ok


def measure(task: Task, clock_zero: float) -> None:
    """Measure the task's configuration and write its record, whatever the outcome.

    It waits for the device where another process measures on it. `clock_zero` is the reading of `time.perf_counter` at
    the start of the stage. Raises `UserError` where the user must act before anything can be measured; then no record
    is written.
    """
    started_at, point = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), task.configuration
    record = Record(point, task.device, task.sampling, started_at=started_at)
    record.provenance = {
        **json.loads(os.environ.get(_NODE, "{}")),
        **digests(point, task.environment),
        "input_tensors": tensors_sha256(inputs_path(point)),
        "packages": installed_packages(),  # all, of which `environment` holds those that can change a number
    }
    watch_parents()  # while they are there
    plan = Plan(task, next(reversed(parents()), None))
    progress = Progress(point, plan, verbose=task.verbose or plan.is_verbose)
    progress.begin()
    environment = read_json(task.environment)
    asked_at = time.perf_counter()
    known = obstacle(task, environment)
    clock_zero += time.perf_counter() - asked_at  # a download is no part of the point
    if known is not None:
        (record.status, record.reason), record.phase = known, "before the start"
    else:
        clock_zero = _measure_alone(task, environment, record, progress, clock_zero)
    record.timeline["end"] = round(time.perf_counter() - clock_zero, 9)
    require_unchanged(record, task)
    record.save(task.output)
    progress.finish(record, str(task.log))


def _measure_alone(
    task: Task, environment: dict[str, Any], record: Record, progress: Progress, clock_zero: float
) -> float:
    """Measure with the device to itself, into `record`; return the zero of its clock, which waiting moves."""
    point, device = task.configuration, meant_device(task.device, environment)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    used = devices_used(point, device, environment)
    among = vendors_of(environment.get("accelerators", []))
    held = take_device(device, progress.label, progress.say, end_with_parents, used, among)
    with held as taken, scratch_folder() as scratch:
        clock_zero += taken.waited_seconds  # another's measurement is no part of this one
        if used > 1 and taken.watched and len(taken.watched) < used:
            record.status, record.phase = UNAVAILABLE, "before the start"
            record.reason = (
                f"it runs over {used} devices, and {len(taken.watched)} of them are visible; unset what hides the "
                "others (CUDA_VISIBLE_DEVICES and the like)"
            )
            return clock_zero
        _Supervision(task, taken, record, progress, clock_zero).run(scratch)
        if wants_warm_start(task, record):
            record.timeline[WARM_START] = round(time.perf_counter() - clock_zero, 9)
            progress.phase(WARM_START)
            record.warm_start = _start_warm(task, taken, clock_zero, scratch)
    if record.status != OK:
        record.log_tail = _log_end(task.log)
    return clock_zero


def _start_warm(task: Task, taken: TakenDevice, clock_zero: float, scratch: Path) -> dict[str, Any]:
    """Make the first call in a second process, and return what the record says of it, its failure included."""
    warm = Record(task.configuration, task.device, task.sampling)
    silent = NoProgress(task.configuration, Plan(task, None))
    supervision = _Supervision(warm_task(task), taken, warm, silent, clock_zero)
    try:
        supervision.run(scratch, FIRST_CALL)
    except (UserError, OSError) as error:  # what was measured is not lost for it
        warm.status, warm.reason = FAILED, str(error)
    return warm_start_of(warm)


class _Supervision:
    """One worker from start to end, on the device that was taken for it."""

    def __init__(self, task: Task, taken: TakenDevice, record: Record, progress: Progress, clock_zero: float) -> None:
        self._task = task.on(taken)
        self._taken = taken
        self._record = record
        self._progress = progress
        self._clock_zero = clock_zero
        self._deadline = clock_zero + task.sampling.timeout_seconds
        self._ended = False

    def run(self, scratch: Path, *arguments: str) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        killed_before = oom_kills()
        self._record.machine_before = machine_before(self._taken.watched)
        self._begin_phase("import", time.perf_counter() - self._clock_zero)
        owner = next(reversed(watch_parents()), None)
        try:
            worker = start_worker(self._task, scratch, self._clock_zero, owner, self._wait, *arguments)
        except TimeoutError:
            self._end_late()
            return
        self._record.provenance["worker"] = worker.start
        process = worker.process
        try:
            interval = self._task.sampling.monitor_interval_seconds
            monitor = Monitor(process.pid, interval, self._clock_zero, self._taken.watched)
            in_time = self._listen(worker.reports, monitor)
        finally:
            os.close(worker.reports)
            end_process_group(process, grace_seconds=0 if sys.exc_info()[0] else _GRACE_SECONDS)
        self._record.monitoring = {**monitor.summary(), "unavailable": self._taken.unavailable}
        by_kernel = oom_kills() > killed_before
        if not in_time:
            self._end_late()
        elif not self._ended:
            assert process.returncode is not None
            self._end(*_death(process.returncode, by_kernel, _log_end(self._task.log)))
        elif by_kernel and self._record.status == CRASHED:  # of a rank, whose end rank 0 has told
            self._end(OUT_OF_MEMORY, f"the kernel's out-of-memory killer ended a process: {self._record.reason}")

    def _wait(self, descriptor: int) -> None:
        """Wait until the descriptor is readable. Raises `TimeoutError` where the point's time runs out first."""
        seconds = max(0.0, self._deadline - time.perf_counter())
        wait_readable(descriptor, seconds)

    def _end_late(self) -> None:
        self._end(TIMED_OUT, f"exceeded sampling.timeout_seconds, {self._task.sampling.timeout_seconds:g} s")

    def _listen(self, pipe: int, monitor: Monitor) -> bool:
        """Take in the worker's reports, and readings of the hardware, until it ends; False where time ran out first."""
        deadline = self._deadline
        pending = b""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            for parent in watch_parents():
                selector.register(parent, selectors.EVENT_READ)
            while (now := time.perf_counter()) < deadline:
                if monitor.seconds_until_due(now) == 0:
                    monitor.sample(now)
                ready = selector.select(min(deadline - now, monitor.seconds_until_due(time.perf_counter())))
                end_with_parents()
                if not ready:
                    continue
                received = os.read(pipe, _READ_BYTES)
                if not received:
                    return True
                *lines, pending = (pending + received).split(b"\n")
                for message in map(json.loads, lines):
                    self._take(message)
                    if message.get("name") == "sample":
                        monitor.begin(time.perf_counter(), self._task.sampling.min_watched_seconds)
                    elif message.get("name") == "conclude":  # the end of sampling
                        monitor.begin(time.perf_counter())
        return False

    def _take(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "phase":
                self._begin_phase(message["name"], message["at"])
            case "update":
                for name, value in message["fields"].items():
                    setattr(self._record, name, value)
            case "iteration":
                iteration = Iteration(**message["iteration"])
                self._record.iterations.append(iteration)
                self._progress.iteration(iteration)
            case "user_error":
                raise UserError(message["message"])
            case "end":
                self._ended = True
                self._end(message["status"], message["reason"])

    def _begin_phase(self, name: str, at: float) -> None:
        self._record.phase = name
        self._record.timeline[name] = at
        self._progress.phase(name)

    def _end(self, status: str, reason: str | None) -> None:
        self._record.status, self._record.reason = status, reason
        if status == OK:
            self._record.phase = None


def _death(code: int, by_kernel: bool, log_end: list[str]) -> tuple[str, str]:
    """Return status and reason for a worker that ended with exit status `code` without saying how itself."""
    if code == -signal.SIGKILL and by_kernel:
        return OUT_OF_MEMORY, "the kernel's out-of-memory killer ended a process while the worker ran, which was killed"
    if code < 0:
        return CRASHED, f"the worker was killed by {signal.Signals(-code).name}"
    if log_end and tells_no_memory(log_end[-1]):
        return OUT_OF_MEMORY, f"the worker exited with status {code}: {log_end[-1]}"
    return FAILED, f"the worker exited with status {code} without a result"


def _log_end(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-_LOG_LINES:]
