"""How long the stage `tables` takes and how much memory, against the figures that it is meant to keep.

`python -m benchmarks.tables [REPEATS]` writes synthetic records as large as real ones (20 iterations of 128 tokens,
with monitoring) to a temporary folder, some 600 MB, and runs the stage as a process of its own over sweeps of several
sizes. It prints the median times and the most memory of REPEATS runs (3). The records were just written: they come from
memory, not from a disk. Where the seconds are far above the CPU seconds, the machine had other work.
"""

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.synthetic_records import record_path, synthetic_axes, write_params, write_sweep
from hfbench.core.files import write_json
from hfbench.core.results import CEILINGS, MEASUREMENTS
from hfbench.params.schema import load_params

_ITERATIONS, _TOKENS = 20, 128
_SIZES = (10, 1_000, 2_000, 5_000, 10_000)  # records; the time of the first is that of the start-up
_LIMITS = {1_000: (5.0, 1e9), 10_000: (40.0, 3e9)}  # seconds and bytes
_LARGEST_EXPONENT = 1.1  # linear is 1; a tenth is the noise of a shared machine
_CEILINGS = {
    "schema_version": 1,
    "read_bytes_per_second_by_size": {"1000000": 5e11, "1000000000": 2e11},
    "matmul_flops_per_second": {"bfloat16": 1e14},
}


class Cost(NamedTuple):
    """What a process took: wall-clock and CPU seconds, and the bytes of its resident set at the most."""

    seconds: float
    cpu_seconds: float
    peak_bytes: float


def measure(folder: Path, records: int, repeats: int) -> Cost:
    """Return the median times and the most memory that the tables of so many points of the sweep in `folder` take."""
    sweep = _part(folder, records)
    seconds, cpu_seconds, peak_bytes = zip(*(_make_tables(sweep) for _ in range(repeats)), strict=True)
    return Cost(statistics.median(seconds), statistics.median(cpu_seconds), max(peak_bytes))


def growth(costs: dict[int, Cost]) -> float:
    """Return the exponent of the power law of CPU seconds over records, by least squares of the logarithms.

    The seconds of the smallest sweep, which start the process, are taken off: they would flatter it.
    """
    start_up, *larger = sorted(costs)
    seconds = [math.log(costs[records].cpu_seconds - costs[start_up].cpu_seconds) for records in larger]
    return statistics.linear_regression([math.log(records) for records in larger], seconds).slope


def _part(folder: Path, records: int) -> Path:
    """Return a folder with params.yaml of a sweep of so many records, and links to those of the largest one."""
    part = folder / str(records)
    axes = synthetic_axes(records, _TOKENS, continuous_batching=False)
    write_params(part / "params.yaml", axes)
    write_json(part / CEILINGS, _CEILINGS)
    for point in load_params(part / "params.yaml").points():
        link = record_path(part / MEASUREMENTS, point)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(record_path(folder / MEASUREMENTS, point))
    return part


def _make_tables(sweep: Path) -> Cost:
    variables = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "stages.tables"], cwd=sweep, env=variables)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"tables ended with exit status {process.returncode}")
    peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak_bytes)


def _print(costs: dict[int, Cost]) -> None:
    table = Table("records", "CPU seconds", "seconds", "at most", "peak MB", "at most", "")
    for records, cost in costs.items():
        seconds, peak_bytes = _LIMITS.get(records, (None, None))
        limits = ["", "", ""]
        if seconds and peak_bytes:
            is_met = cost.seconds <= seconds and cost.peak_bytes <= peak_bytes
            limits = [f"{seconds:g}", f"{peak_bytes / 1e6:g}", _mark(is_met)]
        measured = (f"{cost.cpu_seconds:.2f}", f"{cost.seconds:.2f}", f"{cost.peak_bytes / 1e6:.0f}")
        table.add_row(f"{records:,}", *measured[:2], limits[0], measured[2], *limits[1:])
    console = Console()
    console.print(table)
    exponent = growth(costs)
    console.print(
        f"CPU seconds beyond the start-up grow as records^{exponent:.2f}, at most {_LARGEST_EXPONENT} "
        + _mark(exponent <= _LARGEST_EXPONENT)
    )


def _mark(is_met: bool) -> str:
    return "✓" if is_met else "✗"


def main() -> None:
    """Write the records, run the stage and print what it took."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    largest = max(_SIZES)
    with tempfile.TemporaryDirectory(prefix="hfbench-tables-") as temporary:
        folder = Path(temporary)
        print(f"writing {largest:,} records …", file=sys.stderr)
        axes = synthetic_axes(largest, _TOKENS, continuous_batching=False)
        write_sweep(folder / MEASUREMENTS, folder / "params.yaml", axes, _ITERATIONS, fail_every=0)
        _print({records: measure(folder, records, repeats) for records in _SIZES})


if __name__ == "__main__":
    main()
