"""Each formula, and the statistics of each configuration and metric, worked out by hand."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hfbench.core.record import Record
from hfbench.tables import summary
from hfbench.tables.metrics import FORMULAS, INTER_TOKEN_GAPS, METRICS
from tests.tables.hand_records import POINT, failed_record, observed, ok_record, point, tables_of, unobserved

PROMPT = {"batch_size": 2, "requests": 2, "prompt_tokens": 20, "new_tokens": 6, "end_to_end_seconds": 1.5}
# Two requests: first tokens at 0.2 and 0.6; mean gaps (0.8 - 0.2) / 2 = 0.3 and (1.0 - 0.6) / 2 = 0.2.
REQUESTS = {**PROMPT, "token_seconds": [[0.2, 0.4, 0.8], [0.6, 0.7, 1.0]]}
ONE_TOKEN = {**PROMPT, "token_seconds": [[0.5]]}
# Three requests of 2, 3 and 1 new tokens, two at a time: the third begins where the first ended.
UNEQUAL = {**PROMPT, "requests": 3, "prompt_tokens": 17, "token_seconds": [[0.2, 0.4], [0.2, 0.5, 0.9], [0.6]]}
ITERATIONS = (
    {**PROMPT, "token_seconds": [[0.5, 0.6, 0.8, 1.1]]},  # one list for a batch of 2 rows: gaps 0.1, 0.2, 0.3
    REQUESTS,
    UNEQUAL,
    {**UNEQUAL, "batch_size": 4, "token_seconds": [[0.2, 0.7], [0.2, 0.5, 0.9], [0.6]]},
    ONE_TOKEN,
    {**PROMPT, "new_tokens": 2, "token_seconds": [[0.5], [0.9]]},
    {**PROMPT, "token_seconds": [[0.5, 0.5]]},  # in one step
    {**PROMPT, "token_seconds": []},  # unobserved
    # One row, drafted for: 2 tokens in the first step, then 3 at once, and 1.
    {**PROMPT, "requests": 1, "prompt_tokens": 10, "token_seconds": [[0.5, 0.5, 0.8, 0.8, 0.8, 1.1]]},
    # The second of two requests arrives when the first has two tokens.
    {**PROMPT, "token_seconds": [[0.3, 0.4, 0.5], [0.6, 0.8, 1.1]], "arrival_seconds": [0.0, 0.4]},
    {**UNEQUAL, "batch_size": 4},  # of which the cache has no room for three at a time
)
TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "batch_size": pl.Int64,
    "requests": pl.Int64,
    "prompt_tokens": pl.Int64,
    "new_tokens": pl.Int64,
    "end_to_end_seconds": pl.Float64,
    "token_seconds": pl.List(pl.List(pl.Float64)),
    "arrival_seconds": pl.List(pl.Float64),
}


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("time_to_first_token_seconds", [0.5, 0.4, 0.2, 0.2, 0.5, 0.7, 0.5, None, 0.5, 0.25, 0.2]),
        # 0.6 / 3, where dividing by n = 4 would give 0.15; of 0.2 and 0.7 / 2; 0.6 / 4 tokens after the first step.
        ("inter_token_seconds", [0.2, 0.25, 0.275, 0.425, None, None, None, None, 0.15, (0.1 + 0.25) / 2, 0.275]),
        # 2 rows of 3 in 0.6 s; 2 + 2 tokens from 0.2 s to 1.0 s; 1 + 2 + 0, from 0.2 to 0.9 s.
        ("decode_tokens_per_second", [10.0, 5.0, 3 / 0.7, 3 / 0.7, None, None, None, None, 4 / 0.6, 5.0, 3 / 0.7]),
        # 2 rows of 10 tokens in 0.5 s, and until the last one's 0.6 s; the third of three waits while others decode.
        ("prefill_tokens_per_second", [40.0, 20 / 0.6, None, 17 / 0.6, 40.0, 20 / 0.9, 40.0, None, 20.0, None, None]),
        ("output_tokens_per_second", [6 / 1.5] * 5 + [2 / 1.5] + [6 / 1.5] * 5),
        # Each request's last token less its arrival, the median; none of rows in step, which are one list.
        ("request_latency_seconds", [None, 0.9, 0.6, 0.7, None, 0.7, None, None, None, 0.6, 0.6]),
    ],
)
def test_formulas_by_hand(metric: str, values: list[float | None]) -> None:
    frame = pl.DataFrame(list(ITERATIONS), schema=TYPES)
    at_start = pl.col("token_seconds").list.eval(pl.lit(0.0))
    iterations = frame.with_columns(pl.col("arrival_seconds").fill_null(at_start))
    found = iterations.select(result=FORMULAS[metric])["result"].to_list()
    assert found == [None if value is None else pytest.approx(value) for value in values]


def test_gaps_stay_with_their_request() -> None:
    gaps = pl.DataFrame([REQUESTS, ONE_TOKEN], schema=TYPES).select(gaps=INTER_TOKEN_GAPS)["gaps"].to_list()
    assert gaps == [[pytest.approx([0.2, 0.4]), pytest.approx([0.1, 0.3])], [[]]]


def test_gaps_of_tokens_that_come_together_are_of_steps() -> None:
    gaps = pl.DataFrame(ITERATIONS[-3:-2], schema=TYPES).select(gaps=INTER_TOKEN_GAPS)["gaps"].to_list()
    assert gaps == [[pytest.approx([0.3, 0.3])]]


def _rows(folder: Path, *records: Record) -> dict[str, dict[str, Any]]:
    """The summary of one configuration, by metric."""
    rows = tables_of(folder, *records).summary
    assert rows.select(pl.col("attn_implementation").n_unique()).item() == 1
    return {row["metric"]: row for row in rows.to_dicts()}


def _lasting(end_to_end: float, phase: str = "sample") -> Any:
    return observed([0.5, 0.6], end_to_end=end_to_end, phase=phase)


def test_samples_of_all_rounds_together(tmp_path: Path) -> None:
    rounds = [
        ok_record(POINT, _lasting(90.0, "first"), _lasting(80.0, "warmup"), *map(_lasting, (1.0, 2.0, 3.0))),
        ok_record(point(round=2), *map(_lasting, (5.0, 9.0))),
    ]
    row = _rows(tmp_path, *rounds)["end_to_end_seconds"]
    assert (row["rounds"], row["samples"]) == (2, 5)
    assert (row["median"], row["mean"], row["min"], row["max"]) == (3.0, 4.0, 1.0, 9.0)
    # Deviations from 4: 9 + 4 + 1 + 1 + 25 = 40, over n - 1 = 4.
    assert row["std"] == pytest.approx(10**0.5)
    assert row["p95"] == pytest.approx(5 + 0.8 * 4)  # place 0.95 x 4 = 3.8 among 1, 2, 3, 5, 9
    assert row["p5"] == pytest.approx(1.2)
    assert row["round_medians"] == [2.0, 7.0]


def test_rounds_that_are_not_ok_do_not_count(tmp_path: Path) -> None:
    half_done = failed_record(point(round=2), "exceeded", "timed_out", iterations=[_lasting(100.0)], load_seconds=9.0)
    rows = _rows(tmp_path, ok_record(POINT, _lasting(1.0)), half_done)
    assert (rows["end_to_end_seconds"]["rounds"], rows["end_to_end_seconds"]["max"]) == (1, 1.0)
    assert rows["load_seconds"]["max"] == 0.5


def test_unobserved_iterations_are_a_metric_of_their_own(tmp_path: Path) -> None:
    rows = _rows(tmp_path, ok_record(POINT, _lasting(2.0), unobserved(1.0), unobserved(1.5)))
    assert (rows["end_to_end_seconds"]["samples"], rows["end_to_end_seconds"]["median"]) == (1, 2.0)
    unobserved_row = rows["end_to_end_unobserved_seconds"]
    assert (unobserved_row["samples"], unobserved_row["median"]) == (2, 1.25)
    assert rows["time_to_first_token_seconds"]["samples"] == 1


def test_percentiles_are_of_the_single_requests_of_a_round(tmp_path: Path) -> None:
    # Eleven requests, whose first tokens come after 0.0, 0.1 … 1.0 s: place 0.9 x 10 is the tenth of them.
    first = [[tenths / 10, tenths / 10 + 1] for tenths in range(8)]
    second = [[tenths / 10, tenths / 10 + 3] for tenths in range(8, 11)]
    fast = ok_record(point(continuous_batching=True), observed(*first), observed(*second))
    other = point(continuous_batching=True, round=2)
    slow = ok_record(other, observed(*([second, second + 1] for second in range(11))))
    rows = _rows(tmp_path, fast, slow)
    found = {percent: rows[f"time_to_first_token_p{percent}_seconds"]["round_medians"] for percent in (50, 90, 95, 99)}
    assert found == {
        50: pytest.approx([0.5, 5.0]),
        90: pytest.approx([0.9, 9.0]),
        95: pytest.approx([0.95, 9.5]),
        99: pytest.approx([0.99, 9.9]),
    }
    assert rows["time_to_first_token_p90_seconds"]["estimate"] == pytest.approx(4.95), "each round has one"
    # Eight gaps of 1 s and three of 3 s: place 7 of 0 … 10 is still of the eight, and place 9.5 is not.
    assert rows["inter_token_gap_p95_seconds"]["round_medians"] == pytest.approx([3.0, 1.0])
    assert rows["inter_token_gap_p50_seconds"]["round_medians"] == pytest.approx([1.0, 1.0])


def test_gaps_are_all_gaps_of_all_requests(tmp_path: Path) -> None:
    requests = observed([0.2, 0.4, 0.8], [0.6, 0.7, 1.0])
    record = ok_record(point(continuous_batching=True), requests, observed([0.1, 0.6], [0.2, 1.2]))
    rows = _rows(tmp_path, record)
    gaps = rows["inter_token_gap_seconds"]  # 0.2, 0.4, 0.1, 0.3, 0.5, 1.0
    assert (gaps["samples"], gaps["median"], gaps["max"]) == (6, pytest.approx(0.35), pytest.approx(1.0))
    assert rows["inter_token_seconds"]["samples"] == 2


def test_what_is_measured_once_has_a_value_a_round(tmp_path: Path) -> None:
    records = [
        ok_record(point(round=n), load_seconds=n, first_call_seconds=10.0 * n, memory={"peak_bytes": 1000 * n})
        for n in (1, 2, 3)
    ]
    rows = _rows(tmp_path, *records)
    assert [rows["load_seconds"][name] for name in ("samples", "median", "max")] == [3, 2.0, 3.0]
    assert rows["first_call_seconds"]["median"] == 20.0
    assert (rows["peak_memory_bytes"]["median"], rows["peak_memory_bytes"]["unit"]) == (2000.0, "bytes")


def _metered(round_number: int, watts: float) -> dict[str, Any]:
    """Readings of the processor's energy counter, one a second, around a sample from 1 s to 12 s."""
    seconds = [float(second) for second in range(14)]
    host = {"logical_cores": 2, "series": {"cpu_energy_joules": [500 * round_number + watts * at for at in seconds]}}
    return {"time_seconds": seconds, "host": host, "devices": []}


