"""The process that profiles: started for one point, it leaves a trace and a profile, and ends.

`python -m hfbench.profile.tracer TRACE PROFILE` reads its task as JSON from standard input.
"""

import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from hfbench.core.errors import UserError
from hfbench.core.record import OK, Stored
from hfbench.measure.failure import reason_of, status_of
from hfbench.measure.task import Task
from hfbench.measure.worker import die_with_parent

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

    @property
    def is_ok(self) -> bool:
        """Whether there is a trace."""
        return self.status == OK


USER_ERROR = "user error"


def main() -> None:
    """Profile the task and write how it ended; exits 0 unless the process itself is broken."""
    die_with_parent()
    trace, profile = map(Path, sys.argv[1:3])
    _profile(Task.from_json(json.load(sys.stdin)), trace).save(profile)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written: interpreter and device need no orderly shutdown


def _profile(task: Task, trace: Path) -> Profile:
    phases = ["import"]
    try:
        from hfbench.profile.session import trace_point

        return trace_point(task, trace, phases.append)
    except UserError as error:
        return Profile(USER_ERROR, str(error), phases[-1])
    except Exception as error:
        traceback.print_exc()
        return Profile(status_of(error, phases[-1]), reason_of(error), phases[-1])


if __name__ == "__main__":
    main()
