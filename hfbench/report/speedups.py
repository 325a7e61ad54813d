"""Which way is fastest for each workload, by how much, and whether that is more than noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hfbench.report.frames import ReportData, Rounds, paired, values_by_round
from hfbench.report.words import MISSING, significant
from hfbench.statistics.intervals import CONFIDENCE, Interval, paired_ratio_interval

LATENCY = "end_to_end_seconds"


@dataclass(frozen=True)
class Comparison:
    """How many times as fast as `against` a configuration is: the ratio of end-to-end latencies, paired by round.

    `interval` is None where fewer than two rounds were measured of both; `estimate` is then the ratio of the medians.
    Both hold rows of `ReportData.rows`.
    """

    configuration: dict[str, Any]
    against: dict[str, Any]
    estimate: float
    interval: Interval | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 1, the same speed."""
        return self.interval is not None and not self.interval.low <= 1 <= self.interval.high


@dataclass(frozen=True)
class Winner:
    """The fastest way of a workload: `runner_up` is None where no other was measured, `over_baseline` where it is it.

    `rivals` are the ways that it is not faster than beyond noise, and `flagged` those left out of the ranking because
    their output is not the reference's.
    """

    configuration: dict[str, Any]
    runner_up: Comparison | None
    over_baseline: Comparison | None
    rivals: tuple[str, ...]
    flagged: tuple[str, ...]


def winners(data: ReportData) -> list[Winner]:
    """Return the winner of each workload that has one, in the order of the workloads.

    The winner has the lowest median end-to-end latency of the configurations whose output is not flagged as different.
    Each other one is compared with it; it is the fastest beyond noise only where all these intervals, at 95% each, lie
    on one side of 1. If all are the same, that happens for at most one workload in twenty (an intersection-union test:
    R. L. Berger, Technometrics 24 (1982) 295).
    """
    rounds = values_by_round(data.samples, LATENCY)
    groups = data.rows.drop_nulls(LATENCY).partition_by("workload", maintain_order=True)
    return [_winner(group.to_dicts(), rounds) for group in groups if not group["output_differs"].all()]


def speedups(data: ReportData, confidence: float = CONFIDENCE) -> list[Comparison]:
    """Return each configuration compared with the baseline of its workload, which is not compared with itself.

    What computes something else, by its output, is left out: it may be fast because it is wrong.
    """
    rounds = values_by_round(data.samples, LATENCY)
    found = []
    for group in data.rows.drop_nulls(LATENCY).partition_by("workload", maintain_order=True):
        rows = group.to_dicts()
        against = baseline(rows)
        found += [
            compare(row, against, rounds, confidence) for row in _others(rows, against) if not row["output_differs"]
        ]
    return found


def baseline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the rows of a workload are compared with: the plainest way, or the first in the sweep's order."""
    plain = [row for row in rows if row["is_reference"]]
    return min(plain or rows, key=lambda row: int(row["configuration"]))


def compare(
    row: dict[str, Any], against: dict[str, Any], rounds: dict[int, Rounds], confidence: float = CONFIDENCE
) -> Comparison:
    """Return how many times as fast as `against` a row is."""
    own, other = paired(rounds[row["configuration"]], rounds[against["configuration"]])
    interval = paired_ratio_interval(own, other, confidence=confidence)
    estimate = against[LATENCY] / row[LATENCY] if interval is None else interval.estimate
    return Comparison(row, against, estimate, interval)


def _winner(rows: list[dict[str, Any]], rounds: dict[int, Rounds]) -> Winner:
    ranked = sorted((row for row in rows if not row["output_differs"]), key=lambda row: float(row[LATENCY]))
    first, others, plain = ranked[0], ranked[1:], baseline(rows)
    comparisons = [compare(first, other, rounds) for other in others]
    return Winner(
        configuration=first,
        runner_up=comparisons[0] if comparisons else None,
        over_baseline=compare(first, plain, rounds) if _others([first], plain) else None,
        rivals=tuple(each.against["way"] for each in comparisons if not (each.is_clear and each.estimate > 1)),
        flagged=tuple(row["way"] for row in rows if row["output_differs"]),
    )


def _others(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in rows if each["configuration"] != row["configuration"]]


def interval_words(interval: Interval | None) -> str:
    """Return the limits of an interval, or a dash."""
    return MISSING if interval is None else f"{significant(interval.low)} … {significant(interval.high)}"


def times_as_fast(comparison: Comparison) -> str:
    """Return who is how many times as fast as whom, with the workload where it has a name."""
    workload = comparison.configuration["workload"]
    where = f" with {workload}" if workload else ""
    speed = significant(comparison.estimate)
    return f"{comparison.configuration['way']} is {speed}× as fast as {comparison.against['way']}{where}"


def percent(value: float) -> str:
    """Return a percentage with two significant digits."""
    return f"{float(f'{value:.2g}'):g}%"


def range_text(lowest: tuple[float, str], highest: tuple[float, str], unit: str) -> str:
    """Return two numbers, each with whose it is, such as `740 MiB (sdpa) to 781 MiB (eager)`."""
    (low, low_name), (high, high_name) = lowest, highest
    if low_name == high_name:
        return f"{significant(low)} {unit} ({low_name})"
    return f"{significant(low)} {unit} ({low_name}) to {significant(high)} {unit} ({high_name})"


def extremes(values: Sequence[float], names: Sequence[str]) -> tuple[tuple[float, str], tuple[float, str]]:
    """Return the lowest and the highest value, each with its name. Raises `ValueError` where there is none."""
    pairs = list(zip(values, names, strict=True))
    return min(pairs), max(pairs)
