"""The pipe on which the worker reports to its supervisor: one JSON object a line."""

import json
import os
import time
from typing import Any


class Reporter:
    """The worker's end. Times are seconds since the measure stage began, on the clock that both processes share.

    Nothing is written between two reads of the clock: reports come before and after an iteration, never in it.
    """

    def __init__(self, descriptor: int, clock_zero: float) -> None:
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
        self._clock_zero = clock_zero

    def since_start(self, clock: float) -> float:
        """Turn a reading of `time.perf_counter` into seconds since the stage began."""
        return round(clock - self._clock_zero, 9)

    def phase(self, name: str) -> None:
        """Say that a phase begins now."""
        self._send({"event": "phase", "name": name, "at": self.since_start(time.perf_counter())})

    def update(self, **fields: Any) -> None:
        """Give values to fields of the record."""
        self._send({"event": "update", "fields": fields})

    def iteration(self, content: dict[str, Any]) -> None:
        """Report one iteration, in the JSON form of `hfbench.foundation.records.Iteration`."""
        self._send({"event": "iteration", "iteration": content})

    def end(self, status: str, reason: str | None = None) -> None:
        """Say how the measurement ended; nothing follows."""
        self._send({"event": "end", "status": status, "reason": reason})

    def user_error(self, message: str) -> None:
        """Say that the user must act before anything can be measured; the stage ends without a record."""
        self._send({"event": "user_error", "message": message})

    def _send(self, message: dict[str, Any]) -> None:
        self._pipe.write(json.dumps(message) + "\n")
