"""What passes from the start of a fresh process to its first token, and until it runs steadily."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import polars as pl

from hfbench.report.charts.chart import (
    FAINT,
    INK,
    PAPER,
    ROW_PIXELS,
    Chart,
    Key,
    compact,
    one_mark,
    panel_spec,
    phase_colour,
    text_column,
    way_axis,
    way_scale,
)
from hfbench.report.frames import ReportData, shown_names
from hfbench.report.speedups import extremes, percent, range_text
from hfbench.report.words import MISSING, TextColumn, significant

_DECODE, _PREFILL = "decode", "prefill"
_SHARES = {"mbu": (_DECODE, "bandwidth"), "mfu": (_PREFILL, "matrix products")}


def shares_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where neither the model's needs nor the device's ceilings are known."""
    values = _values(data.rows)
    if values.is_empty():
        return None
    return Chart(
        name="shares",
        title=_title(values),
        alternative="A circle for the decoding and a diamond for the prefill of each configuration, on an axis from 0 "
        "to 100% of what the device was measured to reach.",
        note="100% is the roof: for decoding, the rate at which the device was measured to read as many bytes; for "
        "prefill, its rate of matrix products in this dtype. Decoding at small batches is bound by the first, prefill "
        "of long prompts by the second.",
        spec=_shares_spec(values, data.ways),
        values=compact(values),
        panel_field="workload",
        panels=tuple(shown_names(data.workloads, values["workload"])),
        table=_shares_table(values),
        keys=[
            Key("decode, of the read bandwidth (MBU)", FAINT, "circle"),
            Key("prefill, of the matrix-product rate (MFU)", FAINT, "diamond"),
            Key("the roof", FAINT, "line"),
        ],
    )


