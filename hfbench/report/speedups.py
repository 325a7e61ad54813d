"""Which way is fastest for each workload, by how much, and whether that is more than noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from hfbench.report.frames import ReportData, values_by_round
from hfbench.report.words import END_TO_END
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import Contrast, contrast
from hfbench.statistics.verdicts import (
    DEFAULT_THRESHOLD,
    FASTER,
    SLOWER,
    Verdict,
    family_error,
    race_p_value,
    tested_p_value,
    verdict_on,
    verdict_on_race,
)
from hfbench.tables.facts import start_time

Row = dict[str, Any]  # of `ReportData.rows`


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as `against` a configuration is, by end-to-end latency, with the verdict on it.

    `interval` is the one that decided, None where fewer than two rounds were measured of either; `estimate` is then the
    ratio of the medians.
    """

    configuration: Row
    against: Row
    estimate: float
    interval: Interval | None
    verdict: Verdict

    @property
    def is_clear(self) -> bool:
        """Whether it is faster or slower."""
        return self.verdict.word in (FASTER, SLOWER)


@dataclass(frozen=True)
class Winner:
    """The fastest way of a workload: `runner_up` is None where no other was measured, `over_baseline` where it is it.

    `verdict` is that on the race of all ways, and `rival` the one that it hangs on; None and empty without another.
    `rivals` are the ways that it is not faster than beyond noise, and `flagged` those left out of the ranking because
    their output is not the reference's.
    """

    configuration: Row
    runner_up: Speedup | None
    over_baseline: Speedup | None
    verdict: Verdict | None
    rival: str
    rivals: tuple[str, ...]
    flagged: tuple[str, ...]

    @property
    def is_clear(self) -> bool:
        """Whether it is faster than every other way."""
        return self.verdict is not None and self.verdict.word == FASTER


@dataclass(frozen=True)
class _Race:
    """The ways of a workload, the fastest first, with its contrasts to the others; `plain` is their baseline."""

    order: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]
    plain: Row
    flagged: tuple[str, ...]


def winners(data: ReportData) -> list[Winner]:
    """Return the winner of each workload that has one, in the order of the workloads.

    The winner has the lowest median end-to-end latency of the configurations whose output is not flagged as different.
    It is the fastest beyond noise where it is faster than each other one: see
    `hfbench.statistics.verdicts.verdict_on_race`.
    """
    measured = _Measured(data)
    return [_winner(race, measured, measured.error) for race in measured.races]


def speedups(data: ReportData) -> list[Speedup]:
    """Return each configuration compared with the baseline of its workload, which is not compared with itself.

    What computes something else, by its output, is left out: it may be fast because it is wrong.
    """
    measured = _Measured(data)
    return [
        _comparison(row, against, measured.contrast(row, against), measured.error) for row, against in measured.pairs
    ]


def baseline(rows: Sequence[Row]) -> Row:
    """Return what the rows of a workload are compared with: the plainest way, or the first in the sweep's order."""
    plain = [row for row in rows if row["is_reference"]]
    return min(plain or rows, key=lambda row: int(row["configuration"]))


class _Measured:
    """All that the page compares, which is one family of tests: each way with its baseline, and each race.

    `error` is what each interval of the family may err, so that the page nowhere contradicts itself.
    """

    def __init__(self, data: ReportData) -> None:
        rounds = values_by_round(data.samples, END_TO_END)
        self._rounds = {
            number: {of: np.array(values) for of, values in found.items()} for number, found in rounds.items()
        }
        self._started = _started(data)
        groups = data.rows.drop_nulls(END_TO_END).partition_by("workload", maintain_order=True)
        workloads = [group.to_dicts() for group in groups]
        self.pairs = [
            (row, against)
            for rows in workloads
            for against in [baseline(rows)]
            for row in _others(rows, against)
            if not row["output_differs"]
        ]
        self.races = [race for rows in workloads if (race := self._race(rows))]
        tested = [
            *(tested_p_value(self.contrast(*pair)) for pair in self.pairs),
            *(race_p_value(race.contrasts) for race in self.races),
        ]
        self.error = family_error([p_value for p_value in tested if p_value is not None])

    def contrast(self, row: Row, against: Row) -> Contrast:
        """Return the contrast of a row with the one that it is held against."""
        own, other = row["configuration"], against["configuration"]
        return contrast(
            self._rounds[other], self._rounds[own], self._started.get(other, {}), self._started.get(own, {})
        )

    def _race(self, rows: Sequence[Row]) -> _Race | None:
        order = sorted((row for row in rows if not row["output_differs"]), key=lambda row: float(row[END_TO_END]))
        if not order:
            return None
        contrasts = tuple(self.contrast(order[0], other) for other in order[1:])
        flagged = tuple(row["way"] for row in rows if row["output_differs"])
        return _Race(tuple(order), contrasts, baseline(rows), flagged)


def _started(data: ReportData) -> Mapping[int, dict[int, datetime]]:
    """Return, for each configuration, when each of its rounds started, where its record tells."""
    found: dict[int, dict[int, datetime]] = {}
    for configuration, number, text in data.points.select("configuration", "round", "started_at").iter_rows():
        if (time := start_time(text)) is not None:
            found.setdefault(configuration, {})[number] = time
    return found


def _winner(race: _Race, measured: _Measured, error: float) -> Winner:
    first, *others = race.order
    comparisons = [_comparison(first, other, each, error) for other, each in zip(others, race.contrasts, strict=True)]
    place, verdict = (
        verdict_on_race(race.contrasts, DEFAULT_THRESHOLD, error, higher_is_better=False) if others else (None, None)
    )
    plain = race.plain
    over_plain = _comparison(first, plain, measured.contrast(first, plain), error) if _others([first], plain) else None
    return Winner(
        configuration=first,
        runner_up=comparisons[0] if comparisons else None,
        over_baseline=over_plain,
        verdict=verdict,
        rival="" if place is None else others[place]["way"],
        rivals=tuple(each.against["way"] for each in comparisons if each.verdict.word != FASTER),
        flagged=race.flagged,
    )


def _comparison(row: Row, against: Row, found: Contrast, error: float) -> Speedup:
    """Return how many times as fast a row is, which is the other way round than the ratio of its latencies."""
    verdict = verdict_on(found, DEFAULT_THRESHOLD, error, higher_is_better=False)
    interval = None
    if verdict.interval is not None:
        interval = Interval(1 / verdict.interval.estimate, 1 / verdict.interval.high, 1 / verdict.interval.low)
    estimate = against[END_TO_END] / row[END_TO_END] if interval is None else interval.estimate
    return Speedup(row, against, estimate, interval, verdict)


def _others(rows: Sequence[Row], row: Row) -> list[Row]:
    return [each for each in rows if each["configuration"] != row["configuration"]]
