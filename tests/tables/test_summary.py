"""Statistics of each configuration and metric, worked out by hand."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hfbench.core.record import Record
from hfbench.tables import summary
from hfbench.tables.metrics import METRICS
from tests.tables.hand_records import POINT, failed_record, observed, ok_record, point, tables_of, unobserved


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


def test_percentiles_of_a_known_distribution(tmp_path: Path) -> None:
    iterations = [_lasting(1 + index / 100) for index in range(101)]
    row = _rows(tmp_path, ok_record(POINT, *iterations))["end_to_end_seconds"]
    assert [row[name] for name in ("p5", "median", "p95", "p99")] == pytest.approx([1.05, 1.5, 1.95, 1.99])


def test_rounds_that_are_not_ok_do_not_count(tmp_path: Path) -> None:
    half_done = failed_record(point(round=2), "exceeded", "timed_out", iterations=[_lasting(100.0)], load_seconds=9.0)
    rows = _rows(tmp_path, ok_record(POINT, _lasting(1.0)), half_done)
    assert (rows["end_to_end_seconds"]["rounds"], rows["end_to_end_seconds"]["max"]) == (1, 1.0)
    assert rows["load_seconds"]["max"] == 0.5


def test_one_sample_has_no_spread(tmp_path: Path) -> None:
    row = _rows(tmp_path, ok_record(POINT, _lasting(1.0)))["end_to_end_seconds"]
    assert (row["median"], row["std"], row["p99"]) == (1.0, None, 1.0)


def test_unobserved_iterations_are_a_metric_of_their_own(tmp_path: Path) -> None:
    rows = _rows(tmp_path, ok_record(POINT, _lasting(2.0), unobserved(1.0), unobserved(1.5)))
    assert (rows["end_to_end_seconds"]["samples"], rows["end_to_end_seconds"]["median"]) == (1, 2.0)
    unobserved_row = rows["end_to_end_unobserved_seconds"]
    assert (unobserved_row["samples"], unobserved_row["median"]) == (2, 1.25)
    assert rows["time_to_first_token_seconds"]["samples"] == 1


def test_gaps_are_all_gaps_of_all_requests(tmp_path: Path) -> None:
    requests = observed([0.2, 0.4, 0.8], [0.6, 0.7, 1.0])
    record = ok_record(point(continuous_batching=True), requests, observed([0.1, 0.6], [0.2, 1.2]))
    rows = _rows(tmp_path, record)
    gaps = rows["inter_token_gap_seconds"]  # 0.2, 0.4, 0.1, 0.3, 0.5, 1.0
    assert (gaps["samples"], gaps["median"], gaps["max"]) == (6, pytest.approx(0.35), pytest.approx(1.0))
    assert rows["inter_token_seconds"]["samples"] == 2


def test_what_is_measured_once_has_a_value_a_round(tmp_path: Path) -> None:
    records = [
        ok_record(
            point(round=number),
            _lasting(1.0),
            load_seconds=float(number),
            first_call_seconds=10.0 * number,
            memory={"peak_bytes": 1000 * number},
        )
        for number in (1, 2, 3)
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
    assert (energy["rounds"], energy["samples"], energy["unit"]) == (3, 3, "J/token")
    assert (energy["estimate"], energy["max"]) == (pytest.approx(220), pytest.approx(1100))
    assert (compilation["rounds"], compilation["samples"], compilation["unit"]) == (3, 3, "s")
    assert (compilation["estimate"], compilation["mean"], compilation["round_medians"]) == (15.0, 16.0, [14, 15, 19])
    assert not energy["higher_is_better"]
    assert not compilation["higher_is_better"]
    # A decision about either is made of its rounds; the table gives no interval of what has one value a round.
    assert (energy["low"], energy["high"], compilation["low"], compilation["high"]) == (None,) * 4


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
    assert not {"inter_token_seconds", "inter_token_gap_seconds", "decode_tokens_per_second"} & rows.keys()
    assert not {"peak_memory_bytes", "end_to_end_unobserved_seconds"} & rows.keys()
    assert not {"compile_seconds", "energy_joules_per_token"} & rows.keys()


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
