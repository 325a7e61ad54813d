"""The time between tokens along the sequence, by hand and told from noise."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from hfbench.report.charts.tokens import gaps_along, slowdown, token_latency_chart
from tests.report.report_data_of import data_of, drawn
from tests.report.report_records import sweep_records


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

    steady = slowdown(_samples(*([times(1.0)] for _ in range(3)), rounds=[1, 2, 3]), 0.95)
    slower = slowdown(_samples(*([times(late)] for late in (1.5, 1.51, 1.49)), rounds=[1, 2, 3]), 0.95)
    assert steady is not None
    assert (steady.estimate, steady.low, steady.high) == (1.0, 1.0, 1.0)
    assert slower is not None
    assert slower.estimate == pytest.approx(1.5)
    assert slower.low > 1.4
    assert slowdown(_samples([times(1.5)]), 0.95) is None  # one round
    assert slowdown(_samples([[0.0, 1.0, 3.0]], [[0.0, 1.0, 3.0]], rounds=[1, 2]), 0.95) is None  # two gaps


def test_tokens_that_only_scatter_get_no_trend(tmp_path: Path) -> None:
    records = sweep_records(attn_implementation=["eager", "sdpa"], iterations=6, batch_size=[1])
    title = drawn(token_latency_chart(data_of(tmp_path, records))).title
    assert title == "Along the sequence, the time between tokens changes by no more than noise"
