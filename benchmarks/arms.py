"""The arms of `benchmarks.repeatability`: measuring them in interleaved rounds, and reading their records."""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import slowed
from hfbench.checkouts.bisect import Rule, decide
from hfbench.core.files import read_json
from hfbench.core.point import USUAL
from hfbench.measure.task import Task, parse_task
from hfbench.statistics.verdicts import UNDECIDED
from hfbench.workers.forked import CHOSEN, FORKED
from tests.pipeline.checkout import clone

ARMS: dict[str, dict[str, Any]] = {
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


def measure_all(folder: Path, experiments: int, names: list[str], workers: list[str], rule: Rule) -> Iterator[int]:
    """Measure what has no record yet in `folder/WORKERS`, each arm by each kind of workers next to one another.

    Yields the number of each finished experiment.
    """
    inputs = prepare(folder)
    candidates = [name for name in names if name != "a"]
    for experiment in range(experiments):
        for number in range(1, rule.max_rounds + 1):
            wanted = {kind: _wanted(folder / kind, experiment, candidates, number, rule) for kind in workers}
            for name in _order(candidates, number):
                for kind in workers[:: 1 if number % 4 < 2 else -1]:
                    output = record_path(folder / kind, experiment, name, number)
                    if name in wanted[kind] and not output.exists():
                        output.parent.mkdir(parents=True, exist_ok=True)
                        measure(number, inputs, output, workers=kind, **ARMS[name])
        yield experiment


def decision(folder: Path, experiment: int, arm: str, rule: Rule, most: int) -> tuple[str, int]:
    """Return the verdict of the first look that decides, and its rounds, of `most` that are measured."""
    word, rounds = UNDECIDED, 0
    for rounds in range(rule.rounds, min(most, rule.max_rounds) + 1):
        a, candidate = (
            [statistics.median(values) for values in latencies(folder, experiment, name, rounds)] for name in ("a", arm)
        )
        word, _ = decide(a, candidate, higher_is_better=False, rule=rule)
        if word != UNDECIDED:
            break
    return word, rounds


def latencies(folder: Path, experiment: int, arm: str, rounds: int) -> Rounds:
    """Return the end-to-end seconds of each sample of each round."""
    return [
        [item["end_to_end_seconds"] for item in record["iterations"] if item["phase"] == "sample"]
        for record in (read_json(record_path(folder, experiment, arm, number)) for number in range(1, rounds + 1))
    ]


def _wanted(folder: Path, experiment: int, candidates: list[str], number: int, rule: Rule) -> set[str]:
    """Return what runs in this round: the candidates that are undecided, and what they are held against."""
    wanted = {name for name in candidates if _is_wanted(folder, experiment, name, number, rule)}
    return wanted | {"a"} if wanted else set()


def _is_wanted(folder: Path, experiment: int, arm: str, number: int, rule: Rule) -> bool:
    if number <= rule.rounds:
        return True
    return arm != "unmonitored" and decision(folder, experiment, arm, rule, number - 1)[0] == UNDECIDED


def _order(candidates: list[str], number: int) -> list[str]:
    """Return the arms in the order of this round."""
    middle = len(candidates) // 2
    return [*candidates[:middle], "a", *candidates[middle:]][:: 1 if number % 2 else -1]


def prepare(folder: Path) -> Path:
    """Make the inputs in a clone of this working tree, once; return it."""
    checkout = folder / "checkout"
    if not checkout.exists():

        def change(content: dict[str, dict[str, list[object]]]) -> None:
            lengths: dict[str, list[object]] = {"sequence_length": [_SEQUENCE_LENGTH], "max_new_tokens": [_NEW_TOKENS]}
            content["sweep"].update(model=[_MODEL], attn_implementation=["sdpa"], batch_size=[_BATCH_SIZE], **lengths)

        made = clone(checkout)
        made.change_params(change)
        made.run("dvc", "repro", "inputs")
    return checkout


def measure(
    number: int,
    checkout: Path,
    output: Path,
    *,
    slowdown: float | None = None,
    workers: str = FORKED,
    **options: object,
) -> None:
    """Measure one round into `output`, in a checkout that is prepared."""
    words = _words(output, round=number, **options)
    module = "stages.measure" if slowdown is None else "benchmarks.slowed"
    environment = {**os.environ, "PYTHONPATH": str(checkout), slowed.SHARE: str(slowdown), CHOSEN: workers}
    command = [sys.executable, "-m", module, *words]
    subprocess.run(command, cwd=checkout, env=environment, check=True, stderr=subprocess.DEVNULL)
    record = read_json(output)
    if record["status"] != "ok":
        sys.exit(f"{output}: {record['status']}: {record['reason']}")


def task_of(output: Path) -> Task:
    """Return what `measure` measures, for a process in the prepared checkout."""
    return parse_task(_words(output, round=1))


def _words(output: Path, **options: object) -> list[str]:
    values = {**_OPTIONS, **options, "output": output, "log": output.with_suffix(".log")}
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def record_path(folder: Path, experiment: int, arm: str, number: int) -> Path:
    """Return where the record of a round of an arm lies."""
    return (folder / f"{experiment}-{arm.rstrip('%')}-{number}.json").resolve()
