"""The parts of a history's tables as text: commits, values, change points, and pictures of one line."""

from collections.abc import Callable, Sequence

from hfbench.comparison.compared import ComparedMetric
from hfbench.comparison.history_types import Change, History, Row, Series, Value
from hfbench.comparison.verdicts import FASTER, SLOWER
from hfbench.comparison.wording import limits, percent, verdict_word
from hfbench.reporting.cells import printable
from hfbench.reporting.numbers import MISSING, margin, significant
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import point_label

MARKS = {SLOWER: "▲", FASTER: "▼"}
_SAME_MEASUREMENT = "="
_STRIP_WIDTH = 21
_BARS = "▁▂▃▄▅▆▇█"


def row_label(row: Row) -> str:
    """Return a commit by its first seven digits, with the name it was asked for by, if that is another."""
    if row.commit is None:
        return printable(row.name)
    short = row.commit[:7]
    return short if row.commit.startswith(row.name) else f"{printable(row.name)} {short}"


def series_labels(history: History) -> list[str]:
    """Return a name for each series' configuration, by the axes that differ; `#2` has other contents (see `Series`)."""
    configurations = [series.configuration for series in history.series]
    varying = [axis for axis in CONFIGURATION_AXES if len({each[axis] for each in configurations}) > 1]
    labels: list[str] = []
    seen: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}
    for series in history.series:
        label = point_label(series.configuration, varying)
        contents = seen.setdefault((label, series.metric.name, series.machine), [])
        contents.append(series.content)
        labels.append(label if len(contents) == 1 else f"{label} #{len(contents)}")
    return labels


def value_cells(series: Series, history: History, places: Sequence[int], unit_size: float) -> list[str]:
    """Return the metric in each of these rows, or else the status of a configuration that has no value."""
    values = {value.commit: _value_text(value, unit_size) for value in series.values}
    key = tuple(series.configuration[axis] for axis in CONFIGURATION_AXES)
    return [values.get(place) or history.rows[place].not_ok.get(key, MISSING) for place in places]


def change_cells(series: Series, places: Sequence[int], text: Callable[[Change, ComparedMetric], str]) -> list[str]:
    """Return the change point in each of these rows, as `text` writes it; nothing where there is none."""
    changes = {change.commit: text(change, series.metric) for change in series.changes or ()}
    return [changes.get(place, "") for place in places]


def change_text(change: Change, metric: ComparedMetric) -> str:
    """Return a change point with its size and interval: `▲ slower +9.1% (+7.2 … +11.0%)`."""
    verdict = verdict_word(metric, change.verdict)
    return f"{MARKS[change.verdict]} {verdict} {percent(change.ratio.estimate)} ({limits(change.ratio)})"


def short_change_text(change: Change, _: ComparedMetric) -> str:
    """Return a change point in a few characters: `▲ +9.1%`."""
    return f"{MARKS[change.verdict]} {percent(change.ratio.estimate)}"


def interval_strip(series: Series, places: Sequence[int]) -> list[str]:
    """Return a line a commit with the interval as a stroke and the estimate as a dot, all on one scale."""
    values = {value.commit: value for value in series.values}
    ends = [end for value in series.values for end in _ends(value)]
    lowest, span = min(ends), max(ends) - min(ends) or 1.0

    def column(number: float) -> int:
        return round((number - lowest) / span * (_STRIP_WIDTH - 1))

    strips = []
    for place in places:
        if place not in values:
            strips.append("")
            continue
        low, high = map(column, _ends(values[place]))
        line = [" "] * low + ["─"] * (high - low + 1) + [" "] * (_STRIP_WIDTH - 1 - high)
        line[column(values[place].estimate)] = "●"
        strips.append("".join(line))
    return strips


def trend(series: Series) -> str:
    """Return the estimates as a line of bars, the lowest and the highest of them at its ends: not from zero."""
    estimates = [value.estimate for value in series.values]
    lowest, span = min(estimates), max(estimates) - min(estimates) or 1.0
    return "".join(_BARS[round((estimate - lowest) / span * (len(_BARS) - 1))] for estimate in estimates)


def _value_text(value: Value, unit_size: float) -> str:
    """Return the estimate with half its interval; a result that is not its reference's is worth saying so."""
    text = significant(value.estimate / unit_size)
    if value.is_carried:
        return f"{_SAME_MEASUREMENT} {text}"
    low, high = (value.interval.low, value.interval.high) if value.interval else (None, None)
    differs = " output differs" if value.output_differs else ""
    return f"{text} {margin(value.estimate, low, high)}".strip() + differs


def _ends(value: Value) -> tuple[float, float]:
    return (value.interval.low, value.interval.high) if value.interval else (value.estimate, value.estimate)
