"""Every axis value that runs on a CPU, in one sweep of 24 points: does each end well, and how long do all take?

`python -m benchmarks.axis_values [--keep FOLDER]` measures them in a clone of this working tree in a temporary folder,
on the model of 15M random weights, and prints how each ended. Where the machine has other work, the
seconds say nothing.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hfbench.core.point import USUAL, Configuration
from hfbench.core.record import OK, REJECTED, UNSUPPORTED, Record
from hfbench.params.levels import rewrite
from hfbench.params.schema import load_params
from tests.pipeline.checkout import QUICK_SAMPLING, Checkout, clone

_MODEL = "stories-15m-random"
_MOST_SECONDS = 480.0  # on two cores that have nothing else to do
_KERNEL = {"layer": "RMSNorm", "device": "cpu", "path": "examples/kernels/rmsnorm-cpu", "layer_name": "RMSNorm"}
_LENGTHS = "mixed"
_BASE: dict[str, Any] = {
    "model": _MODEL,
    "attn_implementation": "sdpa",
    **USUAL,
    "batch_size": 1,
    "sequence_length": 128,
    "max_new_tokens": 32,
}
_FLEX: dict[str, Any] = {"attn_implementation": "flex_attention"}
# What each point has of its own. The last two are values that no CPU can run.
POINTS: tuple[dict[str, Any], ...] = (
    {},
    {"attn_implementation": "eager"},
    {"attn_implementation": "sdpa:math"},
    {"attn_implementation": "sdpa:flash_attention"},
    _FLEX,
    {**_FLEX, "cache_implementation": "static"},
    {**_FLEX, "compile_mode": "default"},
    {"cache_implementation": "dynamic"},
    {"cache_implementation": "static"},
    {"compile_mode": "default"},
    {"compile_mode": "max-autotune-no-cudagraphs"},
    {"use_kernels": True},
    {"use_kernels": True, "compile_mode": "default"},
    {"continuous_batching": True, "batch_size": 4},
    {"continuous_batching": True, "batch_size": 4, "attn_implementation": "eager"},
    {"continuous_batching": True, "batch_size": 4, "request_lengths": _LENGTHS},
    {"batch_size": 4, "request_lengths": _LENGTHS},
    {"batch_size": 4},
    {"prefill_chunk_size": 32},
    {"context_depth": 1024},
    {"dtype": "float32"},
    {"dtype": "float16"},
    {"compile_mode": "reduce-overhead"},
    {"attn_implementation": "flash_attention_2"},
)


def ask(checkout: Checkout) -> None:
    """Have params.yaml measure the points once each, and nothing else."""
    values = {
        "sweep.round": [1],
        "sweep.model": [_MODEL],
        "sweep.attn_implementation": [],
        "configurations": [{**_BASE, **point} for point in POINTS],
        "device": "cpu",
        "request_lengths": {_LENGTHS: {"requests": 8, "sigma": 0.8, "seed": 0}},
        "kernels": [_KERNEL],
        **{f"sampling.{key}": value for key, value in QUICK_SAMPLING.items()},
    }
    rewrite(checkout.folder / "params.yaml", values)


def records(checkout: Checkout) -> list[Record]:
    """Return the record of each point, in the order of `POINTS`."""
    points: Sequence[Configuration] = load_params(checkout.folder / "params.yaml").points()
    return [Record.load(checkout.folder / "results/measurements" / f"{point.file_name}.json") for point in points]


def show(found: Sequence[Record], seconds: float) -> bool:
    """Print how each point ended; return whether all did as they should."""
    table = Table("point", "status", "seconds", "reason")
    for point, record in zip(POINTS, found, strict=True):
        name = ", ".join(f"{axis} {value}" for axis, value in point.items()) or "as usual"
        table.add_row(name, record.status, f"{record.timeline.get('end', 0.0):.1f}", record.reason or "")
    console = Console()
    console.print(table)
    counts = Counter(record.status for record in found)
    is_good = counts.keys() <= {OK, UNSUPPORTED, REJECTED}
    is_quick = seconds <= _MOST_SECONDS
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    console.print(f"{'✓' if is_good else '✗'} {told}")
    console.print(f"{'✓' if is_quick else '✗'} {seconds:.0f} s for all, at most {_MOST_SECONDS:g} s")
    return is_good and is_quick


def main() -> int:
    """Measure, print, and return 1 where a point ended otherwise or all took longer than they should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the clone, which then stays (a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hfbench-axis-values-") as temporary:
        checkout = clone(arguments.keep or Path(temporary) / "checkout")
        ask(checkout)
        checkout.run("dvc", "repro", "model")
        start = time.perf_counter()
        checkout.repro()
        return 0 if show(records(checkout), time.perf_counter() - start) else 1


if __name__ == "__main__":
    sys.exit(main())
