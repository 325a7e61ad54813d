"""Which way is fastest, and how many times as fast as its baseline each configuration is, with intervals."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.core.point import AXIS_TABLE
from hfbench.report.charts.chart import ROW_PIXELS, Chart, Key, Ways, one_mark, panel, tooltips, within
from hfbench.report.frames import ReportData, shown_names
from hfbench.report.pages import Column
from hfbench.report.speedups import Judgement, Row, Speedup, Winner, judge_ways
from hfbench.report.words import (
    END_TO_END,
    MISSING,
    axis_text,
    counted,
    margin,
    number_column,
    significant,
    span_text,
    word_column,
)
from hfbench.statistics.verdicts import SAME


def speed_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where no workload has two ways to compare."""
    comparisons = judge_ways(data).speedups
    if not comparisons:
        return None
    values = _values(comparisons)
    return Chart(
        title=_title(comparisons),
        spec=_spec(values, Ways(data.ways)),
        values=values,
        panels=shown_names(data.workloads, values["workload"]),
        table=[
            word_column("workload", values["workload"]),
            word_column("way", values["way"]),
            word_column("baseline", values["against"]),
            number_column("times as fast", values["speed"]),
            number_column("95% interval", map(span_text, values["low"], values["high"])),
        ],
        keys=[Key("beyond noise", "circle"), Key("not told from noise", "ring"), Key("same speed", "line")],
    )


def _title(comparisons: Sequence[Speedup]) -> str:
    """Return the largest difference that holds for all comparisons together: what the intervals bear, and no more."""
    if all(each.interval is None for each in comparisons):
        return (
            "Speed relative to the baseline; one round bears no interval, so none of these differences is established"
        )
    held = [each for each in comparisons if each.is_clear]
    if not held:
        return "No way is faster or slower than its baseline by more than noise, over all comparisons together"
    most = max(held, key=lambda each: max(each.estimate, 1 / each.estimate))
    workload = most.configuration["workload"]
    where = f" with {workload}" if workload else ""
    speed = significant(most.estimate)
    return f"{most.configuration['way']} is {speed}× as fast as {most.against['way']}{where}"


def _values(comparisons: Sequence[Speedup]) -> pl.DataFrame:
    rows = [
        {
            "way": each.configuration["way"],
            "workload": each.configuration["workload"],
            "against": each.against["way"],
            "speed": each.estimate,
            "low": each.interval.low if each.interval else None,
            "high": each.interval.high if each.interval else None,
            "told": each.is_clear,
        }
        for each in comparisons
    ]
    values = pl.DataFrame(rows, schema_overrides={"low": pl.Float64, "high": pl.Float64})
    return values.with_columns(within(pl.col("low", "high"), pl.col("speed")).name.prefix("drawn_"))


def _spec(values: pl.DataFrame, ways: Ways) -> dict[str, Any]:
    tooltip = tooltips(
        ("workload:N", "workload"),
        ("speed:Q", "times as fast", ".3~f"),
        ("against:N", "as"),
        ("low:Q", "95% interval from", ".3~f"),
        ("high:Q", "to", ".3~f"),
    )
    axis: dict[str, Any] = {
        "title": "speed relative to the baseline (×)",
        "scale": alt.Scale(zero=False),
        "axis": alt.Axis(grid=True),
    }
    base = alt.Chart().encode(y=ways.rows(values["way"]), color=ways.colour(), tooltip=tooltip)
    same = one_mark().mark_rule(strokeWidth=1.5).encode(x=alt.datum(1))
    interval = base.mark_rule(strokeWidth=2).encode(x=alt.X("drawn_low:Q", **axis), x2="drawn_high:Q")
    x = alt.X("speed:Q", **axis)
    dot = base.mark_point(size=60, strokeWidth=2, opacity=1).encode(x=x, fill=ways.fill_where("datum.told"))
    has_intervals = values["low"].is_not_null().any()  # one round has none
    return panel(same, *((interval,) if has_intervals else ()), dot, height=alt.Step(ROW_PIXELS))


