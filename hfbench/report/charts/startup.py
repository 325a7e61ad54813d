"""What passes from the start of a fresh process to its first token and until it runs steadily; what compiling costs."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import polars as pl
from polars import selectors

from hfbench.report.charts.chart import INK, PAPER, ROW_PIXELS, Chart, Key, Ways, panel, tooltips
from hfbench.report.frames import ReportData, shown_names
from hfbench.report.pages import Column
from hfbench.report.words import break_even_column, metric_column, number_column, range_text, word_column

# What the worker reports at the start of each phase, in order, and what the time from there to the next one is.
_BEGINS = ("import", "prepare", "load", "first_call", "verify", "warm_up", "sample")
PHASES = ("process start", "import", "prepare", "load", "first call", "compile", "checks", "warm-up")


def startup_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where no record tells when its phases began."""
    rounds = startup_rounds(data.points, data.first_calls)
    if rounds.is_empty():
        return None
    middle = middle_rounds(rounds)
    values = _spans(middle)
    shown = [phase for phase in PHASES if phase in set(values["phase"])]
    waits = range_text(middle["first_token"], middle["name"], "s")
    return Chart(
        title=f"From the start of a process to its first token: {waits}",
        spec=_spec(values, Ways(data.ways), shown),
        values=values,
        panels=shown_names(data.workloads, values["workload"]),
        table=[
            word_column("configuration", middle["name"]),
            number_column("first token", middle["first_token"], "s"),
            *(number_column(phase, (each or None for each in middle[phase]), "s") for phase in shown),
        ],
        keys=[*(Key(phase, colour=_colour(phase)) for phase in shown), Key("first token", "bar", INK)],
        words={"phases": ", ".join(shown)},
    )


def startup_rounds(points: pl.DataFrame, first_calls: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each round whose timeline is whole: the seconds of each phase, and `first_token`.

    All times count from the start of the stage's process, which starts the worker. The phases of a row add up to the
    time at which sampling began. `first_token` is when the first token of the first call came: that of any row.
    """
    columns = [f"timeline_{name}_seconds" for name in _BEGINS]
    if not set(columns) <= set(points.columns):
        return pl.DataFrame()
    first_token = pl.col("start_seconds") + pl.col("token_seconds").list.eval(pl.element().list.first()).list.min()
    tokens = first_calls.select("configuration", "round", first_token=first_token)
    rows = points.drop_nulls(columns).join(tokens.drop_nulls(), on=["configuration", "round"], maintain_order="left")
    edges = [pl.lit(0.0), *(pl.col(column) for column in columns)]
    durations = [late - early for early, late in pairwise(edges)]
    compiled = pl.min_horizontal(pl.col("compile_seconds").fill_null(0.0), durations[4])
    phases = [*durations[:4], durations[4] - compiled, compiled, *durations[5:]]
    seconds = dict(zip(PHASES, phases, strict=True))
    return rows.select("configuration", "round", "way", "workload", "name", "first_token", **seconds)


def middle_rounds(rounds: pl.DataFrame) -> pl.DataFrame:
    """Return, of each configuration, the round whose first token came in the middle, the earlier one of two.

    A round that was, rather than medians of phases, which would not add up.
    """
    place = pl.int_range(pl.len()).over("configuration")
    return (
        rounds.sort("configuration", "first_token", "round")
        .filter(place == (pl.len().over("configuration") - 1) // 2)
        .sort("configuration")
    )


def _spans(middle: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each phase that took any time, from `begin` to `end` in seconds since the process started."""
    index = ["row", "way", "workload", "first_token"]
    spans = middle.with_row_index("row").unpivot(PHASES, index=index, variable_name="phase", value_name="took")
    end = pl.col("took").cum_sum()
    begin = end.shift(1, fill_value=0.0)
    in_order = spans.sort("row", maintain_order=True).select(
        "way", "workload", "phase", first="first_token", begin=begin.over("row"), end=end.over("row"), took="took"
    )
    return in_order.filter(pl.col("took") > 0)


def _spec(values: pl.DataFrame, ways: Ways, shown: Sequence[str]) -> dict[str, Any]:
    colours = alt.Scale(domain=list(shown), range=[_colour(phase) for phase in shown])
    base = alt.Chart().encode(y=ways.rows(values["way"]))
    bars = base.mark_bar(size=ROW_PIXELS * 0.6, stroke=PAPER, strokeWidth=0.5).encode(
        x=alt.X("begin:Q", title="seconds since the process started"),
        x2="end:Q",
        color=alt.Color("phase:N", scale=colours, legend=None),
        tooltip=tooltips(
            ("phase:N", "phase"), ("took:Q", "took (s)", ".3~r"), ("first:Q", "first token at (s)", ".3~r")
        ),
    )
    first = base.mark_tick(thickness=2.5, size=ROW_PIXELS, color=INK).encode(x="min(first):Q")
    return panel(bars, first, height=alt.Step(ROW_PIXELS))


def _colour(phase: str) -> str:
    return f"var(--phase-{PHASES.index(phase)})"


_STARTS = ("first_call_seconds", "compile_seconds", "warm_first_call_seconds", "warm_compile_seconds")


def compiling_columns(compiled: pl.DataFrame) -> list[Column]:
    """Return what compiling costs at the start, and when it has paid for itself; of rows as of `ReportData`."""
    known = [name for name in _STARTS if name in compiled.columns and compiled[name].count()]
    unmarked = compiled.select(~selectors.ends_with("_best"))  # the mark of the results is of all, uncompiled ones too
    return [
        word_column("configuration", compiled["name"]),
        *(metric_column(unmarked, name) for name in known),
        break_even_column(compiled),
    ]
