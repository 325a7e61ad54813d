"""What a history is made of: rows (commits), series (a metric of a configuration over them) and change points."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hfbench.comparison.compared import ComparedMetric
from hfbench.statistics.confidence import Interval


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
