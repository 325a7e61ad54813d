"""The series of a history: per configuration and metric one value a commit, and where its level changes.

A series never mixes what is not comparable: another environment, device, number of threads, prompt or architecture
begins a series of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias

import polars as pl

from hfbench.compare.pairs import COMPARED, Axes, ComparedMetric, Point, points_of
from hfbench.compare.side import Side
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.core.record import OK
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.changepoints import Point as Observation
from hfbench.statistics.changepoints import Step, find_steps
from hfbench.statistics.intervals import median_intervals
from hfbench.statistics.verdicts import ERROR, FASTER, SLOWER, adjusted_p_values


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


@dataclass(frozen=True)
class Change:
    """A change point: first seen in the row `commit`, and not yet in `previous`; `verdict` is faster or slower."""

    commit: int
    previous: int
    verdict: str
    ratio: Interval
    p_value: float


@dataclass(frozen=True)
class Series:
    """The values of a metric of a configuration on one machine, in commit order, with its change points.

    `content` is what the axes do not say, and must be alike: device, threads, prompt, the model's architecture.
    `changes` is None where nothing tells the noise: then no change can be told from it.
    """

    configuration: Mapping[str, Any]
    metric: ComparedMetric
    machine: str
    content: tuple[str, ...]
    values: tuple[Value, ...]
    changes: tuple[Change, ...] | None = ()


@dataclass(frozen=True)
class Row:
    """A commit with results, or the workspace. `not_ok` has the status of each configuration without a round ok."""

    name: str
    commit: str | None
    committed_at: datetime | None
    subject: str | None
    machine: str
    results: tuple["Result", ...] = field(repr=False)
    not_ok: Mapping[tuple[Any, ...], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a row's tables say of one metric of one configuration; `measured` tells this measurement from any other."""

    configuration: tuple[Any, ...]
    metric: str
    content: tuple[str, ...]
    estimate: float
    interval: Interval | None
    rounds: int
    measured: tuple[Any, ...]
    output_differs: bool


@dataclass(frozen=True)
class History:
    """What a history shows: its rows in commit order, the series over them, and what has no row and why.

    `unmeasured` counts, for each row, the commits without results between it and the row before, and last those after
    all rows. `carried` names the commits that have the results of the row before them, and `unreadable` says why others
    could not be read.
    """

    rows: tuple[Row, ...]
    series: tuple[Series, ...]
    threshold: float
    unmeasured: tuple[int, ...]
    carried: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


Content: TypeAlias = tuple[str, ...]
# As for a comparison of two commits: of a manifest, what no other revision of the same model would change.
_ARCHITECTURE = ("architecture", "model_type", "vocab_size")


def read_row(side: Side, machine: str, metrics: Sequence[ComparedMetric], condition: pl.Expr | None) -> Row:
    """Return what a history needs of a side; `condition` chooses configurations by their axes."""
    if condition is not None:
        side = replace(side, summary=side.summary.filter(condition), points=side.points.filter(condition))
    names = [metric.name for metric in metrics]
    points = points_of(side)
    return Row(
        name=side.label,
        commit=side.revision,
        committed_at=side.committed_at,
        subject=side.subject,
        machine=machine,
        results=_results(side.summary.filter(pl.col("metric").cast(pl.String).is_in(names)), points, side.manifests),
        not_ok={axes: point.status for axes, point in points.items() if point.status != OK},
        notes=side.notes,
    )


def collect_series(rows: Sequence[Row]) -> list[Series]:
    """Return the series of these rows, which are in commit order, without change points."""
    metrics = {metric.name: metric for metric in COMPARED}
    found: dict[tuple[Axes, str, str], list[_Growing]] = {}
    for place, row in enumerate(rows):
        for result in row.results:
            some = found.setdefault((result.configuration, result.metric, row.machine), [])
            growing = next((each for each in some if _are_alike(each.content, result.content)), None)
            if growing is None:
                growing = _Growing(result.content)
                some.append(growing)
            growing.add(place, result)
    return [
        Series(
            configuration=dict(zip(CONFIGURATION_AXES, axes, strict=True)),
            metric=metrics[name],
            machine=machine,
            content=each.content,
            values=tuple(each.values),
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

    def add(self, place: int, result: Result) -> None:
        """Add the next value; what the series does not know of its content yet, it learns from it."""
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


def measured_values(series: Series) -> list[Value]:
    """Return the values that are measurements of their own, and positive, as a ratio needs them."""
    return [value for value in series.values if not value.is_carried and value.estimate > 0]


def failing_since(rows: Sequence[Row]) -> list[tuple[Axes, int]]:
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


def _steps(series: Series, threshold: float) -> list[Step] | None:
    points = [_observation(value) for value in measured_values(series)]
    return find_steps(points, threshold=threshold)


def _observation(value: Value) -> Observation:
    low, high = (value.interval.low, value.interval.high) if value.interval else (None, None)
    return Observation(value.estimate, low, high, value.rounds)


def _changes(series: Series, steps: Sequence[Step]) -> tuple[Change, ...]:
    values = measured_values(series)
    higher_is_better = series.metric.metric.higher_is_better
    return tuple(
        Change(
            commit=values[step.first].commit,
            previous=values[step.first - 1].commit,
            verdict=FASTER if (step.ratio.estimate > 1) == higher_is_better else SLOWER,
            ratio=step.ratio,
            p_value=step.p_value,
        )
        for step in steps
    )


def _results(
    summary: pl.DataFrame, points: Mapping[Axes, Point], manifests: Mapping[str, Mapping[str, Any]]
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


def _content(point: Point, manifest: Mapping[str, Any]) -> Content:
    """Return what the axes do not say of a point, and what stands against comparing two: see `pairs.obstacles`."""
    architecture = [manifest.get(name) for name in _ARCHITECTURE]
    words = (point.devices, point.threads, point.inputs, [word for word in architecture if word is not None])
    return tuple(", ".join(sorted(map(str, each))) for each in words)


def _are_alike(one: Content, other: Content) -> bool:
    """Return whether two contents differ in nothing that both tell."""
    return all(a == b or not (a and b) for a, b in zip(one, other, strict=True))
