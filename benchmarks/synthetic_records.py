"""Writes measurement records with invented times and the params.yaml of their sweep, to try the tables at size."""

import argparse
import random
from pathlib import Path
from typing import Any

from benchmarks import synthetic_machine
from hfbench.core.files import write_json
from hfbench.core.point import USUAL, Configuration
from hfbench.core.record import FAILED, OK, Iteration, Record, Sampling
from hfbench.params.schema import load_params

SAMPLING = Sampling(
    stopping_rule="fixed",
    min_warmup_iterations=1,
    max_warmup_iterations=5,
    min_iterations=20,
    max_iterations=20,
    target_precision=0.01,
    max_seconds=60.0,
    unobserved_every=4,
    timeout_seconds=600.0,
    monitor_interval_seconds=synthetic_machine.INTERVAL_SECONDS,
)
_ROUNDS = 5
_MOST = 10  # values of an axis


def synthetic_record(configuration: Configuration, sample_iterations: int, failed: bool = False) -> Record:
    """Return a record whose times are drawn from a generator seeded with the configuration.

    It has a first call, a warm-up iteration and `sample_iterations` samples, each fourth of them unobserved; a failed
    one has no iterations. It is as large as a real one: with monitoring, accounting and provenance.
    """
    record = Record(
        configuration,
        device="auto",
        sampling=SAMPLING,
        effective=synthetic_machine.effective(configuration),
        provenance=synthetic_machine.provenance(configuration),
        started_at="2025-01-01T00:00:00+00:00",
    )
    if failed:
        record.status, record.phase = FAILED, "load"
        record.reason = "ImportError: a package that this attention needs is not installed. Install it."
        return record
    draw = random.Random(repr(configuration))
    start_seconds = draw.uniform(2.0, 4.0)
    for index in range(sample_iterations + 2):
        phase = ("first", "warmup")[index] if index < 2 else "sample"
        observed = phase != "sample" or (index - 2) % 4 != 3
        iteration = _iteration(configuration, phase, observed, start_seconds, draw)
        record.iterations.append(iteration)
        start_seconds += iteration.call_seconds + 0.001
    record.status, record.stopped_because = OK, "fixed"
    record.load_seconds = draw.uniform(0.1, 0.4)
    record.first_call_seconds = record.iterations[0].call_seconds
    record.memory = {"peak_bytes": draw.randrange(2**28, 2**29)}
    record.output = synthetic_machine.output(configuration)
    record.warmup_steady = True
    record.timeline = {"worker_started": 0.1, "loaded": 1.5, "finished": round(start_seconds, 9)}
    record.accounting = synthetic_machine.accounting()
    record.machine_before = synthetic_machine.machine_before(draw)
    record.monitoring = synthetic_machine.monitoring(start_seconds + 1.0, draw)
    return record


def synthetic_axes(records: int, max_new_tokens: int, continuous_batching: bool) -> dict[str, list[Any]]:
    """Return the axes of a sweep of at least `records` points, half of them with continuous batching if asked.

    A larger sweep holds the points of a smaller one. Its lengths stay those of a small one: it gets more batch sizes,
    and then more models.
    """
    batching = [False, True] if continuous_batching else [False]
    work = -(-records // (_ROUNDS * 2 * len(batching)))
    lengths, batch_sizes = min(work, _MOST), min(-(-work // _MOST), _MOST)
    models = -(-work // (lengths * batch_sizes))
    return {
        "round": list(range(1, _ROUNDS + 1)),
        "model": ["synthetic", *(f"synthetic-{number}" for number in range(2, models + 1))],
        "attn_implementation": ["eager", "sdpa"],
        **{axis: [value] for axis, value in USUAL.items()},
        "continuous_batching": batching,
        "batch_size": [4 + index for index in range(batch_sizes)],
        "sequence_length": [16 * (1 + index) for index in range(lengths)],
        "max_new_tokens": [max_new_tokens],
    }


def write_params(path: Path, axes: dict[str, list[Any]]) -> None:
    """Write a params.yaml (in its JSON form) with this sweep."""
    models = {name: {"source": "local", "path": "models/synthetic"} for name in axes["model"]}
    sampling = vars(SAMPLING)
    limits = {"min_top1_agreement": 0.9, "max_nll_difference": 0.05}
    content = {"models": models, "sweep": axes, "device": "auto", "prompt": "prompt.txt", "configurations": []}
    write_json(path, {**content, "sampling": sampling, "limits": limits})


def record_path(folder: Path, configuration: Configuration) -> Path:
    """Return where a record of this configuration is written: a sub-folder a round, every axis in the name."""
    _, *values = vars(configuration).values()
    name = "-".join(str(value) for value in values).replace("/", "_").replace(":", "_")
    return folder / f"round-{configuration.round}" / f"{name}.json"


def write_sweep(
    folder: Path, params: Path, axes: dict[str, list[Any]], sample_iterations: int, fail_every: int
) -> None:
    """Write params.yaml and a record of each of its points; every `fail_every`-th one (0: none) is a failed one."""
    write_params(params, axes)
    for index, configuration in enumerate(load_params(params).points(), start=1):
        failed = fail_every > 0 and index % fail_every == 0
        synthetic_record(configuration, sample_iterations, failed).save(record_path(folder, configuration))


def _iteration(
    configuration: Configuration, phase: str, observed: bool, start_seconds: float, draw: random.Random
) -> Iteration:
    lists = configuration.batch_size if configuration.continuous_batching else 1
    pace_seconds = 0.02 if configuration.attn_implementation == "sdpa" else 0.025
    token_seconds = []
    for _ in range(lists):
        times = [draw.uniform(0.05, 0.1)]
        for _ in range(configuration.max_new_tokens - 1):
            times.append(times[-1] + pace_seconds * draw.uniform(0.9, 1.3))
        token_seconds.append(tuple(round(time, 9) for time in times))  # a clock's nanoseconds, as real records have
    end_to_end_seconds = round(max(times[-1] for times in token_seconds) + 1e-4, 9)
    return Iteration(
        phase=phase,
        observed=observed,
        start_seconds=round(start_seconds, 9),
        end_to_end_seconds=end_to_end_seconds,
        call_seconds=round(end_to_end_seconds + 1e-4, 9),
        new_tokens=(configuration.max_new_tokens,) * configuration.batch_size,
        token_seconds=tuple(token_seconds) if observed else (),
    )


def main() -> None:
    """Write the records that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the records")
    parser.add_argument("--params", type=Path, required=True, help="params.yaml to write")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=20, help="sample iterations a record")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens an iteration")
    parser.add_argument(
        "--continuous-batching", action="store_true", help="half of the points: four lists of times each"
    )
    parser.add_argument("--fail-every", type=int, default=0, help="every n-th record is a failed one")
    arguments = parser.parse_args()
    axes = synthetic_axes(arguments.records, arguments.tokens, arguments.continuous_batching)
    write_sweep(arguments.output, arguments.params, axes, arguments.iterations, arguments.fail_every)


if __name__ == "__main__":
    main()
