"""The series of a history: per configuration and metric one value a commit, and where its level changes.

A series never mixes what is not comparable: another environment, device, number of threads, prompt or architecture
begins a series of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import polars as pl

from hfbench.compare.pairs import (
    ARCHITECTURE,
    METRIC_BY_NAME,
    Axes,
    ComparedMetric,
    ComparedPoint,
    limits,
    percent,
    points_of,
)
from hfbench.compare.side import Side
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.core.record import OK
from hfbench.report.detail import sparkline
from hfbench.report.pages import Cell, Role
from hfbench.report.words import MISSING, margin, significant
from hfbench.statistics.bootstrap import Interval, median_intervals
from hfbench.statistics.changepoints import Observation, Step, find_steps
from hfbench.statistics.verdicts import ERROR, FASTER, SLOWER, adjusted_p_values

Content: TypeAlias = tuple[str, ...]

_MARKS = {SLOWER: "▲", FASTER: "▼"}
_SAME_MEASUREMENT = "="
_STRIP_WIDTH = 21


@dataclass(frozen=True)
class Result:
    """What a row's tables say of one metric of one configuration; `measured` tells this measurement from any other.

    `interval` is the 95% one, None of a single round. `content` is what the axes do not say, and must be alike: device,
    threads, prompt, the model's architecture. `output_differs`: beyond the limits from its reference.
    """

    configuration: Axes
    metric: str
    content: Content
    estimate: float
    interval: Interval | None
    rounds: int
    measured: tuple[Any, ...]
    output_differs: bool

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of the interval, or else the estimate."""
        return (self.interval.low, self.interval.high) if self.interval else (self.estimate, self.estimate)


