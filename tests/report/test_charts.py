"""What the charts are drawn from and what their titles claim, by hand, and colours that everybody tells apart."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from hfbench.core.record import Record
from hfbench.report.charts.capacity import memory_chart, roofline_chart
from hfbench.report.charts.chart import WAY_COLOURS
from hfbench.report.charts.samples import gaps_along, rounds_chart, slowdown, token_latency_chart
from hfbench.report.charts.speed import speed_chart
from hfbench.report.charts.startup import PHASES, middle_rounds, startup_chart, startup_rounds
from hfbench.report.charts.throughput import depth_chart, frontier_chart, frontier_values, load_chart
from hfbench.report.html import CHARTS
from tests.conftest import ROOT, some
from tests.report.report_records import CEILINGS, data_of, measured, rounds_of, sweep_records
from tests.tables.hand_records import DENSE, failed_record, observed, ok_record, point


def test_every_chart_draws_a_real_sweep_with_a_title_and_units(tmp_path: Path) -> None:
    records = sweep_records(
        attn_implementation=["eager", "sdpa"],
        batch_size=[1, 4],
        context_depth=[0, 1024],
        request_rate=["inf", "2", "4"],
        iterations=4,
    )
    data = data_of(tmp_path, records, CEILINGS)
    for chart in (some(draw(data)) for draw in CHARTS.values()):
        assert chart.title
        assert not chart.title.endswith(".")
        assert chart.values.height
        assert set(chart.panels) == set(chart.values[chart.panel_field])
        titles = _axis_titles(chart.spec)
        assert any("(" in title or "seconds" in title for title in titles), titles  # units
        assert len(chart.table[0].texts)


def _axis_titles(spec: dict[str, Any]) -> set[str]:
    layers = spec.get("layer", [spec])
    channels = [layer["encoding"].get(channel, {}) for layer in layers for channel in ("x", "y")]
    return {str(channel["title"]) for channel in channels if channel.get("title")}


DECODED = {"frontier", "rounds", "tokens"}
ONE_TOKEN = [ok_record(point(round=number, max_new_tokens=1), observed([0.5])) for number in (1, 2)]


@pytest.mark.parametrize(
    ("records", "charts"),
    [
        ([failed_record(point(), "no")], set(CHARTS)),
        (
            sweep_records(batch_size=[1], iterations=2),
            {"roofline", "shares", "speed", "depth", "load"},
        ),  # without ceilings
        (ONE_TOKEN, set(CHARTS) - {"rounds"}),
        ([measured(point(context_depth=512, batch_size=size), 1.0) for size in (1, 2)], set(CHARTS) - DECODED),
    ],
    ids=["nothing measured", "one way and no ceilings", "no second token", "one depth and no timeline"],
)
def test_what_is_not_known_is_not_drawn(tmp_path: Path, records: list[Record], charts: set[str]) -> None:
    data = data_of(tmp_path, records)
    assert {name for name, draw in CHARTS.items() if draw(data) is None} == charts


def _under_load(rate: str, wait: float) -> list[Record]:
    """Rounds in which three requests arrive one by one at this rate, and wait so many seconds for their first token."""
    arrivals = [number / float(rate) for number in range(3)]
    iteration = replace(
        observed(*([arrival + wait, arrival + wait + 0.2] for arrival in arrivals)), arrival_seconds=tuple(arrivals)
    )
    asked = point(request_rate=rate, continuous_batching=True, batch_size=3, max_new_tokens=2)
    return [ok_record(replace(asked, round=number), iteration, iteration, iteration) for number in (1, 2, 3)]


def test_the_knee_is_named_where_waiting_outgrows_the_load(tmp_path: Path) -> None:
    waits = {"2": 0.10, "4": 0.11, "10": 0.14, "16": 1.0}  # in no order of text
    data = data_of(tmp_path, [record for rate, wait in waits.items() for record in _under_load(rate, wait)])
    chart = some(load_chart(data))
    assert chart.values["rate"].to_list() == [2, 4, 10, 16]
    assert chart.values["ms"].to_list() == pytest.approx([100, 110, 140, 1000])
    # Until the last request, which arrives after 2 / rate seconds, has its two tokens: six tokens in all.
    assert chart.values["tokens"].to_list() == pytest.approx(
        [6 / (2 / float(rate) + wait + 0.2) for rate, wait in waits.items()]
    )
    assert chart.values["is_knee"].to_list() == [False, False, True, False]
    assert chart.title.startswith("The knee is at 10 requests/s, with 11.1 tok/s and a p95 TTFT of 140 ms")


def test_without_a_bend_no_knee_is_named(tmp_path: Path) -> None:
    data = data_of(tmp_path, [record for rate in ("2", "4", "6") for record in _under_load(rate, float(rate) / 10)])
    assert some(load_chart(data)).title == "No knee among the request rates measured, 2, 4, 6 requests/s"


def test_the_roofline_by_hand(tmp_path: Path) -> None:
    # 5 prompt tokens and 4 new ones of DENSE: a step needs 972 FLOPs and 1140 bytes and takes 0.1 s; a prefill needs
    # 2540 FLOPs and 1100 bytes and takes 0.5 s (`tests/tables/test_roofline.py`).
    configuration = point(batch_size=1, sequence_length=5, max_new_tokens=4)
    record = ok_record(configuration, observed([0.5, 0.6, 0.7, 0.8]), accounting=DENSE)
    ceilings = {"read_bytes_per_second_by_size": {"1": 20_000.0}, "matmul_flops_per_second": {"bfloat16": 100_000.0}}
    chart = some(roofline_chart(data_of(tmp_path, [record], ceilings)))
    values = {kind: rows for (kind,), rows in chart.values.group_by("kind")}
    assert values["decode"].select("intensity", "flops").row(0) == pytest.approx((972 / 1140, 9720), rel=1e-4)
    assert values["prefill"].select("intensity", "flops").row(0) == pytest.approx((2540 / 1100, 5080), rel=1e-4)
    # The slope of 20 kB/s meets the level of 100 kFLOP/s at 5 FLOPs a byte.
    ends = values["roof"].select("intensity", "flops").rows()
    assert ends == [
        pytest.approx((972 / 2280, 20_000 * 972 / 2280), rel=1e-4),
        pytest.approx((5, 100_000)),
        pytest.approx((10, 100_000)),
    ]


def test_each_dtype_has_its_roof_and_without_a_rate_of_products_it_is_the_slope(tmp_path: Path) -> None:
    records = sweep_records(dtype=["bfloat16", "float32"], batch_size=[1], iterations=2)
    roofs = some(roofline_chart(data_of(tmp_path, records, CEILINGS))).values.filter(kind="roof")
    assert sorted(roofs.group_by("way").agg(pl.col("flops").max())["flops"]) == [4.0e11, 1.1e12]
    ceilings = {**CEILINGS, "matmul_flops_per_second": {"bfloat16": None}}
    ends = some(roofline_chart(data_of(tmp_path / "slope", records[::2], ceilings))).values.filter(kind="roof")
    assert (ends["flops"] / ends["intensity"]).to_list() == pytest.approx([3.4e10] * 2, rel=1e-4)


@pytest.mark.parametrize(
    ("rounds", "title"),
    [
        ({"eager": [2.0], "sdpa": [1.0]}, "one round bears no interval, so none of these differences is established"),
        (
            {"eager": [1.0, 1.01, 1.0, 1.02], "sdpa": [1.02, 1.0, 1.01, 1.0]},
            "No way is faster or slower than its baseline by more than noise, over all comparisons together",
        ),
    ],
)
def test_what_no_interval_bears_is_not_claimed(tmp_path: Path, rounds: dict[str, list[float]], title: str) -> None:
    chart = some(speed_chart(data_of(tmp_path, rounds_of(**rounds))))
    assert chart.title.endswith(title)
    assert chart.values["told"].to_list() == [False]
    assert (chart.table[-1].texts == ("–",)) is (len(rounds["sdpa"]) == 1)


def test_a_plain_difference_is_named_with_its_size(tmp_path: Path) -> None:
    records = [
        measured(point(round=number, attn_implementation=name, batch_size=size), seconds * size, seconds * size)
        for number in (1, 2, 3, 4)
        for size in (1, 4)
        for name, seconds in (("eager", 2.0 + number / 1000), ("sdpa", 1.0))
    ]
    chart = some(speed_chart(data_of(tmp_path, records)))
    assert chart.title in {f"sdpa is 2.00× as fast as eager with batch {size}" for size in (1, 4)}
    assert chart.values["told"].to_list() == [True, True]


def test_an_interval_over_many_orders_leaves_the_axis_readable(tmp_path: Path) -> None:
    data = data_of(tmp_path, rounds_of(eager=[1.0, 1.0], sdpa=[0.5, 3.0]))
    (row,) = some(speed_chart(data)).values.to_dicts()
    assert row["low"] < 0.01 < 100 < row["high"]  # what the table and the tooltip say
    assert (row["drawn_low"], row["drawn_high"]) == pytest.approx((row["speed"] / 2, row["speed"] * 2), rel=1e-3)
    frontier = some(frontier_chart(data)).values
    assert frontier["ms_high"].max() <= 2 * frontier["ms"].max()  # type: ignore[operator]


def test_the_frontier_is_that_of_pareto() -> None:
    latency = [0.020, 0.010, 0.030, 0.030, 0.025]
    rate = [100.0, 50.0, 300.0, 250.0, 90.0]
    measured = {"inter_token_seconds": latency, "decode_tokens_per_second": rate}
    limits = {f"{name}_{end}": pl.lit(None, pl.Float64) for name in measured for end in ("low", "high")}
    rows = pl.DataFrame({"name": list("vwxyz"), "batch_size": [2, 1, 8, 7, 3], **measured}).with_columns(
        way=pl.lit("a"), scene=pl.lit(""), output_differs=False, **limits
    )
    values = frontier_values(rows)
    # 30 ms for 250 is behind 30 ms for 300; 25 ms for 90 is behind 20 ms for 100.
    assert values.filter("frontier")["name"].to_list() == ["w", "v", "x"]
    wrong = frontier_values(rows.with_columns(output_differs=pl.col("name") == "x"))
    assert wrong.filter("frontier")["name"].to_list() == ["w", "v", "y"]


def test_the_frontier_says_what_was_measured_at_the_ends(tmp_path: Path) -> None:
    # 2 rows and 1 gap of 0.5 s: 4 tokens/s; 8 rows and 1 gap of 1 s: 8 tokens/s.
    records = [ok_record(point(batch_size=size), observed([0.5, end])) for size, end in ((2, 1.0), (8, 1.5))]
    title = some(frontier_chart(data_of(tmp_path, records))).title
    assert title.startswith("sdpa decodes 4.00 tokens/s at batch 2, 8.00 tokens/s at batch 8, with 500 ms and 1000 ms")


def test_noise_between_rounds_is_that_of_their_medians(tmp_path: Path) -> None:
    # Medians 1.00, 1.02 and 1.06: 6% over the middle one, 1.02.
    records = [measured(point(round=n), *(m - 0.01, m, m + 0.01)) for n, m in ((1, 1.0), (2, 1.02), (3, 1.06))]
    chart = some(rounds_chart(data_of(tmp_path, records)))
    assert chart.title == "The medians of the rounds differ by 5.9% (sdpa)"
    assert chart.values.filter(kind="sample").height == 9
    assert chart.values.filter(kind="median")["seconds"].to_list() == [1.0, 1.02, 1.06]


def test_large_rounds_keep_their_extremes(tmp_path: Path) -> None:
    seconds = [1 + index / 1000 for index in range(200)]
    chart = some(rounds_chart(data_of(tmp_path, [measured(point(), *seconds)])))
    shown = chart.values.filter(kind="sample")["seconds"]
    assert shown.len() == 40
    assert (shown.min(), shown.max()) == (1.0, 1.199)
    assert chart.words["most_samples"] == 40
    assert chart.title == "One round each: how far processes differ cannot be seen here"


def test_memory_is_shown_in_one_unit_with_every_round(tmp_path: Path) -> None:
    records = [
        ok_record(point(round=number, batch_size=size), observed([0.1, 0.2]), memory={"peak_bytes": peak * 2**20})
        for number in (1, 2)
        for size, peak in ((1, 500 + number), (4, 700 + number))
    ]
    chart = some(memory_chart(data_of(tmp_path, records)))
    assert chart.title == "Peak memory: 502 MiB (batch 1) to 702 MiB (batch 4)"
    assert chart.values.height == 6


def test_a_way_keeps_its_colour_where_another_fails(tmp_path: Path) -> None:
    both = sweep_records(attn_implementation=["eager", "sdpa"], batch_size=[1], iterations=2)
    failed = [failed_record(eager.configuration, "no") for eager in both[::2]]
    scales = []
    for folder, records in (("both", both), ("one", [*failed, *both[1::2]])):
        chart = some(memory_chart(data_of(tmp_path / folder, records)))
        scale = chart.spec["layer"][0]["encoding"]["color"]["scale"]
        scales.append(dict(zip(scale["domain"], scale["range"], strict=True)))
    assert scales[0] == scales[1] == {"eager": "var(--way-0)", "sdpa": "var(--way-1)"}


def test_continuous_batching_has_a_list_of_times_for_each_request(tmp_path: Path) -> None:
    data = data_of(tmp_path, sweep_records(continuous_batching=[False, True], batch_size=[4], iterations=3))
    assert set(some(token_latency_chart(data)).values["way"]) == {"static", "continuous"}
    assert startup_chart(data) is not None


def test_throughput_by_depth_is_compared_within_a_way_and_a_workload(tmp_path: Path) -> None:
    # 2 rows: a gap of 0.5 s is 4 tokens/s, one of 0.25 s 8 tokens/s. The prefill takes 0.5 s at all depths.
    gaps = {("sdpa", 0): 0.25, ("sdpa", 1024): 0.5, ("eager", 0): 0.5}
    records = [
        ok_record(point(round=number, attn_implementation=way, context_depth=depth), *[observed([0.5, 0.5 + gap])] * 2)
        for number in (1, 2, 3)
        for (way, depth), gap in gaps.items()
    ]
    chart = some(depth_chart(data_of(tmp_path, records)))
    assert chart.title == "After 1024 tokens, decoding has 0.500× the throughput that it has after 0 (sdpa)"
    assert chart.panels == ["decode", "prefill"]
    rates = chart.values.select("panel", "way", "depth", "rate").rows()
    # 2 rows of 10 prompt tokens in 0.5 s: the context is no part of them.
    assert rates == [("decode", "sdpa", 0, 8.0), ("decode", "sdpa", 1024, 4.0)] + [
        ("prefill", "sdpa", depth, 40.0) for depth in (0, 1024)
    ]


def _started(number: int, first_token: float, compile_seconds: float | None = None) -> Record:
    """A round with 1 s before its import, 2 s in it, 3 s preparing, 4 s loading, 20 s in a call, 5 s checking."""
    timeline = {"import": 1.0, "prepare": 3.0, "load": 6.0, "first call": 10.0, "verify": 30.0, "warm-up": 35.0}
    call = observed([first_token, 19.0], phase="first")
    first = type(call)(**{**vars(call), "start_seconds": 10.5})
    compilation = {"compilation": {"graphs": 1, "seconds": compile_seconds}} if compile_seconds else {}
    record = ok_record(point(round=number), first, observed([0.1, 0.2]), effective=compilation)
    record.timeline = {**timeline, "sample": 41.0, "conclude": 50.0, "end": 51.0}
    return record


def _start(folder: Path, *records: Record) -> pl.DataFrame:
    data = data_of(folder, records)
    return startup_rounds(data.points, data.first_calls)


def test_the_phases_of_a_start_add_up_and_compiling_is_within_its_call(tmp_path: Path) -> None:
    (row,) = _start(tmp_path, _started(1, 0.5, compile_seconds=12.0)).to_dicts()
    phases = {name: row[name] for name in PHASES}
    assert list(phases.values()) == [1.0, 2.0, 3.0, 4.0, 8.0, 12.0, 5.0, 6.0]  # the call of 20 s, 12 s of it compiling
    assert row["first_token"] == 11.0
    assert sum(phases.values()) == 41.0
    (longer,) = _start(tmp_path, _started(1, 0.5, compile_seconds=99.0)).to_dicts()
    assert (longer["first call"], longer["compile"]) == (0.0, 20.0)


def test_the_middle_round_stands_for_all(tmp_path: Path) -> None:
    records = [_started(number, first_token) for number, first_token in enumerate((3.0, 1.0, 2.0, 9.0), start=1)]
    assert middle_rounds(_start(tmp_path, *records))["first_token"].to_list() == [12.5]
    assert (
        some(startup_chart(data_of(tmp_path, records))).title
        == "From the start of a process to its first token: 12.5 s (sdpa)"
    )


def _samples(*token_seconds: list[list[float]], rounds: Sequence[int] | None = None) -> pl.DataFrame:
    return pl.DataFrame({"round": rounds or [1] * len(token_seconds), "token_seconds": list(token_seconds)})


def test_gaps_stand_at_the_token_that_ends_them_over_samples_and_requests() -> None:
    # Two requests of one sample and one of another: the second token's gaps are 1, 2 and 3 s, the third's 4, 5 and 9 s.
    gaps = gaps_along(_samples([[1.0, 2.0, 6.0], [1.0, 3.0, 8.0]], [[0.5, 3.5, 12.5]]))
    assert gaps["token"].to_list() == gaps["last_token"].to_list() == [2, 3]
    assert gaps["median"].to_list() == [2.0, 5.0]
    assert gaps["low"].to_list() == pytest.approx([1.1, 4.1])
    assert gaps["high"].to_list() == pytest.approx([2.9, 8.6])


def test_long_sequences_are_joined_in_order() -> None:
    gaps = gaps_along(_samples([[float(token) for token in range(200)]]))
    # 199 gaps in places of 4.
    assert gaps.height == 50
    assert gaps["token"].to_list()[:2] == [2, 6]
    assert gaps["last_token"].to_list()[-1] == 200
    assert gaps["median"].unique().to_list() == [1.0]


def test_slowing_down_along_the_sequence_is_told_from_noise() -> None:
    def times(late: float) -> list[float]:
        gaps = [1.0] * 8 + [late] * 8
        return [sum(gaps[:index], 0.0) for index in range(17)]

    steady = some(slowdown(_samples(*([times(1.0)] for _ in range(3)), rounds=[1, 2, 3]), 0.95))
    slower = some(slowdown(_samples(*([times(late)] for late in (1.5, 1.51, 1.49)), rounds=[1, 2, 3]), 0.95))
    assert (steady.estimate, steady.low, steady.high) == (1.0, 1.0, 1.0)
    assert slower.estimate == pytest.approx(1.5)
    assert slower.low > 1.4
    assert slowdown(_samples([times(1.5)]), 0.95) is None  # one round
    assert slowdown(_samples([[0.0, 1.0, 3.0]], [[0.0, 1.0, 3.0]], rounds=[1, 2]), 0.95) is None  # two gaps
    # With an assistant eleven tokens came at once, twice: none begins in the first quarter.
    drafted = [0.1] * 11 + [0.2] * 11 + [0.3] * 10
    assert slowdown(_samples([drafted], [drafted], rounds=[1, 2]), 0.95) is None
    assert gaps_along(_samples([drafted]))["token"].to_list() == [12, 23]


def test_tokens_that_only_scatter_get_no_trend(tmp_path: Path) -> None:
    records = sweep_records(attn_implementation=["eager", "sdpa"], iterations=6, batch_size=[1])
    title = some(token_latency_chart(data_of(tmp_path, records))).title
    assert title == "Along the sequence, the time between tokens changes by no more than noise"


Floats = npt.NDArray[np.float64]
# G. M. Machado, M. M. Oliveira and L. A. F. Fernandes, A Physiologically-based Model for Simulation of Color Vision
# Deficiency, IEEE TVCG 15 (2009) 1291: severity 1.0, on linear RGB.
SIGHT = {
    "full": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
STYLE = (ROOT / "hfbench/report/style.css").read_text()


def _declared(name: str) -> list[str]:
    """The colours of this name in the order of the style sheet: those of the light page, then those of the dark one."""
    return re.findall(rf"--{name}(?:-\d+)?: (#[0-9a-f]{{6}});", STYLE)


LIGHT, DARK = _declared("way")[:WAY_COLOURS], _declared("way")[WAY_COLOURS:]
PAGES = list(zip((LIGHT, DARK), _declared("paper"), strict=True))


def _linear(colour: str) -> Floats:
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear: Floats = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear


def _lab(linear: Floats) -> Floats:
    """CIE L*a*b* of linear sRGB, white D65."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_each_page_has_the_colours_that_the_charts_name() -> None:
    assert len(LIGHT) == len(DARK) == WAY_COLOURS
    assert len(_declared("phase")) == 2 * len(PHASES)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("colours", "paper"), PAGES)
def test_two_ways_never_look_alike(colours: list[str], paper: str, sight: str) -> None:
    seen = [_lab(np.array(SIGHT[sight]) @ _linear(colour)) for colour in colours]
    # ΔE of 2.3 is just noticeable; marks of a few pixels need several times that.
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 15, paper


@pytest.mark.parametrize(("colours", "paper"), PAGES)
def test_marks_stand_out_from_the_page(colours: list[str], paper: str) -> None:
    """WCAG 2.2, criterion 1.4.11: a contrast of 3:1."""
    background = _linear(paper) @ [0.2126, 0.7152, 0.0722]
    for colour in colours:
        low, high = sorted((background, _linear(colour) @ [0.2126, 0.7152, 0.0722]))
        assert (high + 0.05) / (low + 0.05) >= 3, colour
