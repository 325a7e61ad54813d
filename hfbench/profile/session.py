"""The process that profiles: a point is loaded and warmed up as for a measurement, and one iteration of it traced.

`python -m hfbench.profile.session TRACE PROFILE` reads its task as JSON from standard input, and ends.
"""

import gzip
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hfbench.core.errors import UserError
from hfbench.core.files import atomic_path
from hfbench.core.record import OK, REJECTED
from hfbench.measure.device import Device, open_device
from hfbench.measure.evidence import profiler_of_all_threads
from hfbench.measure.failure import reason_of, status_of
from hfbench.measure.generation import Call
from hfbench.measure.phases import Measurement
from hfbench.measure.process import Reporter
from hfbench.measure.task import Task
from hfbench.profile.outcome import CONTEXT, DECODE, LOAD, PREFILL, OperatorTime, Profile, Span
from hfbench.workers.forked import die_with_parent


@dataclass(frozen=True)
class Mark:
    """An instant on both clocks: the start of torch's event of this name, and the reading of Python's clock then."""

    name: str
    reading: float


_MARKED = r'"cat": "user_annotation",\s*"name": "{}",\s*"pid": (\d+)[^{{}}]*?"ts": ([0-9.]+)'
_EVENTS = re.compile(r'"traceEvents":\s*\[')
_MICROSECONDS = 1e6
# Lines are threads to a viewer. No thread of a worker has these numbers, which the system's first processes have.
_FIRST_LINE = 1


def write_trace(path: Path, exported: str, mark: Mark, spans: Iterable[Span], loading: str) -> None:
    """Write the exported trace of the iteration to `path`, atomically, with the spans and the events of the loading.

    `mark` is in the exported trace. Both traces are of one process: torch counts their times from one instant.
    """
    marked = re.search(_MARKED.format(re.escape(mark.name)), exported)
    head = _EVENTS.search(exported)
    if marked is None or head is None:
        raise RuntimeError(f"torch exported a trace without the mark {mark.name!r}")
    process, offset = int(marked[1]), float(marked[2]) - mark.reading * _MICROSECONDS
    # What took time in the loading. Arrows are left out: their numbers are those of its own events.
    took = [event for event in json.loads(loading)["traceEvents"] if event.get("ph") == "X" and "dur" in event]
    text = "".join(f"\n{json.dumps(event)}," for event in (*_lines(spans, process, offset), *took))
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


_MARKS = 5


def trace_point(task: Task, trace: Path, entered: Callable[[str], None]) -> Profile:
    """Run the task's point through its phases, trace one iteration, write the trace, and return what was found.

    `entered` is told the name of each phase. What runs otherwise than asked is `rejected`, as in a measurement, and not
    traced.
    """
    spans: list[Span] = []

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        entered(name)
        start = time.perf_counter()
        yield
        spans.append(Span(name, start, time.perf_counter()))

    point = Measurement(task, Reporter(os.open(os.devnull, os.O_WRONLY), time.perf_counter()))
    device = open_device(task.device)
    with phase("prepare"):
        point.prepare()
    loading = _profiler(device)
    with loading, phase(LOAD):
        point.load()
    with phase("first call"):
        point.first_call()
    with phase("verify"):
        differences = point.verify()
    if differences:
        return Profile(REJECTED, "; ".join(differences), "verify")
    with phase("warm-up"):
        point.warm_up()
    entered("trace")
    running = _profiler(device)
    with running, record_function("iteration"):
        mark = _mark()
        start = time.perf_counter()
        call = point.run_once()
    entered("conclude")
    differences = point.conclude()
    if differences:
        return Profile(REJECTED, "; ".join(differences), "conclude")
    spans += call_spans(start, call, has_context=task.configuration.context_depth > 0)
    write_trace(trace, _exported(running), mark, spans, _exported(loading))
    return _found(device, running, mark, call, spans)


def _found(device: Device, running: profile, mark: Mark, call: Call, spans: list[Span]) -> Profile:
    operators = events_since(running.events() or (), mark, call.start)
    (host, host_seconds), (on_device, device_seconds) = (operator_times(operators, each) for each in (HOST, DEVICE))
    return Profile(
        status=OK,
        device_name=device.name,
        spans=tuple(spans),
        iteration_seconds=call.last_token - call.start,
        host=host,
        host_seconds=host_seconds,
        device=on_device if _device_activities(device) else None,
        device_seconds=device_seconds,
    )