def summary_sentences(judgement: Judgement) -> str:
    """Return in how many workloads which way is fastest beyond noise, and how many comparisons drift may be in."""
    compared = [*judgement.speedups, *(each.runner_up for each in judgement.winners if each.runner_up is not None)]
    pairs = {(each.configuration["name"], each.against["name"]): each.is_apart for each in compared}
    apart = sum(pairs.values())
    drift = (
        f" {apart} of {counted(len(pairs), 'comparison')} {'is' if apart == 1 else 'are'} of two separate runs: their "
        "rounds do not alternate, so that a drift of the machine from one run to the other would pass for a "
        "difference. To have both in one run, name them to `hfbench retry`."
    )
    return _fastest(judgement.winners) + drift * bool(apart)


def _fastest(winners: Sequence[Winner]) -> str:
    compared = [each for each in winners if each.runner_up is not None]
    if not compared:
        return "No workload was measured in two ways."
    if all(each.runner_up is not None and each.runner_up.interval is None for each in compared):
        failed = any(row["rounds_ok"] < row["rounds_asked"] for each in compared for row in _rows_of(each))
        remedy = "See under Not ok why the other rounds were not." if failed else "Give sweep.round at least 3 values."
        return "With one round no difference can be told from noise: the order below is that of the medians. " + remedy
    clear = Counter(str(each.configuration["way"]) for each in compared if each.is_clear)
    if not clear:
        where = f"any of the {len(compared)} workloads" if len(compared) > 1 else "the workload"
        return f"No way is faster than every other by more than noise in {where}."
    shares = [f"{way} in {count}" for way, count in clear.most_common()]
    total = f"all {len(compared)} workloads" if len(compared) > 1 else "the one workload"
    if list(clear.values()) == [len(compared)]:
        return f"{next(iter(clear))} is fastest beyond noise in {total}."
    undecided = len(compared) - sum(clear.values())
    rest = f"; in {undecided} the first is not told from the next" if undecided else ""
    return f"Of {len(compared)} workloads, fastest beyond noise is {', '.join(shares)}{rest}."


def _rows_of(winner: Winner) -> list[Row]:
    return [winner.configuration, *([winner.runner_up.against] if winner.runner_up else [])]


def payoff_sentences(judgement: Judgement) -> list[str]:
    """Return for each value of an axis where it pays, and what that costs in quality."""
    return [
        f"{AXIS_TABLE[each.axis].label} {axis_text(each.value)} against {axis_text(each.reference)}: {each.where}"
        + (f"; the prompt's negative log-likelihood changes by {each.price}" if each.price else "")
        for each in judgement.payoffs
    ]


def winner_columns(winners: Sequence[Winner]) -> list[Column]:
    """Return the columns of the table of winners; that of the workload only where it has a name."""
    rows = [each.configuration for each in winners]
    margins = [margin(row[END_TO_END], row[f"{END_TO_END}_low"], row[f"{END_TO_END}_high"]) for row in rows]
    columns = [
        word_column("workload", (row["workload"] for row in rows)),
        word_column("lowest median", (row["way"] for row in rows)),
        *_ratios("baseline", [each.over_baseline for each in winners]),
        *_ratios("next", [each.runner_up for each in winners]),
        number_column("end-to-end", (row[END_TO_END] for row in rows), "s", margins),
        word_column("verdict", map(_verdict, winners)),
    ]
    return columns if any(row["workload"] for row in rows) else columns[1:]


def _ratios(label: str, comparisons: Sequence[Speedup | None]) -> list[Column]:
    """Return two columns: how many times as fast, and against whom where it is not the same everywhere."""
    names = [str(each.against["way"]) if each else MISSING for each in comparisons]
    texts = [f"{significant(each.estimate)}×" if each else MISSING for each in comparisons]
    intervals = [span_text(*each.interval[1:]) if each and each.interval else "" for each in comparisons]
    known = set(names) - {MISSING}
    if label == "baseline" and len(known) == 1:
        return [number_column(f"over {known.pop()}", texts, margins=intervals)]
    return [number_column(f"over the {label}", texts, margins=intervals), word_column(label, names)]


def _verdict(winner: Winner) -> str:
    left_out = f"; not ranked, since the output differs: {', '.join(winner.flagged)}" if winner.flagged else ""
    if winner.runner_up is None:
        return f"the only way measured{left_out}"
    if winner.runner_up.interval is None:
        return f"one round: not told from noise{left_out}"
    if winner.is_clear:
        return f"fastest beyond noise{left_out}"
    if winner.verdict is not None and winner.verdict.word == SAME:
        return f"level with {winner.rival}{left_out}"
    return f"not told from {', '.join(winner.rivals)}{left_out}"