def _values(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration and phase with a known utilisation, in percent."""
    return pl.concat(
        rows.filter(pl.col(column).is_not_null()).select(
            "way", "workload", "name", phase=pl.lit(phase), percent=pl.col(column) * 100
        )
        for column, (phase, _) in _SHARES.items()
    )


def _title(values: pl.DataFrame) -> str:
    parts = []
    for phase, resource in _SHARES.values():
        shares = values.filter(phase=phase)["percent"].to_list()
        if shares:
            verb = "Decoding reads at" if phase == _DECODE else "prefill computes at"
            low, high = percent(min(shares)), percent(max(shares))
            share = low if low == high else f"{low} to {high}"
            parts.append(f"{verb} {share} of the measured rate of {resource}")
    text = ", ".join(parts)
    return (text[0].upper() + text[1:]).replace("rate of bandwidth", "read bandwidth")


def _shares_spec(values: pl.DataFrame, ways: Sequence[str]) -> dict[str, Any]:
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("phase:N", title="phase"),
        alt.Tooltip("percent:Q", title="% of the roof", format=".3~r"),
    ]
    largest: float = max(100.0, values["percent"].max())  # type: ignore[type-var,assignment]
    scale = alt.Scale(domain=[0, largest * 1.04], nice=False)
    x = alt.X("percent:Q", title="share of the measured roof (%)", scale=scale, axis=alt.Axis(grid=True))
    shapes = alt.Scale(domain=[_DECODE, _PREFILL], range=["circle", "diamond"])
    base = alt.Chart().encode(y=way_axis(ways, values["way"]), x=x, tooltip=tooltip)
    roof = one_mark().mark_rule(strokeWidth=2.5).encode(x=alt.datum(100))
    marks = base.mark_point(filled=True, size=85, opacity=1, stroke=PAPER, strokeWidth=0.5).encode(
        color=alt.Color("way:N", scale=way_scale(ways), legend=None),
        shape=alt.Shape("phase:N", scale=shapes, legend=None),
    )
    return panel_spec(alt.layer(roof, marks).properties(height=alt.Step(ROW_PIXELS)))


def _shares_table(values: pl.DataFrame) -> list[TextColumn]:
    return [
        text_column("configuration", values["name"].to_list(), is_number=False),
        text_column("phase", values["phase"].to_list(), is_number=False),
        text_column("of the roof", [significant(each) for each in values["percent"]], "%"),
    ]


# What the worker reports at the start of each phase, in order, and what the time from there to the next one is.
_BEGINS = ("import", "prepare", "load", "verify", "first_call", "warm_up", "sample")
_PHASES = ("process start", "import", "prepare", "load", "checks", "first call", "compile", "warm-up")


def startup_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where no record tells when its phases began."""
    rounds = startup_rounds(data.points, data.first_calls)
    if rounds.is_empty():
        return None
    middle = middle_rounds(rounds)
    values = _spans(middle)
    shown = [phase for phase in _PHASES if phase in set(values["phase"])]
    lowest, highest = extremes(middle["first_token"].to_list(), middle["name"].to_list())
    return Chart(
        name="startup",
        title=f"From the start of a process to its first token: {range_text(lowest, highest, 's')}",
        alternative="A bar for each configuration in seconds since its process started, parted into "
        f"{', '.join(shown)}, with a mark at the first token.",
        note="The round whose first token came in the middle. Process start: until the interpreter runs. Import: torch "
        "and transformers. Prepare: device, prompt, model files. Checks: hfbench watches a short generation and the "
        "prompt's likelihood, which also warms the libraries; else the first call would wait for that. Compile is "
        "what torch.compile took, drawn at the end of the first call wherever in it that was: with generate it follows "
        "the first token. Samples are taken after the warm-up.",
        spec=_spec(values, data.ways, shown),
        values=compact(values),
        panel_field="workload",
        panels=tuple(shown_names(data.workloads, values["workload"])),
        table=_table(middle),
        keys=[*(Key(phase, phase_colour(_PHASES.index(phase))) for phase in shown), Key("first token", INK, "bar")],
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
    rows = points.drop_nulls(columns).join(tokens, on=["configuration", "round"], how="left", maintain_order="left")
    edges = [pl.lit(0.0), *(pl.col(column) for column in columns)]
    durations = [late - early for early, late in pairwise(edges)]
    compiled = pl.min_horizontal(pl.col("compile_seconds").fill_null(0.0), durations[5])
    phases = [*durations[:5], durations[5] - compiled, compiled, durations[6]]
    return rows.select(
        "configuration",
        "round",
        "way",
        "workload",
        "name",
        "first_token",
        *(phase.alias(name) for name, phase in zip(_PHASES, phases, strict=True)),
    ).drop_nulls("first_token")


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
    rows = []
    for row in middle.to_dicts():
        begin = 0.0
        for phase in _PHASES:
            if row[phase] > 0:
                own = {"way": row["way"], "workload": row["workload"], "phase": phase, "first": row["first_token"]}
                rows.append({**own, "begin": begin, "end": begin + row[phase], "took": row[phase]})
            begin += row[phase]
    return pl.DataFrame(rows)


def _spec(values: pl.DataFrame, ways: Sequence[str], shown: Sequence[str]) -> dict[str, Any]:
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("phase:N", title="phase"),
        alt.Tooltip("took:Q", title="took (s)", format=".3~r"),
        alt.Tooltip("first:Q", title="first token at (s)", format=".3~r"),
    ]
    colours = alt.Scale(domain=list(shown), range=[phase_colour(_PHASES.index(phase)) for phase in shown])
    base = alt.Chart().encode(y=way_axis(ways, values["way"]))
    bars = base.mark_bar(size=ROW_PIXELS * 0.6, stroke=PAPER, strokeWidth=0.5).encode(
        x=alt.X("begin:Q", title="seconds since the process started"),
        x2="end:Q",
        color=alt.Color("phase:N", scale=colours, legend=None),
        tooltip=tooltip,
    )
    first = base.mark_tick(thickness=2.5, size=ROW_PIXELS, color=INK).encode(x="min(first):Q")
    return panel_spec(alt.layer(bars, first).properties(height=alt.Step(ROW_PIXELS)))


def _table(middle: pl.DataFrame) -> list[TextColumn]:
    phases = [
        text_column(phase, [significant(each) if each else MISSING for each in middle[phase]], "s")
        for phase in _PHASES
        if middle[phase].sum()
    ]
    first = text_column("first token", [significant(each) for each in middle["first_token"]], "s")
    return [text_column("configuration", middle["name"].to_list(), is_number=False), first, *phases]
