"""The series of a history: per configuration and metric one value a commit, and where its level changes.

A series never mixes what is not comparable: another environment, device, number of threads, prompt or architecture
begins a series of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias

import polars as pl

from hfbench.compare.pairs import (
    ARCHITECTURE,
    COMPARED,
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
from hfbench.report.pages import Cell, Column, Role
from hfbench.report.words import MISSING, margin, significant
from hfbench.statistics.bootstrap import Interval, median_intervals
from hfbench.statistics.changepoints import Observation, Step, find_steps
from hfbench.statistics.verdicts import ERROR, FASTER, SLOWER, adjusted_p_values

Content: TypeAlias = tuple[str, ...]

_MARKS = {SLOWER: "▲", FASTER: "▼"}
_SAME_MEASUREMENT = "="
_STRIP_WIDTH = 21
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Result:
    """What a row's tables say of one metric of one configuration; `measured` tells this measurement from any other.

    `content` is what the axes do not say, and must be alike: device, threads, prompt, the model's architecture.
    """

    configuration: Axes
    metric: str
    content: Content
    estimate: float
    interval: Interval | None
    rounds: int
    measured: tuple[Any, ...]
    output_differs: bool


@dataclass(frozen=True)
class HistoryRow:
    """A commit with results, or the workspace. `not_ok` has the status of each configuration without a round ok."""

    name: str
    commit: str | None
    committed_at: datetime | None
    subject: str | None
    machine: str
    results: tuple[Result, ...] = field(repr=False)
    not_ok: Mapping[Axes, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Value:
    """A metric at a commit, with its 95% interval where there are two rounds.

    `commit` is its place in the history. `is_carried` says that it is the measurement of the value before, which the
    commit took over: shown, and no evidence of its own. `output_differs`: beyond the limits from its reference.
    """

    commit: int
    estimate: float
    interval: Interval | None
    rounds: int
    is_carried: bool
    output_differs: bool

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of the interval, or else the estimate."""
        return (self.interval.low, self.interval.high) if self.interval else (self.estimate, self.estimate)


@dataclass(frozen=True)
class ChangePoint:
    """Where the level changes: first seen in the row `commit`, not yet in `previous`; `verdict` is faster or slower."""

    commit: int
    previous: int
    verdict: str
    ratio: Interval
    p_value: float

    @property
    def is_slower(self) -> bool:
        """Whether it is a change for the worse."""
        return self.verdict == SLOWER

    @property
    def role(self) -> Role:
        """What colours it."""
        return "bad" if self.is_slower else "good"


@dataclass(frozen=True)
class Series:
    """The values of a metric of a configuration on one machine, in commit order, with its change points.

    `content` is that of its results. `changes` is None where nothing tells the noise: then no change can be told
    from it.
    """

    configuration: Mapping[str, Any]
    metric: ComparedMetric
    machine: str
    content: Content
    values: tuple[Value, ...]
    changes: tuple[ChangePoint, ...] | None = ()

    @property
    def measured(self) -> list[Value]:
        """The values that are measurements of their own, and positive, as a ratio needs them."""
        return [value for value in self.values if not value.is_carried and value.estimate > 0]


def read_row(side: Side, machine: str, metrics: Sequence[ComparedMetric]) -> HistoryRow:
    """Return what a history needs of a side."""
    names = [metric.name for metric in metrics]
    points = points_of(side)
    return HistoryRow(
        name=side.label,
        commit=side.revision,
        committed_at=side.committed_at,
        subject=side.subject,
        machine=machine,
        results=_results(side.summary.filter(pl.col("metric").cast(pl.String).is_in(names)), points, side.manifests),
        not_ok={axes: point.status for axes, point in points.items() if point.status != OK},
        notes=side.notes,
    )


def _results(
    summary: pl.DataFrame, points: Mapping[Axes, ComparedPoint], manifests: Mapping[str, Mapping[str, Any]]
) -> tuple[Result, ...]:
    rows = summary.to_dicts()
    medians = [[float(value) for value in row["round_medians"]] for row in rows]
    results = []
    for row, of_rounds, interval in zip(rows, medians, _intervals(rows, medians), strict=True):
        configuration = tuple(row[axis] for axis in CONFIGURATION_AXES)
        point = points[configuration]
        results.append(
            Result(
                configuration=configuration,
                metric=row["metric"],
                content=_content(point, manifests.get(row["model"], {})),
                estimate=float(row["estimate"]),
                interval=interval,
                rounds=len(of_rounds),
                measured=(*of_rounds, *sorted(point.started.items())),
                output_differs=point.output_differs,
            )
        )
    return tuple(results)


def _intervals(rows: Sequence[Mapping[str, Any]], medians: Sequence[Sequence[float]]) -> list[Interval | None]:
    """Return the summary's intervals, or else those of the rounds' values: some metrics have one value a round."""
    known = [
        None if row.get("low") is None else Interval(float(row["estimate"]), float(row["low"]), float(row["high"]))
        for row in rows
    ]
    missing = [index for index, interval in enumerate(known) if interval is None]
    computed = median_intervals([[[median] for median in medians[index]] for index in missing])
    for index, interval in zip(missing, computed, strict=True):
        known[index] = interval
    return known


def _content(point: ComparedPoint, manifest: Mapping[str, Any]) -> Content:
    """Return what the axes do not say of a point, and what stands against comparing two: see `pairs.obstacles`."""
    architecture = [manifest.get(name) for name in ARCHITECTURE]
    words = (point.devices, point.threads, point.inputs, [word for word in architecture if word is not None])
    return tuple(", ".join(sorted(map(str, each))) for each in words)


