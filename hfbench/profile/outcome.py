"""What a profile found: how long each phase took, and where host and device spent their time."""

from dataclasses import dataclass

from hfbench.core.record import Stored

PREFILL, DECODE, CONTEXT, LOAD = "prefill", "decode", "context", "load"


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
class Profile(Stored):
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
