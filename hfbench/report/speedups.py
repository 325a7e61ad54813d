"""Which way is fastest for each workload, where a value pays, whether that is more than noise, and up to which load."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from hfbench.core.point import AXIS_TYPES, CONFIGURATION_AXES, INPUT_AXES, REFERENCE, WAY_AXES, words_of
from hfbench.report.frames import ReportData, values_by_round, varying_axes
from hfbench.report.words import END_TO_END, significant
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import Contrast, contrast
from hfbench.statistics.verdicts import (
    FASTER,
    INCOMPARABLE,
    SAME,
    SLOWER,
    UNDECIDED,
    VERDICTS,
    Verdict,
    family_error,
    race_p_value,
    tested_p_value,
    verdict_on,
    verdict_on_race,
)
from hfbench.tables.facts import start_time
from hfbench.tables.store import labels_of, point_label

Row = dict[str, Any]  # of `ReportData.rows`


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as `against` a configuration is, by end-to-end latency, with the verdict on it.

    `interval` is the one that decided, None where fewer than two rounds were measured of either; `estimate` is then the
    ratio of the medians. `is_apart`: the rounds of the two do not alternate, so that a drift of the machine is in it.
    """

    configuration: Row
    against: Row
    estimate: float
    interval: Interval | None
    verdict: Verdict
    is_apart: bool

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
class Payoff:
    """Where a value of an axis is faster than the `reference` value, in words, and its `price` in quality, if any."""

    axis: str
    value: Any
    reference: Any
    where: str
    price: str


@dataclass(frozen=True)
class Judgement:
    """All verdicts of a page: one family of tests, so that the page nowhere contradicts itself."""

    speedups: list[Speedup]
    winners: list[Winner]
    payoffs: list[Payoff]


def judge_ways(data: ReportData) -> Judgement:
    """Return each configuration compared with the baseline of its workload, the winner of each workload that has one,
    in the order of the workloads, and where the values of each axis pay.

    What computes something else, by its output, is left out: it may be fast because it is wrong. The winner has the
    lowest median end-to-end latency of the rest, and is the fastest beyond noise where it is faster than each other
    one: see `hfbench.statistics.verdicts.verdict_on_race`. All are one family of tests, of each way with its baseline,
    of each value with its reference and of each race, and each interval may err as that family allows.
    """
    contrast_with = contrasts(data)
    found: dict[tuple[int, int], tuple[Row, Row, Contrast]] = {}
    of_baseline, races = [], []
    measured = data.rows.drop_nulls(END_TO_END)
    for group in measured.partition_by("workload", maintain_order=True):
        rows = group.to_dicts()
        ranked = [row for row in rows if not row["output_differs"]]
        # The baseline is the plainest way, or the first in the sweep's order.
        references = [row for row in rows if row["is_reference"]]
        plain = min(references or rows, key=_number)
        of_baseline += [(row, plain) for row in ranked if row is not plain]
        flagged = tuple(row["way"] for row in rows if row["output_differs"])
        if ranked:
            first, *others = sorted(ranked, key=lambda row: float(row[END_TO_END]))
            races.append((first, [(other, contrast_with(first, other)) for other in others], flagged))
    values = list(_values_of_axes(measured.to_dicts(), data.not_ok.to_dicts()))
    for row, against in (*of_baseline, *(pair for each in values for pair in each.pairs)):
        found[_number(row), _number(against)] = (row, against, contrast_with(row, against))
    tested = [tested_p_value(each) for *_, each in found.values()]
    tested += [race_p_value([each for _, each in against]) for _, against, _ in races]
    error = family_error([p_value for p_value in tested if p_value is not None])
    judged = {key: _comparison(*each, error, data.threshold) for key, each in found.items()}
    speedups = [judged[_number(row), _number(plain)] for row, plain in of_baseline]
    over_baselines = {_number(each.configuration): each for each in speedups}
    return Judgement(
        speedups,
        [
            _winner(first, against, flagged, over_baselines.get(_number(first)), error, data.threshold)
            for first, against, flagged in races
        ],
        [payoff for each in values if (payoff := each.payoff(judged)).where],
    )


def _number(row: Row) -> int:
    return int(row["configuration"])


OUTPUT_DIFFERS = "output differs"


@dataclass(frozen=True)
class Place:
    """A point with one value of an axis beside that with the reference: its axes, and the word of the verdict.

    Where there is none, the word says why: `output differs`, or the status of a point that fails where the reference
    is ok.
    """

    axes: Mapping[str, Any]
    word: str


def where_it_pays(places: Sequence[Place], in_words: Callable[[str], str] = str) -> str:
    """Return where a value is faster than the reference by more than noise, and where not, in words.

    Where the points differ in how much they do alone, as in the batch size, they say from which on, or up to which,
    and what is known of the next. Empty for fewer than two points, of which a table says as much. `in_words` gives a
    verdict in the words of its metric.
    """
    judged = [each for each in places if each.word != INCOMPARABLE]
    if len(judged) < 2:
        return ""
    differing = [axis for axis in CONFIGURATION_AXES if len({each.axes[axis] for each in judged}) > 1]
    is_amount = len(differing) == 1 and differing[0] in INPUT_AXES and AXIS_TYPES[differing[0]] is int
    if is_amount and {each.word for each in judged} <= set(VERDICTS):
        (axis,) = differing
        words = {each.axes[axis]: each.word for each in sorted(judged, key=lambda each: int(each.axes[axis]))}
        faster = [value for value, word in words.items() if word == FASTER]
        others = [value for value, word in words.items() if word != FASTER]
        if faster and others and (others[-1] < faster[0] or faster[-1] < others[0]):
            is_from = others[-1] < faster[0]
            where = f"from {words_of(axis, faster[0])} on" if is_from else f"up to {words_of(axis, faster[-1])}"
            nearest = others[-1 if is_from else 0]
            return f"{in_words(FASTER)} {where}; {in_words(words[nearest])} at {words_of(axis, nearest)}"
    labels = labels_of([each.axes for each in judged])
    parts = []
    for word in dict.fromkeys((FASTER, SLOWER, SAME, UNDECIDED, *(each.word for each in judged))):
        some = [label for label, each in zip(labels, judged, strict=True) if each.word == word]
        if some:
            where = "everywhere" if len(some) == len(judged) else f"at {', '.join(some)}"
            parts.append(f"{in_words(word)} {where}")
    return "; ".join(parts)


