"""Requests of unequal lengths in the tables: their totals, their waste, and what is not known of them."""

from pathlib import Path
from typing import Any

import pytest

from hfbench.core.record import Iteration, Record
from hfbench.report.frames import result_rows
from hfbench.report.point_facts import RequestTimes, request_times
from hfbench.report.words import captions, result_columns
from hfbench.tables.build import Tables
from hfbench.tables.facts import padding_waste_share
from tests.tables.hand_records import DENSE, POINT, observed, ok_record, point, tables_of

PROMPTS, NEW_TOKENS = [10, 4, 6], [2, 4, 3]
# Two at a time: rows of 10 tokens until the second has 4, and then one of 6 until it has 3.
BATCHES = [
    {"rows": 2, "padded_prompt_tokens": 10, "new_tokens": 4},
    {"rows": 1, "padded_prompt_tokens": 6, "new_tokens": 3},
]
CEILINGS: dict[str, Any] = {
    "read_bytes_per_second_by_size": {"1": 1e4},
    "matmul_flops_per_second": {"bfloat16": 1e6},
}


def run(*token_seconds: list[float], end_to_end: float) -> Iteration:
    return Iteration("sample", True, 1.0, end_to_end, end_to_end, tuple(NEW_TOKENS), tuple(map(tuple, token_seconds)))


def record(batched: bool, pads: bool = False, **fields: Any) -> Record:
    effective: dict[str, Any] = {"continuous_batching_config": {"pads_inputs": pads}} if batched else {}
    if not batched:
        effective["batches"] = BATCHES
    return ok_record(
        point(request_lengths="mixed", continuous_batching=batched),
        run([0.2, 0.4], [0.2, 0.4, 0.6, 0.8], [1.0, 1.2, 1.4], end_to_end=1.5),
        requested={"requests": {"prompt_tokens": PROMPTS, "new_tokens": NEW_TOKENS}},
        effective=effective,
        accounting=DENSE,
        **fields,
    )


def values(tables: Tables, metric: str) -> list[float]:
    return tables.summary.filter(metric=metric)["estimate"].to_list()


def test_waste_is_what_was_computed_beyond_what_the_requests_needed() -> None:
    # Needed: (10 + 1) + (4 + 3) + (6 + 2) = 26. Computed: 2 rows × (10 + 3) + 1 × (6 + 2) = 34.
    assert padding_waste_share(PROMPTS, NEW_TOKENS, BATCHES) == pytest.approx(1 - 26 / 34)
    assert padding_waste_share([5, 5], [3, 3], [{"rows": 2, "padded_prompt_tokens": 5, "new_tokens": 3}]) == 0


def test_totals_throughput_and_waste_of_unequal_requests(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, record(batched=False), record(batched=True), ceilings=CEILINGS)
    for name, total in (("requests", 3), ("prompt_tokens", 20), ("new_tokens", 9)):
        assert tables.points[name].to_list() == [total, total]
    assert values(tables, "padding_waste_share") == pytest.approx([1 - 26 / 34, 0])
    assert values(tables, "output_tokens_per_second") == [6.0, 6.0]  # 9 in 1.5 s
    assert values(tables, "decode_tokens_per_second") == [5.0, 5.0]  # 1 + 3 + 2 from 0.2 s to 1.4 s
    assert values(tables, "prefill_tokens_per_second") == []
    assert tables.configurations["mbu"].to_list() == tables.configurations["mfu"].to_list() == [None, None]


def test_batching_that_pads_for_graphs_does_not_claim_to_waste_nothing(tmp_path: Path) -> None:
    assert values(tables_of(tmp_path, record(batched=True, pads=True)), "padding_waste_share") == []


def test_the_results_say_what_the_workload_is_and_show_waste_only_for_it(tmp_path: Path) -> None:
    tables = tables_of(tmp_path / "unequal", record(batched=False), record(batched=True))
    rows = result_rows(tables.summary, tables.configurations)
    columns = {column.label: column.texts for column in result_columns(rows, tables.points)}
    assert sorted(columns["padding waste"]) == ["0", "23.5"]
    assert columns["output"] == ("6.00", "6.00")
    text = captions(tables.points, rows)
    assert "mixed requests: 3, with 20 prompt and 9 new tokens in all, at most 10 and 4 each" in " ".join(text.notes)
    alike = tables_of(tmp_path / "alike", ok_record(POINT, observed([0.5, 0.7])))
    rows = result_rows(alike.summary, alike.configurations)
    labels = {column.label for column in result_columns(rows, alike.points)}
    assert not labels & {"padding waste", "TTFT p95", "output"}
    assert values(alike, "output_tokens_per_second") == [pytest.approx(8 / 0.7)]  # 2 rows of 4


def test_each_request_has_latencies_of_its_own() -> None:
    first, second, third = request_times([record(batched=True)])
    assert first == RequestTimes(10, 2, 0.2, pytest.approx(0.2), pytest.approx(2 / 0.4))  # type: ignore[arg-type]
    assert second == RequestTimes(4, 4, 0.2, pytest.approx(0.2), pytest.approx(4 / 0.8))  # type: ignore[arg-type]
    assert third.time_to_first_token_seconds == 1.0
    assert third.tokens_per_second == pytest.approx(3 / 1.4)
    assert request_times([ok_record(POINT, observed([0.5, 0.7]))]) == []
