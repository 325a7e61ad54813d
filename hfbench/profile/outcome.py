"""What a profile found: how long each phase took, and where host and device spent their time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hfbench.core.record import OK, Stored

PREFILL, DECODE, CONTEXT, LOAD = "prefill", "decode", "context", "load"


@dataclass(frozen=True)
class Mark:
    """An instant on both clocks: the start of torch's event of this name, and the reading of Python's clock then."""

    name: str
    reading: float


@dataclass(frozen=True)
class Span:
    """A stretch of time between two readings of `time.perf_counter`, on a line of the trace."""

    name: str
    start: float
    end: float
    line: str = "phases"

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end - self.start


@dataclass(frozen=True)
class OperatorTime:
    """An operator: how often it was called, and the seconds that it took without the operators that it called."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class Outcome(Stored):
    """How a profile ended; all but `status`, `reason` and `phase` is of a profile that is ok.

    `host` and `device` are the operators of the traced call by their time there, the longest first; the totals are over
    all operators, also those that are not among them. Filling the cache before the call is no part of it. `device` is
    None where there is the host only.
    """

    status: str
    reason: str = ""
    phase: str = ""
    device_name: str = ""
    spans: tuple[Span, ...] = ()
    iteration_seconds: float = 0.0
    host: tuple[OperatorTime, ...] = ()
    host_seconds: float = 0.0
    device: tuple[OperatorTime, ...] | None = None
    device_seconds: float = 0.0

    @property
    def is_ok(self) -> bool:
        """Whether there is a trace."""
        return self.status == OK


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