_PRICED = ("quantization", "cache_implementation")


def price_in_quality(axis: str, nll_changes: Iterable[tuple[float | None, float | None]]) -> str:
    """Return by how much a value changes the prompt's likelihood, in words; empty for an axis that is to keep it.

    `nll_changes` are those of each point with the value and of its twin with the reference, both from the plainest.
    """
    changes = [own - other for own, other in nll_changes if own is not None and other is not None]
    if axis not in _PRICED or not changes:
        return ""
    ends = dict.fromkeys(f"{change:+.3g}" for change in (min(changes), max(changes)))
    return f"{' to '.join(ends)} nats a token"


@dataclass(frozen=True)
class _Value:
    """A value of an axis: the rows that have it, with their twins of the reference value, and where it fails."""

    axis: str
    value: Any
    reference: Any
    twins: list[tuple[Row, Row]]
    failing: list[Row]

    @property
    def pairs(self) -> list[tuple[Row, Row]]:
        """Those of the twins that are compared: both have the output that they should."""
        return [twins for twins in self.twins if not any(row["output_differs"] for row in twins)]

    def payoff(self, judged: Mapping[tuple[int, int], Speedup]) -> Payoff:
        """Return where the value pays, by the verdicts on pairs of configurations."""
        known = ((row, judged.get((_number(row), _number(twin)))) for row, twin in self.twins)
        places = [Place(row, each.verdict.word if each else OUTPUT_DIFFERS) for row, each in known]
        places += [Place(row, row["status"].replace("_", " ")) for row in self.failing]
        price = price_in_quality(
            self.axis, ((row.get("nll_change"), twin.get("nll_change")) for row, twin in self.twins)
        )
        return Payoff(self.axis, self.value, self.reference, where_it_pays(places), price)


def reference_value(axis: str, values: Sequence[Any]) -> Any:
    """Return the value that the others of an axis stand against: the plainest where it is there, else the first."""
    return next((value for value in values if value == REFERENCE.get(axis)), values[0])


def _values_of_axes(rows: Sequence[Row], not_ok: Sequence[Row]) -> Iterator[_Value]:
    """Yield each value that an axis of the ways has beside its reference."""
    by_axes = {tuple(row[axis] for axis in CONFIGURATION_AXES): row for row in rows}

    def twin_of(row: Row) -> Row | None:
        return by_axes.get(tuple(reference if each == axis else row[each] for each in CONFIGURATION_AXES))

    in_order = sorted((*rows, *not_ok), key=_number)
    for axis in WAY_AXES:
        values = list(dict.fromkeys(row[axis] for row in in_order))
        if len(values) < 2:
            continue
        reference = reference_value(axis, values)
        for value in (value for value in values if value != reference):
            having = sorted((row for row in rows if row[axis] == value), key=_number)
            twins = [(row, twin) for row in having if (twin := twin_of(row)) is not None]
            failing = [row for row in not_ok if row[axis] == value and twin_of(row) is not None]
            yield _Value(axis, value, reference, twins, failing)


def contrasts(data: ReportData, metric: str = END_TO_END) -> Callable[[Row, Row], Contrast]:
    """Return what gives the contrast of a row with the one that it is held against, in a metric of samples."""
    values = values_by_round(data.samples, metric, "configuration")
    started: dict[int, dict[int, datetime]] = defaultdict(dict)
    for configuration, number, text in data.points.select("configuration", "round", "started_at").iter_rows():
        if (time := start_time(text)) is not None:  # where the record tells
            started[configuration][number] = time

    def contrast_with(row: Row, against: Row) -> Contrast:
        own, other = row["configuration"], against["configuration"]
        return contrast(values.get((other,), {}), values.get((own,), {}), started[other], started[own])

    return contrast_with


def _winner(
    first: Row,
    against: Sequence[tuple[Row, Contrast]],
    flagged: tuple[str, ...],
    over_baseline: Speedup | None,
    error: float,
    threshold: float,
) -> Winner:
    comparisons = [_comparison(first, *each, error, threshold) for each in against]
    verdict, rival = None, ""
    if against:
        found = [each for _, each in against]
        place, verdict = verdict_on_race(found, threshold, error, higher_is_better=False)
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


def _comparison(row: Row, against: Row, found: Contrast, error: float, threshold: float) -> Speedup:
    """Return how many times as fast a row is, which is the other way round than the ratio of its latencies."""
    verdict = verdict_on(found, threshold, error, higher_is_better=False)
    interval = None
    if verdict.interval is not None:
        interval = Interval(1 / verdict.interval.estimate, 1 / verdict.interval.high, 1 / verdict.interval.low)
    estimate = against[END_TO_END] / row[END_TO_END] if interval is None else interval.estimate
    return Speedup(row, against, estimate, interval, verdict, found.is_apart)


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
