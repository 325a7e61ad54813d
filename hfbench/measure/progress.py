"""What a person sees while a sweep is measured: how far it is, about how long it takes, and what is known so far.

On a terminal that is a table with a live line below it, elsewhere one line a point.
"""

import hashlib
import io
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from hfbench.core.errors import UserError
from hfbench.core.files import read_json, write_json
from hfbench.core.point import AXES, CONFIGURATION_AXES, INF, NONE, UNIFORM, Configuration
from hfbench.core.record import FEWEST_SAMPLES, OK, Iteration, Record, Sampling, Settings
from hfbench.core.results import (
    MEASUREMENTS,
    POINTS,
    RUN,
    assistant_path,
    inputs_path,
    manifest_path,
    record_path,
    settings_path,
)
from hfbench.core.system import code_sha256
from hfbench.measure.support import unsupported_reason
from hfbench.measure.task import Task

_ROOMS = ("core", "measure", "model", "monitoring", "workers")  # whose code a worker runs
_CLEAR_LINE = "\r\x1b[2K"
_BESIDE_TABLE = 4  # lines of a terminal that the table leaves
# Guesses, until the first point is measured: what starting, loading and checking take beside sampling, and what DVC and
# this process take around a point.
_BESIDE_SAMPLING_SECONDS = 5.0
_AROUND_SECONDS = 1.0
_SHOWN_AXES = ("attn_implementation", "batch_size")  # and those that differ


@dataclass(frozen=True)
class Done:
    """A point that this run has measured, under the name that is shown, and how long it took.

    `median_seconds` is of its whole calls.
    """

    name: str
    round: int
    status: str
    median_seconds: float | None
    took_seconds: float


def digests(point: Configuration, environment: Path) -> dict[str, str | None]:
    """Return the sha256 of what a point is made from, None where a file is not there; `code` is that of the worker."""
    paths = {
        "environment": environment,
        "manifest": manifest_path(point.model),
        "assistant": assistant_path(point.assistant),
        "inputs": inputs_path(point),
        "settings": settings_path(point),
    }
    return {**{name: _sha256(path) for name, path in paths.items()}, "code": code_sha256(*_ROOMS)}


def require_unchanged(record: Record, task: Task) -> None:
    """Raise `UserError` where a file that the point was made from is another now, as after `git checkout`.

    DVC looks at them once the stage has ended, and would take the record for one of what is there then.
    """
    for remembered in (_sha256, code_sha256):
        remembered.cache_clear()
    now = digests(record.configuration, task.environment)
    changed = [name for name, digest in now.items() if record.provenance.get(name) != digest]
    if changed:
        raise UserError(
            f"what this point was measured with has changed meanwhile ({', '.join(changed)}), and the measurement is "
            "dropped. Run `dvc repro` again."
        )


@cache
def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


