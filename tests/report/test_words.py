"""Numbers as shown, which rows are shown, in which order, and which is best; requests of unequal lengths."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hfbench.core.record import Iteration, Record
from hfbench.report.frames import failure_rows, result_rows, varying_axes
from hfbench.report.pages import Column
from hfbench.report.point_facts import RequestTimes, request_times
from hfbench.report.words import (
    Captions,
    captions,
    failure_columns,
    interval_text,
    margin,
    memory_unit,
    point_column,
    rate,
    result_columns,
    significant,
)
from hfbench.tables.build import Tables
from hfbench.tables.facts import padding_waste_share
from tests.tables.hand_records import DENSE, POINT, failed_record, observed, ok_record, point, tables_of, unobserved

EAGER, SDPA, FLEX = (point(attn_implementation=name) for name in ("eager", "sdpa", "flex_attention"))


def _rows(tables: Tables) -> pl.DataFrame:
    return result_rows(tables.summary, tables.configurations)


def _columns(tables: Tables) -> dict[str, Column]:
    return {each.label: each for each in result_columns(_rows(tables), tables.points)}


def _captions(tables: Tables) -> Captions:
    return captions(tables.points, _rows(tables))


def _measured(configuration: Any, end_to_end: float, first_token: float = 0.5, **fields: Any) -> Record:
    return ok_record(configuration, observed([first_token, 0.6], end_to_end=end_to_end), **fields)


def test_rows_are_sorted_by_workload_then_fastest_first(tmp_path: Path) -> None:
    seconds = {replace(EAGER, batch_size=8): 4.0, EAGER: 2.0, SDPA: 1.0, replace(SDPA, batch_size=8): 3.0}
    records = [_measured(*each) for each in (seconds | {point(model="another"): 9.0}).items()]
    tables = tables_of(tmp_path, *records)
    rows = _rows(tables)
    order = rows.select(pl.format("{} b{} {}", "model", "batch_size", "attn_implementation"))
    expected = ["tiny b2 sdpa", "tiny b2 eager", "tiny b8 sdpa", "tiny b8 eager", "another b2 sdpa"]
    assert order.to_series().to_list() == expected
    assert rows["workload"].to_list() == [1, 1, 2, 2, 3]


def test_the_best_of_a_workload(tmp_path: Path) -> None:
    records = [_measured(EAGER, 2.0, first_token=0.3), _measured(SDPA, 1.0), _measured(point(batch_size=8), 0.5)]
    tables = tables_of(tmp_path, *records)
    rows = _rows(tables)
    assert rows["end_to_end_seconds"].to_list() == [1.0, 2.0, 0.5]
    # Alone in its workload, the last one is no best; nor is any load time, since all are equal.
    assert rows["end_to_end_seconds_best"].to_list() == [True, False, False]
    assert rows["time_to_first_token_seconds_best"].to_list() == [False, True, False]
    assert rows["decode_tokens_per_second_best"].to_list() == [True, False, False]  # the higher one
    assert rows["load_seconds_best"].to_list() == [False] * 3


def test_configurations_without_an_ok_round_are_failures(tmp_path: Path) -> None:
    crashed = failed_record(replace(SDPA, round=2), "killed", "crashed", phase="sample")
    missing = [failed_record(replace(FLEX, round=number), "missing") for number in (1, 2)]
    tables = tables_of(tmp_path, _measured(SDPA, 1.0), crashed, *missing)
    rows, failures = _rows(tables), failure_rows(tables.points)
    assert rows.select("attn_implementation", "rounds_ok", "rounds_asked").rows() == [("sdpa", 1, 2)]
    assert failures.select("attn_implementation", "status", "reason", "rounds").rows() == [
        ("sdpa", "crashed", "killed", [2]),
        ("flex_attention", "failed", "missing", [1, 2]),
    ]
    assert [column.texts for column in failure_columns(failures, tables.points)] == [
        ("sdpa", "flex_attention"),
        ("2", "1, 2"),
        ("crashed", "failed"),
        ("killed (phase: sample)", "missing"),
    ]


def test_columns_hold_units_and_three_digits(tmp_path: Path) -> None:
    more: dict[str, Any] = {"memory": {"peak_bytes": 3 * 2**29}, "load_seconds": 12.345}
    records = [
        ok_record(point(round=number), observed([0.05, 0.06, 0.08, 0.11], end_to_end=end), **more)
        for number, end in ((1, 0.11111), (2, 0.14))
    ]
    columns = _columns(tables_of(tmp_path, *records, failed_record(EAGER, "no")))
    assert {label: (column.unit, column.texts[0]) for label, column in columns.items()} == {
        "attention": ("", "sdpa"),
        "rounds": ("", "2"),
        "TTFT": ("ms", "50.0"),
        "inter-token": ("ms", "20.0"),
        "decode": ("tok/s", "100"),
        "prefill": ("tok/s", "400"),
        "end-to-end": ("s", "0.126"),
        # d = (0.14 - 0.111) / 2; t(1) = 12.7 times the standard error d / sqrt(2) is 1.03 of 0.126: / and * exp(1.03),
        # as far as 2,000 resamples tell.
        "95% interval": ("s", "0.0461 … 0.352"),
        "load": ("s", "12.3"),
        "peak memory": ("GiB", "1.50"),
    }


def test_what_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    records = [ok_record(SDPA, unobserved(1.0), load_seconds=None), _measured(EAGER, 1.0)]
    columns = _columns(tables_of(tmp_path, *records))
    assert columns["attention"].texts == ("eager", "sdpa")  # what has no end-to-end time stands last
    assert columns["end-to-end"].texts == ("1.00", "–")
    assert columns["load"].texts == ("0.500", "–")
    # No column where nothing has a value: no memory, one round has no interval, and no model's needs are known.
    assert not {"peak memory", "95% interval", "MBU", "MFU", "energy", "output"} & columns.keys()


def test_what_computes_something_else_is_no_best_and_stands_last(tmp_path: Path) -> None:
    outputs = {EAGER: 2.0, SDPA: 2.01, FLEX: 2.2}  # nats; the limit is 0.05
    seconds = {EAGER: 2.0, SDPA: 1.0, FLEX: 0.5}
    records = [_measured(each, seconds[each], output={"prompt_nll": nll}) for each, nll in outputs.items()]
    tables = tables_of(tmp_path, *records)
    rows = _rows(tables)
    assert rows["attn_implementation"].to_list() == ["sdpa", "eager", "flex_attention"]
    assert rows["end_to_end_seconds_best"].to_list() == [True, False, False]
    assert _columns(tables)["output"].texts == ("", "", "differs")
    # Where all but one differ, none is best.
    alone = tables_of(tmp_path / "alone", records[0], _measured(SDPA, 1.0, output={"prompt_nll": 3.0}))
    assert _rows(alone)["end_to_end_seconds_best"].to_list() == [False, False]


def test_utilisation_and_energy_are_columns_where_they_are_known(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, _measured(SDPA, 1.0))
    known = tables.configurations.with_columns(mbu=pl.lit(0.5), mfu=pl.lit(0.0123), energy_joules_per_token=pl.lit(2.0))
    columns = _columns(replace(tables, configurations=known))
    assert [columns[label].texts[0] for label in ("MBU", "MFU", "energy")] == ["50.0", "1.23", "2.00"]
    assert [columns[label].unit for label in ("MBU", "MFU", "energy")] == ["%", "%", "J/tok"]


def test_captions_say_what_is_constant(tmp_path: Path) -> None:
    device: dict[str, Any] = {"effective": {"device_name": "Fast CPU"}}
    records = [_measured(SDPA, 1.0, **device), _measured(EAGER, 2.0, **device), failed_record(FLEX, "x")]
    tables = tables_of(tmp_path, *records)
    text = _captions(tables)
    assert varying_axes(tables.points) == ["attn_implementation"]
    assert text.title == "tiny · Fast CPU · bfloat16"
    assert text.counts == "3 configurations, 2 of 3 records ok"
    assert text.constants == (
        "all with compile off, kernels no, continuous batching no, batch 2, prompt tokens 10, new tokens 4"
    )
    assert text.notes[0].startswith("*")
    assert text.notes[1].startswith("One round")


def test_captions_without_a_named_device_give_the_one_asked_for(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, failed_record(POINT, "no"))
    text = _captions(tables)
    assert text.title == "tiny · auto · bfloat16"
    assert text.counts == "1 configuration, 0 of 1 record ok"
    assert text.notes == ("No point could be measured.",)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (None, "no reason was recorded"),
        ("", "no reason was recorded"),
        ("\x1b[31mred\x07\nsecond line\x00", "[31mred\nsecond line"),  # no control characters
    ],
)
def test_the_reason_as_shown(tmp_path: Path, reason: str | None, shown: str) -> None:
    points = tables_of(tmp_path, failed_record(POINT, reason)).points
    assert failure_columns(failure_rows(points), points)[3].texts == (shown,)
    assert point_column(points, points).texts == ("tiny",)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.4949, "1.49"),
        (9.996, "10.0"),
        (0.012345, "0.0123"),
        (0.00001234, "0.0000123"),
        (40, "40.0"),
        (123.6, "124"),
        (1234.5, "1230"),
        (98765, "98800"),
        (999_400_000, "999000000"),
        (3.4567e17, "3.46e17"),
        (-1e9, "-1.00e9"),
        (-0.5, "-0.500"),
        (0, "0"),
        (None, "–"),
    ],
)
def test_three_significant_digits(value: float | None, text: str) -> None:
    assert significant(value) == text


def test_a_margin_is_half_the_interval_and_one_that_says_nothing_is_not_shown_as_numbers() -> None:
    assert margin(2.0, 1.96, 2.02) == "±1.5%"
    assert margin(2.0, 1.0, 7.0) == "> ±100%"
    assert margin(1000.0, 999.9, 1000.1) == "±0.01%"
    assert margin(2.0, None, None) == margin(None, None, None) == margin(0.0, -1.0, 1.0) == ""
    assert interval_text(0.17, 0.15, 0.19) == "0.150 … 0.190"
    assert interval_text(0.17, 0.14, 1.95e18) == interval_text(0.17, 0.0002, 0.2) == "not known"
    assert interval_text(0.17, None, None) == "–"


def test_memory_is_shown_in_one_unit_and_rates_get_a_prefix() -> None:
    assert memory_unit(600 * 2**20) == ("MiB", 2**20)
    assert memory_unit(2**30) == ("GiB", 2**30)
    assert rate(2.13e10, "B") == "21.3 GB/s"
    assert rate(9.89e14, "FLOP") == "989 TFLOP/s"
    assert rate(12, "B") == "12.0 B/s"


PROMPTS, NEW_TOKENS = [10, 4, 6], [2, 4, 3]
# Two at a time: rows of 10 tokens until the second has 4, and then one of 6 until it has 3.
BATCHES = [
    {"rows": 2, "padded_prompt_tokens": 10, "new_tokens": 4},
    {"rows": 1, "padded_prompt_tokens": 6, "new_tokens": 3},
]
TOKENS = ((0.2, 0.4), (0.2, 0.4, 0.6, 0.8), (1.0, 1.2, 1.4))  # of each, in seconds


def _unequal(batched: bool, pads: bool = False) -> Record:
    return ok_record(
        point(request_lengths="mixed", continuous_batching=batched),
        Iteration("sample", True, 1.0, 1.5, 1.5, tuple(NEW_TOKENS), TOKENS),
        requested={"requests": {"prompt_tokens": PROMPTS, "new_tokens": NEW_TOKENS}},
        effective={"continuous_batching_config": {"pads_inputs": pads}} if batched else {"batches": BATCHES},
        accounting=DENSE,
    )


def _values(tables: Tables, metric: str) -> list[float]:
    return tables.summary.filter(metric=metric)["estimate"].to_list()


def test_waste_is_what_was_computed_beyond_what_the_requests_needed() -> None:
    # Needed: (10 + 1) + (4 + 3) + (6 + 2) = 26. Computed: 2 rows × (10 + 3) + 1 × (6 + 2) = 34.
    assert padding_waste_share(PROMPTS, NEW_TOKENS, BATCHES) == pytest.approx(1 - 26 / 34)
    assert padding_waste_share([5, 5], [3, 3], [{"rows": 2, "padded_prompt_tokens": 5, "new_tokens": 3}]) == 0


def test_totals_throughput_and_waste_of_unequal_requests(tmp_path: Path) -> None:
    ceilings = {"read_bytes_per_second_by_size": {"1": 1e4}, "matmul_flops_per_second": {"bfloat16": 1e6}}
    tables = tables_of(tmp_path, _unequal(batched=False), _unequal(batched=True), ceilings=ceilings)
    for name, total in (("requests", 3), ("prompt_tokens", 20), ("new_tokens", 9)):
        assert tables.points[name].to_list() == [total, total]
    assert _values(tables, "padding_waste_share") == pytest.approx([1 - 26 / 34, 0])
    assert _values(tables, "output_tokens_per_second") == [6.0, 6.0]  # 9 in 1.5 s
    assert _values(tables, "decode_tokens_per_second") == [5.0, 5.0]  # 1 + 3 + 2 from 0.2 s to 1.4 s
    assert _values(tables, "prefill_tokens_per_second") == []
    # Batching that pads for graphs does not claim to waste nothing.
    padded = tables_of(tmp_path / "padded", _unequal(batched=True, pads=True))
    assert _values(padded, "padding_waste_share") == []
    assert tables.configurations["mbu"].to_list() == tables.configurations["mfu"].to_list() == [None, None]


def test_the_results_say_what_the_workload_is_and_show_waste_only_for_it(tmp_path: Path) -> None:
    tables = tables_of(tmp_path / "unequal", _unequal(batched=False), _unequal(batched=True))
    columns = _columns(tables)
    assert sorted(columns["padding waste"].texts) == ["0", "23.5"]
    assert columns["output"].texts == ("6.00", "6.00")
    text = _captions(tables)
    assert "mixed requests: 3, with 20 prompt and 9 new tokens in all, at most 10 and 4 each" in " ".join(text.notes)
    alike = tables_of(tmp_path / "alike", ok_record(POINT, observed([0.5, 0.7])))
    assert not _columns(alike).keys() & {"padding waste", "TTFT p95", "output"}
    assert _values(alike, "output_tokens_per_second") == [pytest.approx(8 / 0.7)]  # 2 rows of 4


def test_each_request_has_latencies_of_its_own() -> None:
    first, second, third = request_times([_unequal(batched=True)])
    assert first == RequestTimes(10, 2, 0.2, pytest.approx(0.2), pytest.approx(2 / 0.4))  # type: ignore[arg-type]
    assert second == RequestTimes(4, 4, 0.2, pytest.approx(0.2), pytest.approx(4 / 0.8))  # type: ignore[arg-type]
    assert third.time_to_first_token_seconds == 1.0
    assert third.tokens_per_second == pytest.approx(3 / 1.4)
    assert request_times([ok_record(POINT, observed([0.5, 0.7]))]) == []
