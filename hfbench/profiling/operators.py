"""Which operators took the time of a traced call, summed up from torch's events."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from hfbench.profiling.outcome import Mark, OperatorTime

MOST_OPERATORS = 15  # that are printed; the trace has all
_MICROSECOND = 1e-6
_Times = tuple[tuple[OperatorTime, ...], float]


def events_since(events: Iterable[Any], mark: Mark, reading: float) -> list[Any]:
    """Return the operators among torch's events that began when Python's clock had this reading, or later.

    What the trace only marks is no operator, and neither is what ran on the device.
    """
    on_host = [event for event in events if event.device_type.name == "CPU"]
    (marked,) = (event.time_range.start for event in on_host if event.name == mark.name)
    began = marked + (reading - mark.reading) / _MICROSECOND
    return [event for event in on_host if event.time_range.start >= began and not event.is_user_annotation]


def host_times(operators: Sequence[Any]) -> _Times:
    """Return the operators by their own time on the host, the longest first, and that of all together in seconds."""
    return _longest((each.name, each.self_cpu_time_total) for each in operators)


def device_times(operators: Sequence[Any]) -> _Times:
    """Return the operators by the time that what they started took on the device, and that of all together in seconds.

    torch counts a kernel to the operator that started it, and for a replayed graph of kernels to what replayed it.
    """
    return _longest((each.name, each.self_device_time_total) for each in operators)


def _longest(timed: Iterable[tuple[str, float]]) -> _Times:
    calls: Counter[str] = Counter()
    times: dict[str, float] = {}
    for name, time in timed:
        calls[name] += 1
        times[name] = times.get(name, 0.0) + time
    known = sorted(((name, time) for name, time in times.items() if time > 0), key=lambda pair: -pair[1])
    rows = tuple(OperatorTime(name, calls[name], time * _MICROSECOND) for name, time in known[:MOST_OPERATORS])
    return rows, sum(time for _, time in known) * _MICROSECOND