def test_energy_and_compile_time_have_a_value_a_round(tmp_path: Path) -> None:
    # 11 s with 4 new tokens each time: at 40, 80 and 400 W that is 110, 220 and 1100 J a token.
    powers, compiling = (40.0, 80.0, 400.0), (14.0, 15.0, 19.0)
    records = [
        ok_record(
            point(round=number, compile_mode="default"),
            observed([0.5, 0.6, 0.7, 0.8], end_to_end=11.0),
            monitoring=_metered(number, watts),
            effective={"compilation": {"graphs": 1, "seconds": seconds}},
        )
        for number, watts, seconds in zip((1, 2, 3), powers, compiling, strict=True)
    ]
    rows = _rows(tmp_path, *records)
    energy, compilation = rows["energy_joules_per_token"], rows["compile_seconds"]
    assert energy["round_medians"] == pytest.approx([110, 220, 1100])
    assert (energy["estimate"], energy["max"], energy["unit"]) == (pytest.approx(220), pytest.approx(1100), "J/token")
    assert (compilation["estimate"], compilation["mean"], compilation["unit"]) == (15.0, 16.0, "s")
    assert compilation["round_medians"] == [14, 15, 19]
    for row in (energy, compilation):
        # A decision about either is made of its rounds; the table gives no interval of what has one value a round.
        assert (row["rounds"], row["samples"], row["low"], row["high"]) == (3, 3, None, None)
        assert not row["higher_is_better"]