@dataclass(frozen=True)
class HistoryRow:
    """A commit with results, or the workspace. `not_ok` has the status of each configuration without a round ok."""

    name: str
    commit: str | None
    committed_at: datetime | None
    subject: str | None
    results: tuple[Result, ...] = field(repr=False)
    machine: str = ""
    not_ok: Mapping[Axes, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Value:
    """A result in a series; `commit` is its place in the history.

    `is_carried` says that it is the measurement of the value before, which the commit took over: shown, and no evidence
    of its own.
    """

    commit: int
    result: Result
    is_carried: bool


@dataclass(frozen=True)
class ChangePoint:
    """Where the level changes: first seen in the row `commit`, not yet in `previous`; `verdict` is faster or slower."""

    commit: int
    previous: int
    verdict: str
    ratio: Interval
    p_value: float

    @property
    def role(self) -> Role:
        """What colours it."""
        return "bad" if self.verdict == SLOWER else "good"


@dataclass
class Series:
    """The values of a metric of a configuration on one machine, in commit order, with its change points.

    `content` is what any of its results tells. `changes` is None where nothing tells the noise: then no change can be
    told from it.
    """

    axes: Axes
    metric: ComparedMetric
    machine: str
    content: Content
    values: list[Value] = field(default_factory=list)
    changes: tuple[ChangePoint, ...] | None = ()

    @property
    def results(self) -> list[Result]:
        """What its values are."""
        return [value.result for value in self.values]

    @property
    def measured(self) -> list[Value]:
        """The values that are measurements of their own, and positive, as a ratio needs them."""
        return [value for value in self.values if not value.is_carried and value.result.estimate > 0]

    def takes(self, result: Result) -> bool:
        """Whether a result differs in nothing that both tell."""
        return all(a == b or not (a and b) for a, b in zip(self.content, result.content, strict=True))

    def add(self, commit: int, result: Result) -> None:
        """Append a result; the series learns from it what it does not know yet."""
        is_carried = bool(self.values) and self.values[-1].result.measured == result.measured
        self.values.append(Value(commit, result, is_carried))
        self.content = tuple(known or told for known, told in zip(self.content, result.content, strict=True))


def read_row(side: Side, metrics: Sequence[ComparedMetric]) -> HistoryRow:
    """Return what a history needs of a side; which machine it is shows beside the others."""
    names, points = [metric.name for metric in metrics], points_of(side)
    summary = side.summary.filter(pl.col("metric").cast(pl.String).is_in(names))
    return HistoryRow(
        name=side.label,
        commit=side.revision,
        committed_at=side.committed_at,
        subject=side.subject,
        results=tuple(_results(summary.to_dicts(), points, side.manifests)),
        not_ok={axes: point.status for axes, point in points.items() if point.status != OK},
        notes=side.notes,
    )


def _results(
    rows: Sequence[dict[str, Any]], points: Mapping[Axes, ComparedPoint], manifests: Mapping[str, Mapping[str, Any]]
) -> Iterator[Result]:
    """Yield the results of a summary. Its metrics with one value a round get their interval here, from these values."""
    single = [[[float(median)] for median in row["round_medians"]] for row in rows if row.get("low") is None]
    intervals = iter(median_intervals(single))
    for row in rows:
        configuration = tuple(row[axis] for axis in CONFIGURATION_AXES)
        point, manifest = points[configuration], manifests.get(row["model"], {})
        # What the axes do not say of a point, and what stands against comparing two: see `pairs.obstacles`.
        architecture = [manifest[name] for name in ARCHITECTURE if manifest.get(name) is not None]
        content = (point.devices, point.threads, point.inputs, architecture)
        yield Result(
            configuration=configuration,
            metric=row["metric"],
            content=tuple(", ".join(sorted(map(str, words))) for words in content),
            estimate=row["estimate"],
            interval=next(intervals) if row.get("low") is None else Interval(row["estimate"], row["low"], row["high"]),
            rounds=len(row["round_medians"]),
            measured=(*row["round_medians"], *sorted(point.started.items())),
            output_differs=point.output_differs,
        )


def collect_series(rows: Sequence[HistoryRow]) -> list[Series]:
    """Return the series of these rows, which are in commit order, without change points.

    Two contents go into one series where they differ in nothing that both tell.
    """
    found: dict[tuple[Axes, str, str], list[Series]] = {}
    for place, row in enumerate(rows):
        for result in row.results:
            alike = found.setdefault((result.configuration, result.metric, row.machine), [])
            series = next((each for each in alike if each.takes(result)), None)
            if series is None:
                series = Series(result.configuration, METRIC_BY_NAME[result.metric], row.machine, result.content)
                alike.append(series)
            series.add(place, result)
    return [series for alike in found.values() for series in alike]


def mark_changes(series: Sequence[Series], threshold: float) -> None:
    """Give the series their change points, which `hfbench.statistics.changepoints` finds.

    One series shows a step that is none in 5% of cases at most; of hundreds of series some would. So the smallest
    p-value of each is adjusted for all of them (`hfbench.statistics.verdicts`).
    """
    found = [find_steps([_observation(value) for value in each.measured], threshold=threshold) for each in series]
    lowest = [min((step.p_value for step in steps or ()), default=1.0) for steps in found]
    for each, steps, p_value in zip(series, found, adjusted_p_values(lowest), strict=True):
        each.changes = None if steps is None else _changes(each, steps) if p_value <= ERROR else ()


def _observation(value: Value) -> Observation:
    low, high = value.result.limits if value.result.interval else (None, None)
    return Observation(value.result.estimate, low, high, value.result.rounds)


def _changes(series: Series, steps: Sequence[Step]) -> tuple[ChangePoint, ...]:
    values, higher_is_better = series.measured, series.metric.metric.higher_is_better
    return tuple(
        ChangePoint(
            commit=values[step.first].commit,
            previous=values[step.first - 1].commit,
            verdict=FASTER if (step.ratio.estimate > 1) == higher_is_better else SLOWER,
            ratio=step.ratio,
            p_value=step.p_value,
        )
        for step in steps
    )


def failing_since(rows: Sequence[HistoryRow]) -> list[tuple[Axes, int]]:
    """Return each configuration that is not ok in the last row, and was in one before on the same machine.

    With it stands the row since which it is not. A row that did not try the configuration says nothing.
    """
    places = [place for place, row in enumerate(rows) if row.machine == rows[-1].machine]
    ok = {place: {result.configuration for result in rows[place].results} for place in places}
    found = []
    for axes in rows[-1].not_ok if rows else ():
        last_ok = max((place for place in places if axes in ok[place]), default=None)
        if last_ok is not None:
            found.append((axes, min(place for place in places if place > last_ok and axes in rows[place].not_ok)))
    return found


def value_cells(series: Series, rows: Sequence[HistoryRow], places: Sequence[int], unit_size: float) -> list[str]:
    """Return the metric in each of these rows with half its interval, or else the status of what has no value.

    That it was taken over, or is of an output that is not its reference's, is worth saying.
    """
    texts = {}
    for value in series.values:
        result = value.result
        text = significant(result.estimate / unit_size)
        noise = margin(result.estimate, *result.limits) if result.interval else ""
        differs = " output differs" if result.output_differs else ""
        texts[value.commit] = f"{_SAME_MEASUREMENT} {text}" if value.is_carried else f"{text} {noise}".strip() + differs
    return [texts.get(place) or rows[place].not_ok.get(series.axes, MISSING) for place in places]


def change_text(change: ChangePoint, metric: ComparedMetric, *, short: bool = False) -> str:
    """Return a change point with its size and interval, `▲ slower +9.1% (+7.2 … +11.0%)`, or in short `▲ +9.1%`."""
    mark, size = _MARKS[change.verdict], percent(change.ratio.estimate)
    return f"{mark} {size}" if short else f"{mark} {metric.word(change.verdict)} {size} ({limits(change.ratio)})"


def change_cells(series: Series, places: Sequence[int], *, short: bool) -> list[Cell]:
    """Return the change point in each of these rows, nothing where there is none."""
    changes = {change.commit: change for change in series.changes or ()}
    found = (changes.get(place) for place in places)
    return [Cell(change_text(each, series.metric, short=short), each.role) if each else Cell("") for each in found]


def interval_strip(series: Series, places: Sequence[int]) -> list[str]:
    """Return a line a commit with the interval as a stroke and the estimate as a dot, all on one scale."""
    ends = [end for result in series.results for end in result.limits]
    lowest, span = min(ends), max(ends) - min(ends) or 1.0

    def strip(result: Result) -> str:
        low, high, middle = (
            round((number - lowest) / span * (_STRIP_WIDTH - 1)) for number in (*result.limits, result.estimate)
        )
        stroke = " " * low + "─" * (high - low + 1) + " " * (_STRIP_WIDTH - 1 - high)
        return f"{stroke[:middle]}●{stroke[middle + 1 :]}"

    strips = {value.commit: strip(value.result) for value in series.values}
    return [strips.get(place, "") for place in places]


def trend(series: Series) -> str:
    """Return the estimates as a line of bars, the lowest and the highest of them at its ends: not from zero."""
    estimates = [result.estimate for result in series.results]
    return sparkline(estimates, min(estimates), max(estimates))
