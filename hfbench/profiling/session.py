"""One point, loaded and warmed up as the measurement does, and one iteration of it traced."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hfbench.foundation.records import OK, REJECTED
from hfbench.measurement.arguments import Task
from hfbench.measurement.channel import Reporter
from hfbench.measurement.device import Device, open_device
from hfbench.measurement.evidence import profiler_of_all_threads
from hfbench.measurement.generation import Call
from hfbench.measurement.point import Point
from hfbench.profiling.operators import device_times, events_since, host_times
from hfbench.profiling.outcome import CONTEXT, DECODE, LOAD, PREFILL, Mark, Outcome, Span
from hfbench.profiling.trace import write_trace

_MARKS = 5


def trace_point(task: Task, trace: Path, entered: Callable[[str], None]) -> Outcome:
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

    point = Point(task, Reporter(os.open(os.devnull, os.O_WRONLY), time.perf_counter()))
    device = open_device(task.device)
    with phase("prepare"):
        point.prepare()
    loading = _profiler(device)
    with loading, phase(LOAD):
        point.load()
    with phase("verify"):
        differences = point.verify()
    if differences:
        return Outcome(REJECTED, "; ".join(differences), "verify")
    with phase("first call"):
        point.first_call()
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
        return Outcome(REJECTED, "; ".join(differences), "conclude")
    spans += call_spans(start, call, has_context=task.configuration.context_depth > 0)
    write_trace(trace, _exported(running), mark, spans, [_exported(loading)])
    return _outcome(device, running, mark, call, spans)


def _outcome(device: Device, running: profile, mark: Mark, call: Call, spans: list[Span]) -> Outcome:
    operators = events_since(running.events() or (), mark, call.start)
    (host, host_seconds), (on_device, device_seconds) = host_times(operators), device_times(operators)
    return Outcome(
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
