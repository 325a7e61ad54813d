"""Throughput: against latency over the batch sizes, under load, by context depth, and by kind of machine."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from hfbench.report.charts.chart import ROW_PIXELS, Chart, Key, Ways, largest_change, panel, tooltips, within
from hfbench.report.frames import (
    MODEL_AND_WORK,
    ReportData,
    load_curves,
    shown_names,
    workload_name,
)
from hfbench.report.speedups import contrasts, knee_sentences
from hfbench.report.words import (
    END_TO_END,
    MISSING,
    number_column,
    significant,
    span_text,
    word_column,
)
from hfbench.statistics.bootstrap import CONFIDENCE, Interval
from hfbench.statistics.verdicts import interval

_LATENCY, _THROUGHPUT = "inter_token_seconds", "decode_tokens_per_second"
_FRONTIER_HEIGHT, _DEPTH_HEIGHT = 240, 200  # pixels of a panel
_LOGARITHMIC_FROM = 20  # highest over lowest value, where a linear axis would heap the small ones


def frontier_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where nothing was decoded."""
    values = frontier_values(data.rows)
    if values.is_empty():
        return None
    ways = Ways(data.ways)
    return Chart(
        title=_frontier_title(values),
        spec=_frontier_spec(values, ways),
        values=values.drop("output_differs"),
        panel_field="scene",
        panels=values["scene"].unique(maintain_order=True).to_list(),
        table=[
            word_column("configuration", values["name"]),
            number_column("inter-token", values["ms"], "ms"),
            number_column("decode", values["rate"], "tokens/s"),
            word_column("frontier", ("yes" if each else MISSING for each in values["frontier"])),
        ],
        keys=[*ways.keys(values["way"]), Key("on the frontier", "circle"), Key("behind it", "ring")],
        own_axes=("x", "y"),
    )


