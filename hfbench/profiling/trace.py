"""The trace as a file: what torch exported, with the phases marked on lines of their own, and gzipped.

The format: Trace Event Format (Google, 2016), in which a complete event `X` has `ts` and `dur` in microseconds.
"""

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hfbench.foundation.files import atomic_path
from hfbench.profiling.outcome import Mark, Span

_MARKED = r'"cat": "user_annotation",\s*"name": "{}",\s*"pid": (\d+)[^{{}}]*?"ts": ([0-9.]+)'
_EVENTS = re.compile(r'"traceEvents":\s*\[')
_MICROSECONDS = 1e6
# Lines are threads to a viewer. No thread of a worker has these numbers, which the system's first processes have.
_FIRST_LINE = 1


def write_trace(path: Path, exported: str, mark: Mark, spans: Iterable[Span], others: Iterable[str]) -> None:
    """Write the exported trace of the iteration to `path`, atomically, with the spans and the events of other traces.

    `mark` is in the exported trace. `others` are traces of the same process: torch counts the times of all from one
    instant.
    """
    marked = re.search(_MARKED.format(re.escape(mark.name)), exported)
    head = _EVENTS.search(exported)
    if marked is None or head is None:
        raise RuntimeError(f"torch exported a trace without the mark {mark.name!r}")
    process, offset = int(marked[1]), float(marked[2]) - mark.reading * _MICROSECONDS
    added = [*_lines(spans, process, offset), *(event for other in others for event in _operators(other))]
    text = "".join(f"\n{json.dumps(event)}," for event in added)
    with atomic_path(path) as temporary, gzip.open(temporary, "wt", encoding="utf-8") as file:
        file.write(exported[: head.end()] + text + exported[head.end() :])


def _lines(spans: Iterable[Span], process: int, offset: float) -> list[dict[str, Any]]:
    """Return the events that draw the spans, each line of them as a thread above the others."""
    spans = list(spans)
    numbers = {line: _FIRST_LINE + place for place, line in enumerate(dict.fromkeys(span.line for span in spans))}
    events: list[dict[str, Any]] = []
    for line, number in numbers.items():
        common = {"ph": "M", "pid": process, "tid": number}
        events.append({**common, "name": "thread_name", "args": {"name": f"hfbench: {line}"}})
        events.append({**common, "name": "thread_sort_index", "args": {"sort_index": number - 1000}})
    for span in spans:
        at = {"ts": span.start * _MICROSECONDS + offset, "dur": span.seconds * _MICROSECONDS}
        events.append({"ph": "X", "cat": "hfbench", "name": span.name, "pid": process, "tid": numbers[span.line], **at})
    return events


def _operators(exported: str) -> list[dict[str, Any]]:
    """Return what took time in another trace. Arrows are left out: their numbers are those of its own events."""
    return [event for event in json.loads(exported)["traceEvents"] if event.get("ph") == "X" and "dur" in event]