def call_spans(start: float, call: Call, *, has_context: bool) -> list[Span]:
    """Return the phases of an observed call: the context before it, the prefill, and the decoding where there is any.

    The prefill ends when the last row has its first token. Requests of a batch that do not advance in step have lines
    of their own besides.
    """
    prefilled = max(times[0] for times in call.token_times)
    spans = [Span(CONTEXT, start, call.start)] if has_context else []
    spans.append(Span(PREFILL, call.start, prefilled))
    if call.last_token > prefilled and any(len(times) > 1 for times in call.token_times):
        spans.append(Span(DECODE, prefilled, call.last_token))
    if len(call.token_times) > 1:
        for number, times in enumerate(call.token_times):
            line = f"request {number}"
            spans.append(Span(PREFILL, call.start, times[0], line))
            if len(times) > 1:
                spans.append(Span(DECODE, times[0], times[-1], line))
    return spans


def _mark() -> Mark:
    """Mark an instant in the trace that is being taken. Of several marks it is the one that took least: a process may
    be held up for milliseconds between two instructions, and where it was, the reading is as far from the mark."""
    marks = []
    for number in range(_MARKS):
        name, before = f"clock {number}", time.perf_counter()
        with record_function(name):
            pass
        after = time.perf_counter()
        marks.append((after - before, Mark(name, (before + after) / 2)))
    return min(marks, key=lambda each: each[0])[1]


def _profiler(device: Device) -> profile:
    """Return a profiler of the host and the device that sees all threads: generate_batch computes in one of its own."""
    return profiler_of_all_threads(_device_activities(device))


def _device_activities(device: Device) -> list[ProfilerActivity]:
    """Return what of the device torch can trace; nothing where it is the CPU, or torch has no tracer of it."""
    kind = device.torch_device.type.upper()
    return [each for each in torch.profiler.supported_activities() if each.name == kind != "CPU"]


def _exported(profiler: profile) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return path.read_text(encoding="utf-8")


MOST_OPERATORS = 15  # that are printed; the trace has all
# Attributes of torch's events. A kernel counts to the operator that started it, and those of a replayed graph to what
# replayed it.
HOST, DEVICE = "self_cpu_time_total", "self_device_time_total"


def events_since(events: Iterable[Any], mark: Mark, reading: float) -> list[Any]:
    """Return the operators among torch's events that began when Python's clock had this reading, or later.

    What the trace only marks is no operator, and neither is what ran on the device.
    """
    on_host = [event for event in events if event.device_type.name == "CPU"]
    (marked,) = (event.time_range.start for event in on_host if event.name == mark.name)
    began = marked + (reading - mark.reading) * _MICROSECONDS
    return [event for event in on_host if event.time_range.start >= began and not event.is_user_annotation]


def operator_times(operators: Iterable[Any], where: str) -> tuple[tuple[OperatorTime, ...], float]:
    """Return the operators by their own time on the host or the device, the longest first, and the seconds of all."""
    calls: Counter[str] = Counter()
    microseconds: Counter[str] = Counter()
    for each in operators:
        calls[each.name] += 1
        microseconds[each.name] += getattr(each, where)
    longest = [(name, took / _MICROSECONDS) for name, took in microseconds.most_common() if took > 0]
    shown = tuple(OperatorTime(name, calls[name], seconds) for name, seconds in longest[:MOST_OPERATORS])
    return shown, sum(seconds for _, seconds in longest)


def main() -> None:
    """Profile the task and write how it ended; exits 0 unless the process itself is broken."""
    die_with_parent()
    task, phases = Task.from_json(json.load(sys.stdin)), ["prepare"]
    trace, path = map(Path, sys.argv[1:3])
    try:
        profile = trace_point(task, trace, phases.append)
    except UserError as error:
        profile = Profile("user error", str(error), phases[-1])
    except Exception as error:
        traceback.print_exc()
        profile = Profile(status_of(error, phases[-1]), reason_of(error), phases[-1])
    profile.save(path)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written: interpreter and device need no orderly shutdown


if __name__ == "__main__":
    main()
