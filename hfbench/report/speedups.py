"""Which way is fastest for each workload, by how much, and whether that is more than noise; and up to which load."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from hfbench.report.frames import ReportData, values_by_round, varying_axes
from hfbench.report.words import END_TO_END, significant
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
from hfbench.tables.store import point_label

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


def speedups_and_winners(data: ReportData) -> tuple[list[Speedup], list[Winner]]:
    """Return each configuration compared with the baseline of its workload, and the winner of each workload that has
    one, in the order of the workloads.

    What computes something else, by its output, is left out: it may be fast because it is wrong. The winner has the
    lowest median end-to-end latency of the rest, and is the fastest beyond noise where it is faster than each other
    one: see `hfbench.statistics.verdicts.verdict_on_race`. All are one family of tests, of each way with its baseline
    and of each race, and each interval may err as that family allows, so that the page nowhere contradicts itself.
    """
    contrast_with = _contrasts(data)
    pairs, races = [], []
    for group in data.rows.drop_nulls(END_TO_END).partition_by("workload", maintain_order=True):
        rows = group.to_dicts()
        ranked = [row for row in rows if not row["output_differs"]]
        # The baseline is the plainest way, or the first in the sweep's order.
        references = [row for row in rows if row["is_reference"]]
        plain = min(references or rows, key=lambda row: int(row["configuration"]))
        pairs += [(row, plain, contrast_with(row, plain)) for row in ranked if row is not plain]
        flagged = tuple(row["way"] for row in rows if row["output_differs"])
        if ranked:
            first, *others = sorted(ranked, key=lambda row: float(row[END_TO_END]))
            races.append((first, [(other, contrast_with(first, other)) for other in others], flagged))
    tested = [tested_p_value(found) for *_, found in pairs]
    tested += [race_p_value([found for _, found in against]) for _, against, _ in races]
    error = family_error([p_value for p_value in tested if p_value is not None])
    speedups = [_comparison(*pair, error) for pair in pairs]
    over_baselines = {each.configuration["configuration"]: each for each in speedups}
    winners = [
        _winner(first, against, flagged, over_baselines.get(first["configuration"]), error)
        for first, against, flagged in races
    ]
    return speedups, winners


def _contrasts(data: ReportData) -> Callable[[Row, Row], Contrast]:
    """Return what gives the contrast of a row with the one that it is held against."""
    values = values_by_round(data.samples, END_TO_END, "configuration")
    started: dict[int, dict[int, datetime]] = defaultdict(dict)
    for configuration, number, text in data.points.select("configuration", "round", "started_at").iter_rows():
        if (time := start_time(text)) is not None:  # where the record tells
            started[configuration][number] = time

    def contrast_with(row: Row, against: Row) -> Contrast:
        own, other = row["configuration"], against["configuration"]
        return contrast(values[other,], values[own,], started[other], started[own])

    return contrast_with


def _winner(
    first: Row,
    against: Sequence[tuple[Row, Contrast]],
    flagged: tuple[str, ...],
    over_baseline: Speedup | None,
    error: float,
) -> Winner:
    comparisons = [_comparison(first, *each, error) for each in against]
    verdict, rival = None, ""
    if against:
        contrasts = [found for _, found in against]
        place, verdict = verdict_on_race(contrasts, DEFAULT_THRESHOLD, error, higher_is_better=False)
        rival = comparisons[place].against["way"]
    return Winner(
        configuration=first,
        runner_up=comparisons[0] if comparisons else None,
        over_baseline=over_baseline,
        verdict=verdict,
        rival=rival,
        rivals=tuple(each.against["way"] for each in comparisons if each.verdict.word != FASTER),
        flagged=flagged,
    )


def _comparison(row: Row, against: Row, found: Contrast, error: float) -> Speedup:
    """Return how many times as fast a row is, which is the other way round than the ratio of its latencies."""
    verdict = verdict_on(found, DEFAULT_THRESHOLD, error, higher_is_better=False)
    interval = None
    if verdict.interval is not None:
        interval = Interval(1 / verdict.interval.estimate, 1 / verdict.interval.high, 1 / verdict.interval.low)
    estimate = against[END_TO_END] / row[END_TO_END] if interval is None else interval.estimate
    return Speedup(row, against, estimate, interval, verdict)


def knee_sentences(curves: pl.DataFrame) -> list[str]:
    """Return, for each of the `load_curves`, up to which rate its requests wait no longer than the load explains."""
    if curves.is_empty():
        return []
    axes = [axis for axis in varying_axes(curves) if axis != "request_rate"]
    sentences = []
    for curve in curves.partition_by("curve", maintain_order=True):
        name = point_label(curve.row(0, named=True), axes) if axes else ""
        found = curve.filter("is_knee").to_dicts()
        sentence = f"no knee among the request rates measured, {_rates(curve)} requests/s."
        if found:
            rate, tokens, wait = (found[0][column] for column in ("request_rate", "tokens", "wait"))
            sentence = (
                f"the knee is at {rate} requests/s, with {significant(tokens)} tok/s and a p95 TTFT of "
                f"{significant(wait * 1e3)} ms: beyond it, waiting grows faster than the load (of {_rates(curve)} "
                "requests/s)."
            )
        sentences.append(f"{name}: {sentence}" if name else sentence[0].upper() + sentence[1:])
    return sentences


def _rates(curve: pl.DataFrame) -> str:
    return ", ".join(curve["request_rate"])
