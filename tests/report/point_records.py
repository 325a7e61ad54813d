"""Records of points with everything in them that a page about one point shows, saved where DVC would put them."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.synthetic_records import synthetic_record
from hfbench.cli import parse_arguments
from hfbench.core.point import Configuration
from hfbench.core.record import Record
from tests.tables.hand_records import failed_record, point, tables_of

LOG = ["line one", "Traceback (most recent call last):", "RuntimeError: \x1b[31mno kernel"]
LONG = {"max_new_tokens": 8}


def full_record(configuration: Configuration, **changes: Any) -> Record:
    """A measured record with phases, effective configuration, readings of the hardware and an output."""
    record = synthetic_record(configuration, 8)
    fields: dict[str, Any] = {
        "timeline": {"import": 0.5, "load": 2.5, "sample": 3.0, "conclude": 9.0, "end": 9.5},
        "stopped_because": "target_precision reached",
        "requested": {"device": "auto", "dtype": "bfloat16", "attn_implementation": "sdpa", "use_kernels": False},
        "effective": {
            "device": "cpu",
            "device_name": "Fast CPU",
            "attn_implementation": "sdpa",
            "parameter_dtypes": {"bfloat16": 272},
            "sdpa_backends": {"math": 60},
            "attention_functions": {"sdpa_attention_forward": 60},
            "kernelized_layers": [{"layer": "RMSNorm", "modules": 61, "replaced": 0}],
            "cache": "DynamicCache",
            "compilation": {"graphs": 0},
        },
        "memory": {"peak_bytes": 300 * 2**20, "kind": "resident set of the worker process"},
        "machine_before": {"cpu_percent": 3.0, "load_averages": [0.5, 0.4, 0.3], "devices": []},
        "monitoring": {
            "samples": 4,
            "interval_seconds": 0.5,
            "own_share": 0.004,
            "time_seconds": [1.0, 2.0, 3.0, 4.0],
            "host": {
                "logical_cores": 2,
                "series": {"cpu_percent": [10.0, 90.0, 100.0, None], "quota_throttled_seconds": [5.0, 5.0, 5.5, 6.0]},
                "unavailable": {"cpu_clock_mhz": "no cpufreq"},
            },
            "devices": [],
            "unavailable": {},
        },
        "output": {**record.output, "prompt_nll": 2.5, "text": " and the river ran on"},
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