def frontier_values(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration that decodes: way, scene, batch size, latency in ms, throughput, intervals.

    `frontier` says that no configuration of the scene has a lower latency and at least the throughput, or the same
    latency and more: the Pareto frontier of the medians. What computes something else, by its output, is not on it.
    """
    if not {_LATENCY, _THROUGHPUT} <= set(rows.columns):
        return pl.DataFrame()
    ends = {f"ms_{end}": _end(_LATENCY, end) * 1e3 for end in ("low", "high")}
    ends |= {f"rate_{end}": _end(_THROUGHPUT, end) for end in ("low", "high")}
    values = rows.drop_nulls([_LATENCY, _THROUGHPUT]).select(
        "way",
        "scene",
        "name",
        "output_differs",
        batch="batch_size",
        ms=pl.col(_LATENCY) * 1e3,
        rate=_THROUGHPUT,
        **ends,
    )
    # From the lowest latency up: a point is on the frontier where its throughput exceeds all before it.
    rate = pl.when(~pl.col("output_differs")).then("rate").otherwise(0.0)
    is_higher = rate > rate.cum_max().shift(1, fill_value=0.0)
    scenes = values.partition_by("scene", maintain_order=True)
    walks = [each.sort("ms", -rate, maintain_order=True).with_columns(frontier=is_higher) for each in scenes]
    return pl.concat(walks) if walks else pl.DataFrame()


def _end(metric: str, end: str, panel_field: str = "scene") -> pl.Expr:
    """Return where this end of a metric's interval is drawn."""
    return within(pl.col(f"{metric}_{end}"), pl.col(metric)).over(panel_field)


def _frontier_title(values: pl.DataFrame) -> str:
    """Return what the way with the highest throughput was measured at, with its smallest and its largest batch."""
    ranked = values.filter("frontier") if values["frontier"].any() else values
    top = ranked.sort("rate", descending=True, maintain_order=True).row(0, named=True)
    line = values.filter(pl.col("way") == top["way"], pl.col("scene") == top["scene"]).sort("batch").to_dicts()
    scene = f" ({top['scene']})" if values["scene"].n_unique() > 1 else ""
    ends = [line[0], line[-1]] if len(line) > 1 else line
    parts = [f"{significant(row['rate'])} tokens/s at batch {row['batch']}" for row in ends]
    waits = [f"{significant(row['ms'])} ms" for row in ends]
    return f"{top['way']} decodes {', '.join(parts)}, with {' and '.join(waits)} between tokens{scene}"


def _frontier_spec(values: pl.DataFrame, ways: Ways) -> dict[str, Any]:
    latency: dict[str, Any] = {"title": "inter-token latency (ms)", "scale": _scale(values["ms"])}
    throughput: dict[str, Any] = {"title": "decode throughput (tokens/s)", "scale": _scale(values["rate"])}
    base = alt.Chart().encode(
        x=alt.X("ms:Q", **latency),
        y=alt.Y("rate:Q", **throughput),
        color=ways.colour(),
        tooltip=tooltips(("batch:O", "batch"), ("rate:Q", "tokens/s", ".4~r"), ("ms:Q", "ms between tokens", ".4~r")),
    )
    line, mark, label = _numbered_line(base, ways, "batch", "frontier")
    wide = base.mark_rule(opacity=0.6).encode(x=alt.X("ms_low:Q", **latency), x2="ms_high:Q")
    tall = base.mark_rule(opacity=0.6).encode(y=alt.Y("rate_low:Q", **throughput), y2="rate_high:Q")
    has_intervals = values["ms_low"].is_not_null().any()  # one round has none
    return panel(line, *((wide, tall) if has_intervals else ()), mark, label, height=_FRONTIER_HEIGHT)


def _numbered_line(base: alt.Chart, ways: Ways, number: str, filled: str) -> tuple[alt.Chart, alt.Chart, alt.Chart]:
    """Return a line in the order of a number, a mark at each, filled where that field is true, and the numbers."""
    untold = alt.value(None)
    line = base.mark_line(strokeWidth=1.5, opacity=0.6).encode(
        order=f"{number}:Q", strokeDash=ways.dashes(), tooltip=untold
    )
    fill = ways.fill_where(f"datum.{filled}")
    mark = base.mark_point(size=60, strokeWidth=2, opacity=1).encode(shape=ways.shape(), fill=fill)
    label = base.mark_text(align="left", dx=8, dy=-8, fontSize=11).encode(text=f"{number}:N", tooltip=untold)
    return line, mark, label


def _scale(values: pl.Series) -> alt.Scale:
    numbers = values.to_list()
    spread = max(numbers) / min(numbers)
    return alt.Scale(type="log") if spread >= _LOGARITHMIC_FROM else alt.Scale(zero=spread == 1)


_LOAD_HEIGHT = 220  # pixels of a panel


def load_chart(data: ReportData) -> Chart | None:
    """Return the chart of waiting against throughput as the request rate rises, or None without two rates."""
    curves = load_curves(data.rows)
    if curves.is_empty():
        return None
    work = _work_beside("request_rate", curves).fill_null("")
    values = curves.select("way", "name", "rate", "tokens", "is_knee", ms=pl.col("wait") * 1e3, panel=work)
    ways = Ways(data.ways)
    return Chart(
        title=" ".join(knee_sentences(curves)).rstrip("."),
        spec=_load_spec(values, ways),
        values=values.drop("name"),
        panel_field="panel",
        panels=values["panel"].unique(maintain_order=True).to_list(),
        table=[
            word_column("configuration", values["name"]),
            number_column("request rate", values["rate"], "1/s"),
            number_column("throughput", values["tokens"], "tokens/s"),
            number_column("TTFT p95", values["ms"], "ms"),
            word_column("knee", ("yes" if each else MISSING for each in values["is_knee"])),
        ],
        keys=[*ways.keys(values["way"]), Key("the knee", "circle"), Key("another rate", "ring")],
        own_axes=("x", "y"),
    )


def _load_spec(values: pl.DataFrame, ways: Ways) -> dict[str, Any]:
    base = alt.Chart().encode(
        x=alt.X("tokens:Q", title="throughput (tokens/s)", scale=alt.Scale(zero=True)),
        y=alt.Y("ms:Q", title="TTFT p95 (ms)", scale=_scale(values["ms"])),
        color=ways.colour(),
        tooltip=tooltips(("rate:Q", "requests/s"), ("tokens:Q", "tokens/s", ".4~r"), ("ms:Q", "TTFT p95 (ms)", ".4~r")),
    )
    return panel(*_numbered_line(base, ways, "rate", "is_knee"), height=_LOAD_HEIGHT)


_RATES = {"decode": _THROUGHPUT, "prefill": "prefill_tokens_per_second"}
_VERBS = {"decode": "decoding", "prefill": "the prefill"}


def depth_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where nothing was measured at two depths."""
    parts = [_phase(data.rows, phase, rate) for phase, rate in _RATES.items() if rate in data.rows.columns]
    several = pl.col("depth").n_unique().over("phase", "series") > 1
    values = pl.concat(parts).filter(several) if parts else pl.DataFrame()
    if values.is_empty():
        return None
    ways = Ways(data.ways)
    return Chart(
        title=_depth_title(values, data),
        spec=_depth_spec(ways, has_intervals=bool(values["low"].is_not_null().any())),
        values=values.select("way", "panel", "depth", "rate", "low", "high"),
        panel_field="panel",
        panels=values["panel"].unique(maintain_order=True).to_list(),
        table=[
            word_column("phase", values["phase"]),
            word_column("way", values["series"]),
            number_column("context depth", values["depth"], "tokens"),
            number_column("throughput", values["rate"], "tokens/s"),
            number_column("95% interval", map(span_text, values["table_low"], values["table_high"]), "tokens/s"),
        ],
        keys=ways.keys(values["way"]),
        own_axes=("x", "y"),
    )


def _work_beside(axis: str, rows: pl.DataFrame) -> pl.Series:
    """Return what each row runs by what varies beside an axis; null where nothing does."""
    axes = [each for each in MODEL_AND_WORK if each != axis and rows[each].n_unique() > 1]
    return pl.Series([workload_name(row, axes) or None for row in rows.to_dicts()], dtype=pl.String)


def _phase(rows: pl.DataFrame, phase: str, rate: str) -> pl.DataFrame:
    """Return a row for each configuration, with its way and work, the depth left out, as one series."""
    return (
        rows.with_columns(work=_work_beside("context_depth", rows))
        .filter(pl.col(rate).is_not_null() & ~pl.col("output_differs"))
        .with_columns(
            panel=pl.concat_str(pl.lit(phase), "work", separator=", ", ignore_nulls=True),
            series=pl.concat_str("way", "work", separator=", ", ignore_nulls=True),
        )
        .select(
            "configuration",
            "way",
            "panel",
            "series",
            phase=pl.lit(phase),
            depth="context_depth",
            rate=rate,
            low=_end(rate, "low", "panel"),
            high=_end(rate, "high", "panel"),
            table_low=f"{rate}_low",
            table_high=f"{rate}_high",
        )
        .sort("depth", maintain_order=True)
    )


def _depth_title(values: pl.DataFrame, data: ReportData) -> str:
    """Return the largest change from the least depth to the greatest that its interval bears."""
    series = values.partition_by("phase", "series", maintain_order=True)
    error = (1 - CONFIDENCE) / len(series)  # Bonferroni: the title picks the largest
    contrast_in = {phase: contrasts(data, rate) for phase, rate in _RATES.items()}
    changes: list[tuple[tuple[dict[str, Any], int], Interval]] = []
    for each in series:
        first, last = each.row(0, named=True), each.row(-1, named=True)
        ratio = contrast_in[first["phase"]](last, first).ratio
        if ratio is not None:
            changes.append(((first, last["depth"]), interval(ratio, error)))
    if not changes:
        return "Throughput by context depth; one round bears no interval, so no change is established"
    largest = largest_change(changes)
    if largest is None:
        return "With a longer context, throughput changes by no more than noise"
    (least, greatest), change = largest
    times = f"{_VERBS[least['phase']]} has {significant(change.estimate)}× the throughput"
    return f"After {greatest} tokens, {times} that it has after {least['depth']} ({least['series']})"


def _depth_spec(ways: Ways, *, has_intervals: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": "throughput (tokens/s)", "scale": alt.Scale(zero=True)}
    y = alt.Y("rate:Q", **axis)
    base = alt.Chart().encode(x=alt.X("depth:Q", title="context depth (tokens)"), color=ways.colour())
    line = base.mark_line(strokeWidth=1.8).encode(y=y, strokeDash=ways.dashes())
    interval = base.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q", **axis), y2="high:Q")
    tooltip = tooltips(("depth:Q", "tokens before"), ("rate:Q", "tokens/s", ".4~r"))
    mark = base.mark_point(size=50, filled=True, opacity=1).encode(y=y, shape=ways.shape(), tooltip=tooltip)
    return panel(line, *((interval,) if has_intervals else ()), mark, height=_DEPTH_HEIGHT)


def kinds_chart(found: Mapping[str, ReportData]) -> Chart | None:
    """Return the chart of tokens a second by way and kind, or None where nothing was measured."""
    its_tokens = pl.col("output_tokens_per_second")
    # Intervals are those of the time, in which each sample has the same tokens.
    low, high = (its_tokens * pl.col(END_TO_END) / pl.col(f"{END_TO_END}_{end}") for end in ("high", "low"))
    frames = [
        data.rows.drop_nulls(END_TO_END).select(
            "way", "workload", tokens=its_tokens, low=low, high=high, kind=pl.lit(kind)
        )
        for kind, data in found.items()
        if f"{END_TO_END}_low" in data.rows.columns
    ]
    if not frames or (values := pl.concat(frames)).is_empty():
        return None
    values = values.with_columns(within(pl.col("low", "high"), pl.col("tokens")).name.prefix("drawn_"))
    kinds = Ways(list(found), field="kind")
    ways = list(dict.fromkeys(way for data in found.values() for way in data.ways))
    workloads = list(dict.fromkeys(each for data in found.values() for each in data.workloads))
    x: dict[str, Any] = {"title": "tokens a second, end to end", "axis": alt.Axis(grid=True)}
    told = [("tokens:Q", "tokens/s", ".4~r"), ("low:Q", "95% interval from", ".4~r"), ("high:Q", "to", ".4~r")]
    base = alt.Chart().encode(
        y=Ways(ways).rows(values["way"]), color=kinds.colour(), tooltip=tooltips(("kind:N", "kind"), *told)
    )
    spans = base.mark_rule(strokeWidth=2).encode(x=alt.X("drawn_low:Q", **x), x2="drawn_high:Q")
    dots = base.mark_point(size=60, filled=True, opacity=1).encode(x=alt.X("tokens:Q", **x), shape=kinds.shape())
    has_intervals = values["low"].is_not_null().any()  # one round has none
    return Chart(
        title="Tokens a second on each kind of machine",
        spec=panel(*((spans,) if has_intervals else ()), dots, height=alt.Step(ROW_PIXELS)),
        values=values,
        panels=shown_names(workloads, values["workload"]),
        table=[
            *(word_column(name, values[name]) for name in ("workload", "way", "kind")),
            number_column("tokens", values["tokens"], "1/s"),
            number_column("95% interval", map(span_text, values["low"], values["high"]), "1/s"),
        ],
        keys=kinds.keys(values["kind"], are_lines=False),
    )
