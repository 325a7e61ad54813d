"""A history as tables of text: rows are commits, columns are configurations, the same for terminal and Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from rich.cells import cell_len, set_cell_size

from hfbench.compare.contrasts import FASTER, SLOWER
from hfbench.compare.layout import limits, percent, unit_of, verdict_word
from hfbench.compare.pairs import ComparedMetric
from hfbench.compare.series import Change, History, Row, Series, Value
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.report.words import MISSING, margin, printable, significant
from hfbench.tables.store import point_label

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


Column: TypeAlias = tuple[str, list[str]]  # its name, and a cell a row
_WIDEST_SUBJECT, _NARROWEST_SUBJECT = 40, 12
_WIDEST_CONFIGURATION = 24  # about as wide as a value with its change point
_GAP = 2


@dataclass(frozen=True)
class TextTable:
    """A title, the header, and rows of as many cells."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def history_tables(history: History, metrics: Sequence[ComparedMetric], width: int) -> list[TextTable]:
    """Return the tables of these metrics, as wide as `width` characters if that is enough."""
    labelled = list(zip(history.series, series_labels(history), strict=True))
    labelled = [(series, label) for series, label in labelled if series.metric in metrics]
    labelled.sort(key=lambda pair: (_machines(history).index(pair[0].machine), metrics.index(pair[0].metric)))
    tables = []
    for (machine, metric), group in groupby(labelled, key=lambda pair: (pair[0].machine, pair[0].metric)):
        tables += _tables_of(history, machine, metric, list(group), width)
    return tables


def _machines(history: History) -> list[str]:
    return list(dict.fromkeys(row.machine for row in history.rows))


def _tables_of(
    history: History, machine: str, metric: ComparedMetric, group: Sequence[tuple[Series, str]], width: int
) -> list[TextTable]:
    unit, unit_size = unit_of(metric, [value.estimate for series, _ in group for value in series.values])
    places = [place for place, row in enumerate(history.rows) if row.machine == machine]
    rows = [history.rows[place] for place in places]
    title = f"{metric.label} ({unit})" + (f" · {machine}" if len(_machines(history)) > 1 else "")
    if len(group) == 1:
        series, name = group[0]
        columns = [
            ("estimate", value_cells(series, history, places, unit_size)),
            ("interval", interval_strip(series, places)),
            ("change", change_cells(series, places, change_text)),
        ]
        return [_table(f"{title} · {name}", [*_commit_columns(rows, width - _width_of(columns)), *columns])]
    fixed = _commit_columns(rows, max(width // 2, width - 2 * (_WIDEST_CONFIGURATION + _GAP)))
    fixed = [(name, [*cells, "trend" if place == 0 else ""]) for place, (name, cells) in enumerate(fixed)]
    columns = [(name, _configuration_cells(series, history, places, unit_size)) for series, name in group]
    return [_table(title, [*fixed, *chunk]) for chunk in _chunks(columns, width - _width_of(fixed))]


def _configuration_cells(series: Series, history: History, places: Sequence[int], unit_size: float) -> list[str]:
    """Return the values with their change points, and below them the trend."""
    texts = value_cells(series, history, places, unit_size)
    marks = change_cells(series, places, short_change_text)
    return [*(f"{text}  {mark}".rstrip() for text, mark in zip(texts, marks, strict=True)), trend(series)]


def _commit_columns(rows: Sequence[Row], width: int) -> list[Column]:
    """Return the columns that say which commit it is: the subject shortened, or left out, to fit into the width."""
    days = [row.committed_at.strftime("%Y-%m-%d") if row.committed_at else "" for row in rows]
    columns = [("commit", [row_label(row) for row in rows]), ("date", days)]
    widest = min(_WIDEST_SUBJECT, width - _width_of(columns) - _GAP)
    if widest < _NARROWEST_SUBJECT:
        return columns
    return [*columns, ("subject", [_shortened(printable(row.subject or ""), widest) for row in rows])]


def _shortened(text: str, widest: int) -> str:
    return text if cell_len(text) <= widest else f"{set_cell_size(text, widest - 1)}…"


def _table(title: str, columns: Sequence[Column]) -> TextTable:
    rows = tuple(zip(*(cells for _, cells in columns), strict=True))
    return TextTable(title, tuple(name for name, _ in columns), rows)


def _chunks(columns: Sequence[Column], width: int) -> list[list[Column]]:
    chunks: list[list[Column]] = [[]]
    for column in columns:
        if chunks[-1] and _width_of([*chunks[-1], column]) > width:
            chunks.append([])
        chunks[-1].append(column)
    return chunks


def _width_of(columns: Sequence[Column]) -> int:
    return sum(max(map(cell_len, [name, *cells])) + _GAP for name, cells in columns)
