"""Records as a real sweep makes them, with invented times, and what is made of them, for tests of the report."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.synthetic_records import synthetic_record
from hfbench.cli import parse_arguments
from hfbench.core.point import Configuration, telling_axes
from hfbench.core.record import Iteration, Record
from hfbench.report.frames import ReportData, Results, report_data
from hfbench.report.html import report_page
from hfbench.tables.build import Tables
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of

CEILINGS: dict[str, Any] = {
    "schema_version": 1,
    "device": "cpu",
    "copy_bytes_per_second": 2.13e10,
    "read_bytes_per_second": 2.9e10,
    "read_bytes_per_second_by_size": {str(2**26): 6.1e10, str(2**28): 3.4e10, str(2**30): 2.9e10},
    "matmul_flops_per_second": {"bfloat16": 1.1e12, "float32": 4.0e11, "float16": None},
}
LOG = ["line one", "Traceback (most recent call last):", "RuntimeError: \x1b[31mno kernel"]
LONG = {"max_new_tokens": 8}


def sweep_records(rounds: int = 3, iterations: int = 8, *, noise: float = 0.01, **axes: list[Any]) -> list[Record]:
    """Records of every combination of these axes, in the order of a sweep."""
    values = {"round": list(range(1, rounds + 1)), "max_new_tokens": [32], "sequence_length": [128], **axes}
    points = [point(**dict(zip(values, each, strict=True))) for each in product(*values.values())]
    return [sweep_record(each, iterations, noise) for each in points]


def sweep_record(configuration: Configuration, iterations: int, noise: float = 0.01) -> Record:
    """A record of one process, whose luck is drawn once, with the phases of its start and what compiling takes."""
    record = synthetic_record(configuration, iterations)
    told = {axis: getattr(configuration, axis) for axis in telling_axes(vars(configuration))}
    draw = random.Random(f"{configuration.round} {told}")  # which an axis more does not change
    is_compiled = configuration.compile_mode != "off"
    pace = draw.gauss(1, noise) * (0.7 if is_compiled else 1.0)
    compile_seconds = draw.gauss(14, 0.3) if is_compiled else 0.0
    at = record.iterations[0].start_seconds
    record.timeline = {"import": 0.1 * at, "prepare": 0.2 * at, "load": 0.8 * at, "first call": at}
    for index, iteration in enumerate(record.iterations):
        record.iterations[index] = _paced(iteration, at, pace, compile_seconds if index == 0 else 0.0)
        at += record.iterations[index].call_seconds + 0.002
        record.timeline[{0: "verify", 1: "sample"}.get(index, "conclude")] = at
        if index == 0:
            record.timeline["warm-up"] = at = at + 0.3
    record.timeline["end"] = at + 0.3
    record.effective["compilation"] = {"graphs": int(is_compiled), "seconds": compile_seconds}
    record.first_call_seconds = record.iterations[0].call_seconds
    return record


def _paced(iteration: Iteration, start: float, pace: float, added: float) -> Iteration:
    """The iteration from another start on, at another pace, with so many seconds more after its first token."""
    lists = tuple((pace * times[0], *(pace * time + added for time in times[1:])) for times in iteration.token_seconds)
    end = pace * iteration.end_to_end_seconds + added
    return replace(iteration, start_seconds=start, end_to_end_seconds=end, call_seconds=end + 1e-4, token_seconds=lists)


def data_of(folder: Path, records: Sequence[Record], ceilings: dict[str, Any] | None = None) -> ReportData:
    tables = tables_of(folder, *records, ceilings=ceilings)
    return report_data(tables.samples, tables.summary, tables.points, tables.configurations)


def measured(configuration: Configuration, *seconds: float, **fields: Any) -> Record:
    """A record with a sample of each of these end-to-end times."""
    return ok_record(configuration, *(observed([0.1, each]) for each in seconds), **fields)


def rounds_of(**seconds: Sequence[float]) -> list[Record]:
    """Rounds of ways, whose names have __ for a colon, with three samples within a thousandth."""
    return [
        measured(
            point(round=number, attn_implementation=name.replace("__", ":")),
            *(each * factor for factor in (0.999, 1.0, 1.001)),
        )
        for name, times in seconds.items()
        for number, each in enumerate(times, start=1)
    ]


def page_of(
    tables: Tables, environment: dict[str, Any] | None = None, ceilings: dict[str, Any] | None = None, **more: Any
) -> str:
    results = Results(tables.summary, tables.points, tables.configurations, tables.warnings)
    return report_page(results, tables.samples, environment=environment or {}, ceilings=ceilings or {}, **more)


def full_record(configuration: Configuration, **changes: Any) -> Record:
    """A measured record with phases, effective configuration, readings of the hardware and an output."""
    record = synthetic_record(configuration, 8)
    series = {"cpu_percent": [10.0, 90.0, 100.0, None], "quota_throttled_seconds": [5.0, 5.0, 5.5, 6.0]}
    host = {"logical_cores": 2, "series": series, "unavailable": {"cpu_clock_mhz": "no cpufreq"}}
    fields: dict[str, Any] = {
        "timeline": {"import": 0.5, "load": 2.5, "sample": 3.0, "conclude": 9.0, "end": 9.5},
        "stopped_because": "target_precision reached",
        "requested": {"device": "auto", "dtype": "bfloat16", "attn_implementation": "sdpa", "use_kernels": False},
        "effective": {
            **record.effective,
            "device": "cpu",
            "device_name": "Fast CPU",
            "attn_implementation": "sdpa",
            "sdpa_backends": {"math": 60},
        },
        "memory": {"peak_bytes": 300 * 2**20, "kind": "resident set of the worker process"},
        "monitoring": {**record.monitoring, "time_seconds": [1.0, 2.0, 3.0, 4.0], "host": host, "devices": []},
        "output": {**record.output, "text": " and the river ran on"},
    }
    return replace(record, **(fields | changes))


def save_results(folder: Path, *records: Record) -> None:
    """Write the records and their tables as the pipeline lays them out."""
    tables_of(folder / "by-hand", *records).write(folder / "tables")
    for record in records:
        record.save(folder / "measurements" / f"{record.configuration.file_name}.json")


def save_mixed_results(folder: Path) -> None:
    """Save two attentions, batch sizes 1, 2 and 16, three rounds; one round failed, and one attention never runs."""
    records = []
    for number, attention, batch_size in product((1, 2, 3), ("sdpa", "eager", "a|b"), (1, 2, 16)):
        axes = point(round=number, attn_implementation=attention, batch_size=batch_size, **LONG)
        if attention == "a|b":
            records.append(failed_record(axes, "ImportError: <a|b> is *not* there", "unsupported", phase="load"))
        elif (number, attention, batch_size) == (3, "sdpa", 2):
            records.append(failed_record(axes, "RuntimeError: no kernel", phase="sample", log_tail=LOG))
        else:
            records.append(full_record(axes))
    save_results(folder, *records)


def run_show(results: Path, *words: str) -> None:
    """Run `hfbench show` on these results."""
    places = ["--tables", str(results / "tables"), "--measurements", str(results / "measurements")]
    arguments = parse_arguments(["show", *places, "--report", str(results / "none.html"), *words])
    arguments.run(arguments)