def collect_series(rows: Sequence[HistoryRow]) -> list[Series]:
    """Return the series of these rows, which are in commit order, without change points.

    Two contents go into one series where they differ in nothing that both tell; it learns what it does not know yet.
    """
    metrics = {metric.name: metric for metric in COMPARED}
    found: dict[tuple[Axes, str, str], list[_Growing]] = {}
    for place, row in enumerate(rows):
        for result in row.results:
            some = found.setdefault((result.configuration, result.metric, row.machine), [])
            growing = next((each for each in some if each.takes(result)), None)
            if growing is None:
                growing = _Growing(result.content)
                some.append(growing)
            growing.add(place, result)
    return [
        Series(
            dict(zip(CONFIGURATION_AXES, axes, strict=True)), metrics[name], machine, each.content, tuple(each.values)
        )
        for (axes, name, machine), some in found.items()
        for each in some
    ]


@dataclass
class _Growing:
    """A series while it is collected."""

    content: Content
    values: list[Value] = field(default_factory=list)
    _last_measured: tuple[Any, ...] | None = None

    def takes(self, result: Result) -> bool:
        return all(a == b or not (a and b) for a, b in zip(self.content, result.content, strict=True))

    def add(self, place: int, result: Result) -> None:
        is_carried = result.measured == self._last_measured
        self.values.append(
            Value(place, result.estimate, result.interval, result.rounds, is_carried, result.output_differs)
        )
        self._last_measured = result.measured
        self.content = tuple(known or told for known, told in zip(self.content, result.content, strict=True))


def mark_changes(series: Sequence[Series], threshold: float) -> list[Series]:
    """Return the series with their change points, which `hfbench.statistics.changepoints` finds.

    One series shows a step that is none in 5% of cases at most; of hundreds of series some would. So the smallest
    p-value of each is adjusted for all of them (`hfbench.statistics.verdicts`).
    """
    steps = [_steps(each, threshold) for each in series]
    lowest = [min((step.p_value for step in found or ()), default=1.0) for found in steps]
    adjusted = adjusted_p_values(lowest)
    return [
        replace(each, changes=None if found is None else _changes(each, found) if p <= ERROR else ())
        for each, found, p in zip(series, steps, adjusted, strict=True)
    ]


def _steps(series: Series, threshold: float) -> list[Step] | None:
    observations = []
    for value in series.measured:
        low, high = value.limits if value.interval else (None, None)
        observations.append(Observation(value.estimate, low, high, value.rounds))
    return find_steps(observations, threshold=threshold)


def _changes(series: Series, steps: Sequence[Step]) -> tuple[ChangePoint, ...]:
    values = series.measured
    higher_is_better = series.metric.metric.higher_is_better
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


def _value_text(value: Value, unit_size: float) -> str:
    """Return the estimate with half its interval; a result that is not its reference's is worth saying so."""
    text = significant(value.estimate / unit_size)
    if value.is_carried:
        return f"{_SAME_MEASUREMENT} {text}"
    low, high = value.limits if value.interval else (None, None)
    differs = " output differs" if value.output_differs else ""
    return f"{text} {margin(value.estimate, low, high)}".strip() + differs


def change_text(change: ChangePoint, metric: ComparedMetric, *, short: bool = False) -> str:
    """Return a change point with its size and interval, `▲ slower +9.1% (+7.2 … +11.0%)`, or in short `▲ +9.1%`."""
    mark, size = _MARKS[change.verdict], percent(change.ratio.estimate)
    return f"{mark} {size}" if short else f"{mark} {metric.word(change.verdict)} {size} ({limits(change.ratio)})"


def line_column(label: str, texts: Sequence[str], roles: Sequence[Role] = ()) -> Column:
    """Return a column whose cells are never broken; `roles` are those of the first of them."""
    coloured = [Cell(text, role) for text, role in zip(texts, roles, strict=False)]
    return Column(label, "line").filled([*coloured, *texts[len(roles) :]])


def value_cells(series: Series, rows: Sequence[HistoryRow], places: Sequence[int], unit_size: float) -> list[str]:
    """Return the metric in each of these rows, or else the status of a configuration that has no value."""
    values = {value.commit: _value_text(value, unit_size) for value in series.values}
    key = tuple(series.configuration[axis] for axis in CONFIGURATION_AXES)
    return [values.get(place) or rows[place].not_ok.get(key, MISSING) for place in places]


def change_cells(series: Series, places: Sequence[int], *, short: bool) -> tuple[list[str], list[Role]]:
    """Return the change point in each of these rows, nothing where there is none, and its colour."""
    changes = {change.commit: change for change in series.changes or ()}
    found = [changes.get(place) for place in places]
    texts = [change_text(change, series.metric, short=short) if change else "" for change in found]
    return texts, [change.role if change else "" for change in found]


def interval_strip(series: Series, places: Sequence[int]) -> list[str]:
    """Return a line a commit with the interval as a stroke and the estimate as a dot, all on one scale."""
    values = {value.commit: value for value in series.values}
    ends = [end for value in series.values for end in value.limits]
    lowest, span = min(ends), max(ends) - min(ends) or 1.0

    def column(number: float) -> int:
        return round((number - lowest) / span * (_STRIP_WIDTH - 1))

    def strip(value: Value) -> str:
        low, high = map(column, value.limits)
        line = [" "] * low + ["─"] * (high - low + 1) + [" "] * (_STRIP_WIDTH - 1 - high)
        line[column(value.estimate)] = "●"
        return "".join(line)

    return [strip(values[place]) if place in values else "" for place in places]


def trend(series: Series) -> str:
    """Return the estimates as a line of bars, the lowest and the highest of them at its ends: not from zero."""
    estimates = [value.estimate for value in series.values]
    lowest, span = min(estimates), max(estimates) - min(estimates) or 1.0
    return "".join(_BARS[round((estimate - lowest) / span * (len(_BARS) - 1))] for estimate in estimates)