def test_rounds_without_energy_or_compilation_do_not_count(tmp_path: Path) -> None:
    metered = ok_record(POINT, observed([0.5, 0.6], end_to_end=11.0), monitoring=_metered(1, 2.0))
    rows = _rows(tmp_path, metered, ok_record(point(round=2), _lasting(1.0)))
    assert (rows["energy_joules_per_token"]["rounds"], rows["energy_joules_per_token"]["median"]) == (1, 11.0)
    assert "compile_seconds" not in rows


def test_it_does_not_matter_how_many_are_summarised_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        ok_record(point(round=number, batch_size=size), _lasting(size + number / 10), unobserved(size))
        for number in (1, 2, 3)
        for size in (1, 2, 4, 8, 16)
    ]
    tables = tables_of(tmp_path, *records, failed_record(point(model="none"), "no"))
    monkeypatch.setattr(summary, "_AT_ONCE", 2)
    assert_frame_equal(summary.summary_table(tables.samples, tables.points), tables.summary)


def test_metrics_without_a_value_have_no_row(tmp_path: Path) -> None:
    rows = _rows(tmp_path, ok_record(point(max_new_tokens=1), observed([0.5])))
    assert "time_to_first_token_seconds" in rows
    absent = {"inter_token_seconds", "inter_token_gap_seconds", "decode_tokens_per_second", "peak_memory_bytes"}
    assert not rows.keys() & (absent | {"end_to_end_unobserved_seconds", "compile_seconds", "energy_joules_per_token"})


