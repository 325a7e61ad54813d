"""The second start of a compiled point: the same first call in a process that finds the compile caches filled."""

import dataclasses
from typing import Any

from hfbench.foundation.records import OK, Record
from hfbench.measurement.arguments import Task

WARM_START = "warm start"


def is_wanted(task: Task, record: Record) -> bool:
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
