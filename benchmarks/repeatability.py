"""Does hfbench call noise a change, and does it find a real one? Planted slowdowns and A/A, on this machine.

`python -m benchmarks.repeatability [--experiments 20] [--rounds 7] [--arms a b] [--records FOLDER]`

Each experiment measures five arms of one configuration in interleaved rounds, every measurement a process of its own:
`a` and `b` are the same; `5%` and `20%` sleep after each forward pass for that share of what it took; `unmonitored`
runs without the monitor. The arms take turns in being first. Records are kept in FOLDER, where an interrupted run goes
on.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import slowed
from hfbench.foundation.configuration import USUAL
from hfbench.foundation.files import read_json
from hfbench.statistics.intervals import Interval, paired_ratio_interval, ratio_interval
from tests.pipeline.checkout import clone

ARMS: dict[str, dict[str, float]] = {
    "a": {},
    "b": {},
    "5%": {"slowdown": 0.05},
    "20%": {"slowdown": 0.20},
    "unmonitored": {"monitor_interval_seconds": 0},
}
_MODEL, _BATCH_SIZE, _SEQUENCE_LENGTH, _NEW_TOKENS = "stories-15m-random", 1, 128, 32
_OPTIONS = {
    "model": _MODEL,
    "attn_implementation": "sdpa",
    **{axis: value for axis, value in USUAL.items() if not isinstance(value, bool)},
    "batch_size": _BATCH_SIZE,
    "sequence_length": _SEQUENCE_LENGTH,
    "max_new_tokens": _NEW_TOKENS,
    "device": "cpu",
    "stopping_rule": "fixed",
    "min_warmup_iterations": 1,
    "max_warmup_iterations": 3,
    "min_iterations": 10,
    "max_iterations": 10,
    "target_precision": 0.01,
    "max_seconds": 60,
    "unobserved_every": 0,
    "timeout_seconds": 300,
    "monitor_interval_seconds": 0.5,
}

Rounds = list[list[float]]


def measure_all(folder: Path, experiments: int, rounds: int, names: list[str]) -> Iterator[int]:
    """Measure what has no record in `folder` yet of these arms; yield the number of each finished experiment."""
    inputs = _prepare(folder)
    for experiment in range(experiments):
        for number in range(1, rounds + 1):
            first = (experiment * rounds + number) % len(names)
            for name in names[first:] + names[:first]:
                output = _path(folder, experiment, name, number)
                if not output.exists():
                    _measure(name, number, inputs, output)
        yield experiment


def latencies(folder: Path, experiment: int, arm: str, rounds: int) -> Rounds:
    """Return the end-to-end seconds of each sample of each round."""
    return [
        [item["end_to_end_seconds"] for item in record["iterations"] if item["phase"] == "sample"]
        for record in (read_json(_path(folder, experiment, arm, number)) for number in range(1, rounds + 1))
    ]


def verdict(interval: Interval | None) -> str:
    """Return what the interval of candidate over baseline shows."""
    assert interval is not None
    return "slower" if interval.low > 1 else "faster" if interval.high < 1 else "none"


def _prepare(folder: Path) -> Path:
    """Make the inputs in a clone of this working tree, once; return it."""
    checkout = folder / "checkout"
    if not checkout.exists():

        def change(content: dict[str, dict[str, list[object]]]) -> None:
            lengths: dict[str, list[object]] = {"sequence_length": [_SEQUENCE_LENGTH], "max_new_tokens": [_NEW_TOKENS]}
            content["sweep"].update(model=[_MODEL], attn_implementation=["sdpa"], batch_size=[_BATCH_SIZE], **lengths)

        made = clone(checkout)
        made.change_params(change)
        made.run("dvc", "repro", "environment", "inputs")
    return checkout


def _measure(arm: str, number: int, checkout: Path, output: Path) -> None:
    options: dict[str, object] = {**_OPTIONS, "round": number, **ARMS[arm], "output": output}
    slowdown = options.pop("slowdown", None)
    options |= {
        "environment": "results/environment.json",
        "manifest": f"results/models/{_MODEL}.json",
        "settings": "results/settings/sdpa-off-false-false.json",
        "inputs": f"results/inputs/{_MODEL}/uniform/b{_BATCH_SIZE}-s{_SEQUENCE_LENGTH}-n{_NEW_TOKENS}-d0.safetensors",
        "log": output.with_suffix(".log"),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    module = "stages.measure" if slowdown is None else "benchmarks.slowed"
    environment = {**os.environ, "PYTHONPATH": str(checkout), slowed.SHARE: str(slowdown)}
    command = [sys.executable, "-m", module, *words]
    subprocess.run(command, cwd=checkout, env=environment, check=True, stderr=subprocess.DEVNULL)
    record = read_json(output)
    if record["status"] != "ok":
        sys.exit(f"{arm}, round {number}: {record['status']}: {record['reason']}")


def _path(folder: Path, experiment: int, arm: str, number: int) -> Path:
    return (folder / "records" / f"{experiment}-{arm.rstrip('%')}-{number}.json").resolve()


def _print_results(folder: Path, experiments: int, rounds: int, names: list[str]) -> None:
    table = Table("candidate", "intervals", "median ratio", "slower", "faster", "none", "wanted", "")
    wanted_of = {"b": "at most 10% differ", "5%": "at least 80% slower", "20%": "100% slower"}
    for arm, wanted in ((arm, wanted_of[arm]) for arm in names if arm in wanted_of):
        for kind, function in (("paired rounds", paired_ratio_interval), ("unpaired", ratio_interval)):
            found = [
                function(latencies(folder, experiment, "a", rounds), latencies(folder, experiment, arm, rounds))
                for experiment in range(experiments)
            ]
            words = [verdict(interval) for interval in found]
            ratio = statistics.median(interval.estimate for interval in found if interval)
            shares = [words.count(word) / experiments for word in ("slower", "faster", "none")]
            is_met = {"b": shares[2] >= 0.9, "5%": shares[0] >= 0.8, "20%": shares[0] == 1}[arm]
            cells = (f"{share:.0%}" for share in shares)
            table.add_row(arm, kind, f"{ratio:.4f}", *cells, wanted, "✓" if is_met else "✗")
    console = Console()
    console.print(table)
    if "unmonitored" in names:
        _print_monitor(console, folder, experiments, rounds)
    _print_machine(console, folder, experiments, rounds)


def _print_monitor(console: Console, folder: Path, experiments: int, rounds: int) -> None:
    """Print the effect of the monitor over all rounds of all experiments."""
    every = range(experiments)
    bare, watched = (
        [values for experiment in every for values in latencies(folder, experiment, arm, rounds)]
        for arm in ("unmonitored", "a")
    )
    interval = paired_ratio_interval(bare, watched)
    assert interval is not None
    text = f"{interval.estimate:.4f} ({interval.low:.4f} to {interval.high:.4f})"
    console.print(f"monitored over unmonitored, {len(bare)} pairs of rounds: {text}, at most 1.01")


def _print_machine(console: Console, folder: Path, experiments: int, rounds: int) -> None:
    """Print what the machine was like: noise without a machine's state says nothing."""
    records = [
        read_json(_path(folder, experiment, "a", number))
        for experiment in range(experiments)
        for number in range(1, rounds + 1)
    ]
    medians = [
        statistics.median(values)
        for experiment in range(experiments)
        for values in latencies(folder, experiment, "a", rounds)
    ]
    before = [record["machine_before"] for record in records]
    console.print(
        f"rounds of a: median {statistics.median(medians):.4f} s, from {min(medians):.4f} to {max(medians):.4f} s; "
        f"{records[0]['effective']['device_name']}, {records[0]['effective']['intra_op_threads']} threads"
    )
    for name in ("cpu_percent", "steal_percent"):
        values = sorted(state[name] for state in before if state.get(name) is not None)
        if values:
            console.print(f"{name} before a round: median {statistics.median(values):.2f}, most {values[-1]:.2f}")
    console.print(f"measured {records[0]['started_at']} to {records[-1]['started_at']}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="a, and what to hold against it")
    parser.add_argument("--records", type=Path, help="folder to keep the records in (a temporary one)")
    arguments = parser.parse_args()
    if "a" not in arguments.arms:
        parser.error("--arms needs a, which the others are compared with")
    with tempfile.TemporaryDirectory(prefix="hfbench-repeatability-") as temporary:
        folder = arguments.records or Path(temporary)
        (folder / "records").mkdir(parents=True, exist_ok=True)
        for experiment in measure_all(folder, arguments.experiments, arguments.rounds, arguments.arms):
            print(f"experiment {experiment + 1} of {arguments.experiments} measured", file=sys.stderr)
        _print_results(folder, arguments.experiments, arguments.rounds, arguments.arms)


if __name__ == "__main__":
    main()