def test_rows_follow_the_sweep_and_the_metrics(tmp_path: Path) -> None:
    points = [point(attn_implementation="sdpa"), point(attn_implementation="eager")]
    rows = tables_of(tmp_path, *(ok_record(each, _lasting(1.0)) for each in points)).summary
    assert rows["attn_implementation"].unique(maintain_order=True).to_list() == ["sdpa", "eager"]
    order = [metric.name for metric in METRICS]
    metrics = rows.filter(attn_implementation="sdpa")["metric"].to_list()
    assert metrics == sorted(metrics, key=order.index)
    directions = dict(zip(rows["metric"], rows["higher_is_better"], strict=True))
    assert directions["decode_tokens_per_second"]
    assert not directions["end_to_end_seconds"]


STEADY = [1.00, 1.02, 0.98, 1.01, 0.99, 1.00, 1.02, 0.98]
# Two rounds of one value each, 0.99 and 1.01. A resample's median is 0.01 below or above 1.00 in a quarter of the cases
# each: the standard error is sqrt(2 · 0.01² / 4). Student's t with one degree of freedom is 12.706.
MARGIN = 12.706 * (2 * 0.01**2 / 4) ** 0.5


@pytest.mark.parametrize(
    ("rounds", "told"),
    [
        ([[1.0]], {"median": 1.0, "std": None, "p99": 1.0}),
        ([[1 + index / 100 for index in range(101)]], {"p5": 1.05, "median": 1.5, "p95": 1.95, "p99": 1.99}),
        ([[1.0, 1.0, 1.0, 1.0], [3.0], [4.0]], {"estimate": 3.0, "median": 1.0, "round_medians": [1.0, 3.0, 4.0]}),
        ([[0.99], [1.01]], {"estimate": 1.0, "low": 2.71828**-MARGIN, "high": 2.71828**MARGIN}),
        ([STEADY], {"estimate": 1.0, "low": None, "high": None, "cv_between": None, "cv_within": 0.0160}),
        # Medians 1 and 2: mean 1.5, standard deviation sqrt(0.5). Within: 0.1 / 1 and 0.4 / 2, with n - 1 = 2 each.
        (
            [[0.9, 1.0, 1.1], [1.6, 2.0, 2.4]],
            {"cv_between": 0.5**0.5 / 1.5, "cv_within": ((0.1**2 + 0.2**2) / 2) ** 0.5},
        ),
        ([[*STEADY, 9.0], STEADY], {"outliers": 1, "max": 9.0, "samples": 17}),
        # Rising by 0.1 over a median of 1.05.
        ([STEADY, [1.0 + index / 100 for index in range(11)]], {"drifting_rounds": 1, "largest_drift": 0.1 / 1.05}),
        ([STEADY, STEADY], {"drifting_rounds": 0, "largest_drift": None}),
        ([[1.0, 2.0, 1.01, 2.01, 0.99, 1.99] * 5], {"bimodal": True, "lower_mode": 1.0, "upper_mode": 2.0}),
        ([STEADY * 4], {"bimodal": False, "lower_mode": None}),
    ],
)
def test_what_is_told_of_rounds_with_these_latencies(
    tmp_path: Path, rounds: list[list[float]], told: dict[str, Any]
) -> None:
    numbered = enumerate(rounds, start=1)
    rows = _rows(tmp_path, *(ok_record(point(round=n), *map(_lasting, values)) for n, values in numbered))
    row = rows["end_to_end_seconds"]
    exact = {name: row[name] for name, value in told.items() if not isinstance(value, float)}
    assert exact == {name: value for name, value in told.items() if not isinstance(value, float)}
    for name, value in told.items():
        if isinstance(value, float):
            assert row[name] == pytest.approx(value, rel=0.005)
    # What has one value a round has an estimate only.
    load = rows["load_seconds"]
    assert load["estimate"] == 0.5
    assert [load[name] for name in ("low", "high", "outliers", "bimodal")] == [None, None, None, None]
