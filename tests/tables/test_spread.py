"""The summary's columns that come from `hfbench.statistics`, with values worked out by hand."""

from pathlib import Path
from typing import Any

import pytest

from tests.tables.hand_records import observed, ok_record, point, tables_of

STEADY = [1.00, 1.02, 0.98, 1.01, 0.99, 1.00, 1.02, 0.98]


def _row(folder: Path, metric: str, *rounds: list[float]) -> dict[str, Any]:
    records = [
        ok_record(point(round=number), *(observed([0.5, 0.6], end_to_end=seconds) for seconds in values))
        for number, values in enumerate(rounds, start=1)
    ]
    rows = {row["metric"]: row for row in tables_of(folder, *records).summary.to_dicts()}
    return rows[metric]


def test_the_estimate_is_the_median_of_the_rounds(tmp_path: Path) -> None:
    row = _row(tmp_path, "end_to_end_seconds", [1.0, 1.0, 1.0, 1.0], [3.0], [4.0])
    assert (row["estimate"], row["median"]) == (3.0, 1.0)
    assert row["round_medians"] == [1.0, 3.0, 4.0]


def test_two_rounds_have_an_interval_around_their_middle(tmp_path: Path) -> None:
    # One value each, 0.99 and 1.01. A resample's median is 0.01 below or above 1.00 in a quarter of the cases each: the
    # standard error is sqrt(2 · 0.01² / 4). Student's t with one degree of freedom is 12.706.
    row = _row(tmp_path, "end_to_end_seconds", [0.99], [1.01])
    margin = 12.706 * (2 * 0.01**2 / 4) ** 0.5
    assert row["estimate"] == pytest.approx(1.0)
    assert row["low"] == pytest.approx(2.71828**-margin, rel=0.01)
    assert row["high"] == pytest.approx(2.71828**margin, rel=0.01)


def test_one_round_has_no_interval(tmp_path: Path) -> None:
    row = _row(tmp_path, "end_to_end_seconds", STEADY)
    assert [row[name] for name in ("low", "high", "cv_between")] == [None, None, None]
    assert row["estimate"] == pytest.approx(1.0)
    assert row["cv_within"] == pytest.approx(0.016, abs=0.001)


def test_variation_between_and_within_rounds(tmp_path: Path) -> None:
    # Medians 1 and 2: mean 1.5, standard deviation sqrt(0.5). Within: 0.1 / 1 and 0.4 / 2, with n - 1 = 2 each.
    row = _row(tmp_path, "end_to_end_seconds", [0.9, 1.0, 1.1], [1.6, 2.0, 2.4])
    assert row["cv_between"] == pytest.approx(0.5**0.5 / 1.5)
    assert row["cv_within"] == pytest.approx(((0.1**2 + 0.2**2) / 2) ** 0.5)


def test_outliers_are_counted_and_kept(tmp_path: Path) -> None:
    row = _row(tmp_path, "end_to_end_seconds", [*STEADY, 9.0], STEADY)
    assert (row["outliers"], row["max"], row["samples"]) == (1, 9.0, 17)


def test_a_round_that_drifts(tmp_path: Path) -> None:
    rising = [1.0 + index / 100 for index in range(11)]  # 0.1 over a median of 1.05
    row = _row(tmp_path, "end_to_end_seconds", STEADY, rising)
    assert row["drifting_rounds"] == 1
    assert row["largest_drift"] == pytest.approx(0.1 / 1.05)
    steady = _row(tmp_path / "steady", "end_to_end_seconds", STEADY, STEADY)
    assert (steady["drifting_rounds"], steady["largest_drift"]) == (0, None)


def test_two_kinds_of_iterations(tmp_path: Path) -> None:
    row = _row(tmp_path, "end_to_end_seconds", [1.0, 2.0, 1.01, 2.01, 0.99, 1.99] * 5)
    assert row["bimodal"]
    assert (row["lower_mode"], row["upper_mode"]) == (pytest.approx(1.0, abs=0.01), pytest.approx(2.0, abs=0.01))
    steady = _row(tmp_path / "steady", "end_to_end_seconds", STEADY * 4)
    assert (steady["bimodal"], steady["lower_mode"]) == (False, None)


def test_what_has_one_value_a_round_has_an_estimate_only(tmp_path: Path) -> None:
    row = _row(tmp_path, "load_seconds", STEADY, STEADY)
    assert row["estimate"] == 0.5
    assert [row[name] for name in ("low", "high", "outliers", "bimodal")] == [None] * 4