class Plan:
    """The points that a run of DVC measures, and about how long each takes; kept in a file from point to point.

    `total` is 0 where that cannot be known: the point was not asked for by `dvc repro` or `dvc exp run`. DVC itself
    tells nobody what it will run. So a point counts as still to be measured where its record is missing or made from
    something else; one that DVC then takes from its cache is left out when it is seen.
    """

    def __init__(self, task: Task, owner: psutil.Process | None) -> None:
        self._point = task.configuration
        self._file = task.configuration.file_name
        self._began = time.perf_counter()
        self._usual = _BESIDE_SAMPLING_SECONDS + task.sampling.max_seconds
        self._run, words = "", list[str]()
        if owner is not None:
            with suppress(psutil.Error):
                self._run, words = f"{owner.pid} {owner.create_time()}", owner.cmdline()
        self.is_verbose = not {"-v", "--verbose"}.isdisjoint(words)
        stages = _all_points()
        self._points = {point.file_name: point for point in stages}
        state = _stored(RUN, {})
        self.is_first = not self._run or state.get("run") != self._run
        known = _pending(task, stages, words) if self.is_first else state["pending"]
        self.done = [] if self.is_first else [Done(**each) for each in state["done"]]
        self.pending: dict[str, dict[str, Any]] = {
            name: each for name, each in known.items() if name == self._file or _modified(name) == each["modified"]
        }
        if known or self.done:
            self.pending.setdefault(self._file, {"seconds": None, "modified": None})

    @property
    def total(self) -> int:
        """How many points the run measures, those that are done among them."""
        return len(self.done) + len(self.pending)

    def name_of(self, point: Configuration) -> str:
        """Return the point by what tells it from the others, without its round."""
        points = self._points.values()
        differing = {axis for axis in CONFIGURATION_AXES if len({getattr(each, axis) for each in points}) > 1}
        return label(point, differing | set(_SHOWN_AXES))

    def seconds_left(self) -> float:
        """Return about how long this point and those after it will take."""
        known = [each["seconds"] for each in self.pending.values() if each["seconds"] is not None]
        known += [each.took_seconds for each in self.done if each.status == OK]
        usual = median(known) if known else self._usual
        left = {name: usual if each["seconds"] is None else each["seconds"] for name, each in self.pending.items()}
        if self._file in left:
            left[self._file] = max(0.0, left[self._file] - (time.perf_counter() - self._began))
        return sum(left.values())

    def finish(self, done: Done) -> None:
        """Note that the point is done, which tells how long other rounds of it will take, and about how long others."""
        if not self.total:
            return
        self.pending.pop(self._file, None)
        for name, each in self.pending.items():
            other = self._points.get(name)
            if other is not None and replace(other, round=self._point.round) == self._point:
                each["seconds"] = done.took_seconds
        self.done.append(done)
        with suppress(OSError):  # where the disk is full, the next point starts to count anew
            write_json(RUN, {"run": self._run, "done": [*map(asdict, self.done)], "pending": self.pending})


def _stored(path: Path, otherwise: Any) -> Any:
    """Return the content of a file that is for what a person sees alone, and may be missing or broken."""
    with suppress(UserError, OSError):
        return read_json(path) if path.exists() else otherwise
    return otherwise


def _all_points() -> dict[Configuration, str]:
    """Return the points of params.yaml and the stages that measure them, as the stage `environment` has left them."""
    return {Configuration(**each["point"]): each["stage"] for each in _stored(POINTS, [])}


