"""Which operators took the time of a traced iteration, from torch's averages."""

from collections.abc import Iterable
from typing import Any

from hfbench.profiling.outcome import OperatorTime

MOST_OPERATORS = 15  # that are printed; the trace has all
_MICROSECOND = 1e-6


def host_times(averages: Iterable[Any]) -> tuple[tuple[OperatorTime, ...], float]:
    """Return the operators by their own time on the host, and that of all together in seconds.

    `averages` are those of `torch.profiler.profile.key_averages`. What the trace only marks is no operator, and neither
    is what ran on the device.
    """
    return _longest((each, each.self_cpu_time_total) for each in _operators(averages))


def device_times(averages: Iterable[Any]) -> tuple[tuple[OperatorTime, ...], float]:
    """Return the operators by the time that what they started took on the device, and that of all together in seconds.

    torch counts a kernel to the operator that started it, and for a replayed graph of kernels to what replayed it.
    """
    return _longest((each, each.self_device_time_total) for each in _operators(averages))


def _operators(averages: Iterable[Any]) -> list[Any]:
    return [each for each in averages if each.device_type.name == "CPU" and not each.is_user_annotation]


def _longest(timed: Iterable[tuple[Any, float]]) -> tuple[tuple[OperatorTime, ...], float]:
    known = sorted(((each, time) for each, time in timed if time > 0), key=lambda pair: -pair[1])
    rows = tuple(OperatorTime(each.key, each.count, time * _MICROSECOND) for each, time in known[:MOST_OPERATORS])
    return rows, sum(time for _, time in known) * _MICROSECOND