def _pending(task: Task, stages: Mapping[Configuration, str], words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the points that a command of DVC will measure: about how long each takes, and when its record was made.

    Empty where the words are of no command that says it.
    """
    if not {"repro", "exp"} & set(words):
        return {}
    targets = {word for word in words if word.startswith(_STAGES)}  # a stage, a point of it, or a pattern of --glob
    is_forced = not {"-f", "--force", "--force-downstream"}.isdisjoint(words)
    environment = read_json(task.environment)
    found: list[Configuration] = []
    took: dict[Configuration, float] = {}  # by points of round 0
    for point, stage in stages.items():
        record = _earlier_record(point)
        if record is not None:
            took[replace(point, round=0)] = seconds_of(record, task.sampling)
        either = (stage, stage.partition("@")[0])
        is_meant = not targets or any(fnmatchcase(name, target) for name in either for target in targets)
        is_done = record is not None and not is_forced and _is_current(record, point, task)
        if point == task.configuration or (is_meant and not is_done):
            found.append(point)
            used = Settings(**_stored(settings_path(point), {}))
            if unsupported_reason(point, task.device, environment, used) is not None:
                took[replace(point, round=0)] = _AROUND_SECONDS
    seconds = [took.get(replace(point, round=0)) for point in found]
    names = [point.file_name for point in found]
    return {name: {"seconds": each, "modified": _modified(name)} for name, each in zip(names, seconds, strict=True)}


_STAGES = ("measure", "measure_listed")


def _earlier_record(point: Configuration) -> Record | None:
    """Return the record that there is of a point, None where none can be read."""
    with suppress(UserError, OSError):
        return Record.load(record_path(point))
    return None


def _modified(name: str) -> int | None:
    path = MEASUREMENTS / f"{name}.json"
    return path.stat().st_mtime_ns if path.exists() else None


def _is_current(record: Record, point: Configuration, task: Task) -> bool:
    """Return whether DVC will leave the record as it is: it was made from what there is now."""
    made_from = digests(point, task.environment)
    is_same = (record.sampling, record.device) == (task.sampling, task.device)
    return is_same and all(record.provenance.get(name) == digest for name, digest in made_from.items())


def seconds_of(record: Record, sampling: Sampling) -> float:
    """Return about how long the point of a record takes again, sampled as is asked now, by a worker that is forked."""
    timeline = record.timeline  # of which the import is what only the first point waits for
    took = timeline.get("end", 0.0) - timeline.get("prepare", 0.0) + timeline.get("import", 0.0) + _AROUND_SECONDS
    latencies = [each.end_to_end_seconds for each in record.iterations if each.phase == "sample"]
    if record.status == OK and record.sampling != sampling and latencies:
        took -= timeline["conclude"] - timeline["warm-up"]
        took += max(FEWEST_SAMPLES * median(latencies), sampling.max_seconds)
    return took


class Progress:
    """Writes to standard error, only when something happened: no thread of its own, nothing while the worker runs."""

    def __init__(self, configuration: Configuration, plan: Plan, *, verbose: bool = False) -> None:
        self.label = label(configuration)
        self._plan = plan
        self._name = f"round {configuration.round} · {plan.name_of(configuration)}"
        self._live = sys.stderr.isatty()
        self._verbose = verbose
        self._latencies: list[float] = []
        self._table_lines = 0

    def begin(self) -> None:
        """Say what is to be measured, where this point is the first, and show what is known so far."""
        if self._plan.is_first and self._plan.total:
            many = f"{self._plan.total} point{'s' * (self._plan.total != 1)}"
            self._write(f"{many} to measure, {duration(self._plan.seconds_left())}")
        if self._live:
            table = known_so_far(self._plan.done, shutil.get_terminal_size())
            self._table_lines = table.count("\n")
            sys.stderr.write(table)
            sys.stderr.flush()

    def phase(self, name: str) -> None:
        """Show that a phase begins, or what it is that the point waits for."""
        self._show(name)
        if self._verbose and not self._live:
            self._write(f"{self.label}  {name}")

    def say(self, text: str) -> None:
        """Say something that stays, such as for whom the point waits."""
        if self._live:
            self._show(text)
        else:
            self._write(f"{self.label}  {text}")

    def iteration(self, iteration: Iteration) -> None:
        """Show the iteration and the running median; on a terminal only."""
        if iteration.phase != "sample":
            self._show(f"{iteration.phase} {iteration.end_to_end_seconds:.3g} s")
            return
        self._latencies.append(iteration.end_to_end_seconds)
        self._show(f"sample {len(self._latencies)}, median {median(self._latencies):.4g} s")

    def finish(self, record: Record, log: str) -> None:
        """Show how the point ended; where it failed, why and where its log is."""
        name = self._plan.name_of(record.configuration)
        if record.status == OK:
            latencies = [item.end_to_end_seconds for item in record.iterations if item.phase == "sample"]
            middle, count = median(latencies), len(latencies)
            text = f"{middle:.4g} s end to end, median of {count}"
        else:
            middle = None
            text = f"{record.status}: {record.reason}" + (f"\n  log: {log}" if record.log_tail else "")
        number = self._number()
        took = seconds_of(record, record.sampling)
        self._plan.finish(Done(name, record.configuration.round, record.status, middle, took))
        left = f"  {duration(self._plan.seconds_left())} left" if self._plan.total and self._plan.pending else ""
        if self._live:
            sys.stderr.write(f"{_CLEAR_LINE}\x1b[{self._table_lines}A\x1b[J" if self._table_lines else _CLEAR_LINE)
        self._write(f"{number}{self._name}  {text}{left}")

    def _number(self) -> str:
        return f"point {len(self._plan.done) + 1} of {self._plan.total} · " if self._plan.total else ""

    def _show(self, text: str) -> None:
        """Show text in the live line, on a terminal."""
        if self._live:
            left = f"{duration(self._plan.seconds_left())} left · " if self._plan.total else ""
            line = f"{self._number()}{left}{self._name}  {text}"
            sys.stderr.write(_CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
            sys.stderr.flush()

    def _write(self, text: str) -> None:
        sys.stderr.write(f"{_CLEAR_LINE if self._live else ''}{text}\n")
        sys.stderr.flush()


class NoProgress(Progress):
    """Shows nothing: for a process that is all one phase of a point."""

    def _show(self, text: str) -> None:
        """Do nothing."""

    def _write(self, text: str) -> None:
        """Do nothing."""


def duration(seconds: float) -> str:
    """Return a time in the largest unit that tells it: about 40 s, about 3 min, about 2 h 10 min."""
    if seconds < 95:
        return f"about {max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 100 else f"about {minutes // 60} h {minutes % 60 // 10 * 10} min"


def known_so_far(done: Sequence[Done], size: tuple[int, int]) -> str:
    """Return a table of the points that were measured in this run, for a terminal of `size` (columns, lines)."""
    groups: dict[str, list[Done]] = {}
    for each in done:
        groups.setdefault(each.name, []).append(each)
    if not groups:
        return ""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("so far", "rounds", "end to end", "lowest … highest", ""):
        table.add_column(head, justify="left" if head in ("so far", "") else "right")
    columns, lines = size
    for name, rounds in list(groups.items())[-max(1, lines - _BESIDE_TABLE) :]:
        known = [each.median_seconds for each in rounds if each.median_seconds is not None]
        others = ", ".join(dict.fromkeys(each.status for each in rounds if each.status != OK))
        middle = f"{median(known):.4g} s" if known else ""
        spread = f"{min(known):.4g} … {max(known):.4g}" if len(known) > 1 else ""
        table.add_row(name, str(len(known)), middle, spread, others)
    console = Console(file=io.StringIO(), force_terminal=True, width=columns - 1)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def label(configuration: Configuration, axes: Iterable[str] = AXES) -> str:
    """Return the point in one short line of plain text; the values of these axes alone."""
    point = configuration
    texts: Mapping[str, str] = {
        "round": f"round {point.round}",
        "model": point.model,
        "attn_implementation": point.attn_implementation,
        "compile_mode": f"compile {point.compile_mode}" * (point.compile_mode != "off"),
        "cache_implementation": f"{point.cache_implementation} cache" * (point.cache_implementation != "auto"),
        "use_kernels": "kernels" * point.use_kernels,
        "experts_implementation": f"{point.experts_implementation} experts" * (point.experts_implementation != "auto"),
        "quantization": point.quantization * (point.quantization != NONE),
        "continuous_batching": "continuous batching" * point.continuous_batching,
        "prefill_chunk_size": f"prefill by {point.prefill_chunk_size}" * (point.prefill_chunk_size > 0),
        "assistant": f"assistant {point.assistant}" * (point.assistant != NONE),
        "device_map": f"device map {point.device_map}" * (point.device_map != NONE),
        "tp_size": f"over {point.tp_size} processes" * (point.tp_size > 1),
        "request_lengths": f"{point.request_lengths} requests" * (point.request_lengths != UNIFORM),
        "request_rate": f"{point.request_rate} requests/s" * (point.request_rate != INF),
        "dtype": point.dtype,
        "batch_size": f"batch {point.batch_size}",
        "context_depth": f"after {point.context_depth} tokens" * (point.context_depth > 0),
        "sequence_length": f"{point.sequence_length}+{point.max_new_tokens} tokens",
    }
    wanted = {"sequence_length" if axis == "max_new_tokens" else axis for axis in axes}
    return " · ".join(text for axis, text in texts.items() if text and axis in wanted)
