"""What is known of a configuration over its rounds, when compiling has paid, and the warnings that come of it."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_records import SAMPLING
from hfbench.core.errors import UserError
from hfbench.core.files import write_json
from hfbench.core.record import Record
from hfbench.statistics.bootstrap import Interval
from hfbench.tables.build import read_warnings
from hfbench.tables.configurations import NEVER, NOT_KNOWN, PAID, break_even
from tests.tables.hand_records import DENSE, POINT, failed_record, observed, ok_record, point, tables_of, unobserved

EAGER = point(attn_implementation="eager")
PRECISE = replace(SAMPLING, stopping_rule="precision", target_precision=0.02)


def _rounds(*fields: dict[str, Any], configuration: Any = POINT) -> list[Record]:
    return [
        ok_record(replace(configuration, round=number), observed([0.5, 0.6, 0.8, 1.1]), **each)
        for number, each in enumerate(fields, start=1)
    ]


def _row(folder: Path, *records: Record, **arguments: Any) -> dict[str, Any]:
    (row,) = tables_of(folder, *records, **arguments).configurations.to_dicts()
    return dict(row)


def test_rounds_are_counted(tmp_path: Path) -> None:
    recompiled = {"effective": {"compilation": {"recompiles_while_sampling": ["a guard failed", "another"]}}}
    records = _rounds(
        {"warmup_steady": False, "stopped_because": "max_seconds reached"},
        {"warmup_steady": True, "stopped_because": "target_precision reached", **recompiled},
        {"warmup_steady": False, "stopped_because": "max_iterations reached", **recompiled},
    )
    for record in records:
        record.sampling = PRECISE
    failed = failed_record(point(round=4), "killed", "crashed", warmup_steady=False, **recompiled)
    row = _row(tmp_path, *records, failed)
    assert (row["rounds_ok"], row["rounds_asked"]) == (3, 4)
    assert (row["rounds_never_steady"], row["recompiles_while_sampling"], row["rounds_ended_early"]) == (1, 4, 2)
    assert row["target_precision"] == 0.02
    few = (row["rounds_with_few_iterations"], row["iterations_sampled"], row["iterations_asked"])
    assert few == (1, 1, PRECISE.min_iterations)  # for want of time, in which there was none to become steady
    fixed = _row(tmp_path / "fixed", *_rounds({"stopped_because": "max_seconds reached"}))
    assert (fixed["target_precision"], fixed["rounds_ended_early"]) == (None, 0)


def test_precision_is_half_the_interval_over_the_estimate(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, *(ok_record(point(round=n), observed([0.5, 0.9 + n / 10])) for n in (1, 2, 3)))
    (summary,) = tables.summary.filter(metric="end_to_end_seconds").to_dicts()
    (row,) = tables.configurations.to_dicts()
    assert row["precision"] == pytest.approx((summary["high"] - summary["low"]) / 2 / 1.1)


def test_the_machine_at_its_worst(tmp_path: Path) -> None:
    before = [{"cpu_percent": 10.0, "swap_used_bytes": 7}, {"cpu_percent": 60.0}, {}]
    row = _row(tmp_path, *_rounds(*({"machine_before": each} for each in before)))
    assert (row["cpu_share_before"], row["swap_used_bytes"], row["other_processes"]) == (0.6, 7, None)
    assert row["throttle_reasons"] == []


def test_clocks_that_differ_between_rounds(tmp_path: Path) -> None:
    def monitored(clock_mhz: float) -> dict[str, Any]:
        series = {"cpu_highest_clock_mhz": [clock_mhz] * 3, "cpu_throttle_count": [0, 0, clock_mhz > 2500]}
        return {"monitoring": {"time_seconds": [1.0, 1.5, 2.0], "host": {"logical_cores": 2, "series": series}}}

    row = _row(tmp_path, *_rounds(monitored(2000), monitored(2500), monitored(3000)))
    assert row["clock_spread"] == pytest.approx(1000 / 2500)
    assert (row["throttle_reasons"], row["rounds_throttled"]) == (["cpu_heat"], 1)


def test_what_the_observer_costs(tmp_path: Path) -> None:
    records = [
        ok_record(point(round=number), observed([0.5, 1.1 * pace]), unobserved(pace), unobserved(pace))
        for number, pace in ((1, 1.0), (2, 2.0), (3, 3.0))
    ]
    # The paces of the processes are in both sides of each ratio; one round has no interval.
    for name, several, cost in (("three", records, pytest.approx(1.1)), ("one", records[:1], None)):
        row = _row(tmp_path / name, *several)
        assert [row[f"observer_cost_{end}"] for end in ("ratio", "low", "high")] == [cost] * 3


CEILINGS = {"read_bytes_per_second_by_size": {"64": 100_000.0}, "matmul_flops_per_second": {"bfloat16": 1e6}}


def test_utilisation(tmp_path: Path) -> None:
    # Steps attend to 11, 12 and 13 tokens, 12 on average: 1000 + 2 rows · 2 layers · 10 bytes · 12 = 1480 bytes in the
    # 0.2 s between two tokens. Prefill: a row is 10 tokens · 2 · 100 + 2 · 50 + 2 layers · 2 · 3 heads · 8 · 55 pairs =
    # 7380 FLOPs, two rows in 0.5 s.
    row = _row(tmp_path, *_rounds({"accounting": DENSE}, {"accounting": DENSE}), ceilings=CEILINGS)
    assert (row["mbu"], row["mfu"]) == pytest.approx((1480 / 0.2 / 100_000, 2 * 7380 / 0.5 / 1e6))
    # One new token has no decoding that would use bandwidth.
    record = ok_record(point(max_new_tokens=1), observed([0.5]), accounting=DENSE)
    row = _row(tmp_path / "one", record, ceilings=CEILINGS)
    assert (row["mbu"], row["mfu"]) == (None, pytest.approx(2 * 7380 / 0.5 / 1e6))


@pytest.mark.parametrize(("device", "together"), [("cuda", 4), ("cpu", 1)])
def test_several_devices_can_do_more_and_several_processes_on_a_cpu_cannot(
    tmp_path: Path, device: str, together: int
) -> None:
    records = _rounds({"accounting": DENSE}, configuration=point(tp_size=4))
    row = _row(tmp_path, *records, ceilings=CEILINGS | {"device": device})
    assert row["mbu"] == pytest.approx(1480 / 0.2 / 100_000 / together)
    assert row["mfu"] == pytest.approx(2 * 7380 / 0.5 / 1e6 / together)
    assert row["roof_flops_per_second"] == 1e6 * together


@pytest.mark.parametrize(
    ("needs", "ceilings", "reason"),
    [
        ({}, CEILINGS, None),
        (DENSE, {}, None),
        (DENSE, {"matmul_flops_per_second": None}, None),
        (DENSE | {"cache": None, "unknown": {"bytes": "no form", "flops": "no form"}}, CEILINGS, "no form"),
    ],
)
def test_utilisation_that_cannot_be_counted_has_a_reason(
    tmp_path: Path, needs: dict[str, Any], ceilings: dict[str, Any], reason: str | None
) -> None:
    row = _row(tmp_path, *_rounds({"accounting": needs}), ceilings=ceilings)
    assert (row["mbu"], row["mfu"]) == (None, None)
    assert (row["mbu_unknown"], row["mfu_unknown"]) == (reason, reason)


def test_what_would_be_above_its_ceiling_is_withheld(tmp_path: Path) -> None:
    """Decoding reads 7400 bytes/s, and the prefill computes 29520 FLOP/s (`test_utilisation`)."""
    slow = {"read_bytes_per_second_by_size": {"64": 10_000.0}, "matmul_flops_per_second": {"bfloat16": 10_000.0}}
    tables = tables_of(tmp_path, *_rounds({"accounting": DENSE}), ceilings=slow)
    (row,) = tables.configurations.to_dicts()
    assert row["mbu"] == pytest.approx(0.74)
    assert (row["mfu"], row["prefill_flops_per_second"]) == (None, None)
    assert row["prefill_products_above_roof"] == pytest.approx(2.952)
    assert (row["decode_bandwidth_above_roof"], row["mbu_unknown"]) == (None, None)
    assert "above" in row["mfu_unknown"]
    (told,) = [each.what for each in tables.warnings if each.code == "roofline_exceeded"]
    assert "2.95 times as many FLOPs a second" in told


@pytest.mark.parametrize("emulated", [True, False])
def test_a_dtype_that_is_slower_than_float32_is_told(tmp_path: Path, emulated: bool) -> None:
    rates = {
        "matmul_flops_per_second": {"bfloat16": 14e9, "float32": 54e9},
        "single_row_flops_per_second": {"bfloat16": 0.7e9, "float32": None},
        "slower_than_float32": ["bfloat16"],
        "emulated_dtypes": ["bfloat16"] * emulated,
    }
    tables = tables_of(tmp_path, *_rounds({"accounting": DENSE}), ceilings={**CEILINGS, **rates})
    (told,) = [each.what for each in tables.warnings if each.code == "slower_than_float32"]
    assert told.endswith("matrix products reach 14 GFLOP/s, and 54 in float32")
    assert ("emulates" in told) is emulated


def test_warnings_say_of_whom(tmp_path: Path) -> None:
    unsteady = _rounds(*[{"warmup_steady": False}] * 3, configuration=EAGER)
    tables = tables_of(tmp_path / "measurements", *unsteady, *_rounds(*[{}] * 3), failed_record(point(model="b"), "x"))
    tables.write(tmp_path)
    (warning,) = read_warnings(tmp_path)
    assert [warning] == tables.warnings
    assert (warning.code, warning.point) == ("warmup_never_steady", "tiny eager b2 s10 n4")
    assert warning.configuration == {axis: value for axis, value in vars(EAGER).items() if axis != "round"}
    write_json(tmp_path / "warnings.json", {"schema_version": 0, "warnings": []})  # of another version
    with pytest.raises(UserError, match="`dvc repro`"):
        read_warnings(tmp_path)


def test_when_compiling_has_paid_by_hand() -> None:
    # A call takes 2 s uncompiled and 1.5 s compiled, so it saves 0.5 s. The first compiled call takes 21.5 s, 20 s more
    # than a steady one; the first uncompiled one takes 3 s, 1 s more. 19 s / 0.5 s = 38 calls of 64 tokens: then both
    # have taken 77 s. At the limits a call saves 0.76 s and 0.38 s: 25 and 50 calls.
    assert 21.5 + 37 * 1.5 == 3.0 + 37 * 2.0 == 77
    found = break_even(20 - 1, 2.0, Interval(0.75, 0.62, 0.81), 64)
    assert list(found.values()) == [PAID, 38 * 64, pytest.approx(25 * 64), pytest.approx(50 * 64)]
    # A start that costs no more pays from the first token.
    assert break_even(-3.0, 2.0, Interval(0.5, 0.4, 0.6), 64)["break_even_new_tokens"] == 0


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Interval(1.2, 1.1, 1.3), NEVER),
        (Interval(1.1, 0.9, 1.3), NOT_KNOWN),
        (Interval(0.9, 0.8, 1.0), NOT_KNOWN),
        (None, NOT_KNOWN),
    ],
)
def test_no_saving_has_no_number(ratio: Interval | None, verdict: str) -> None:
    assert break_even(19.0, 2.0, ratio, 64) == {"break_even": verdict}


# 2 rows of 4 new tokens. Rounds differ by the machine, and twins with them.
DRIFT = (1.0, 1.02, 0.98)


def _calls(first_call: float, steady: float, rounds: int = 3, **axes: Any) -> list[Record]:
    return [
        ok_record(
            point(round=number, **axes),
            *(observed([0.1, 0.2, 0.3, 0.4], end_to_end=steady * drift) for _ in range(3)),
            first_call_seconds=first_call + (drift - 1) * steady,
        )
        for number, drift in enumerate(DRIFT[:rounds], start=1)
    ]


def _compiled(folder: Path, *records: Record) -> dict[str, Any]:
    rows = tables_of(folder, *records).configurations.to_dicts()
    assert all(row["break_even"] is None for row in rows if row["compile_mode"] == "off")
    return next(dict(row) for row in rows if row["compile_mode"] != "off")


def test_against_the_uncompiled_twin(tmp_path: Path) -> None:
    # As by hand: 38 calls of 8 tokens.
    row = _compiled(tmp_path, *_calls(3.0, 2.0), *_calls(21.5, 1.5, compile_mode="default"))
    assert row["break_even"] == PAID
    assert row["break_even_new_tokens"] == pytest.approx(38 * 8)
    assert row["break_even_new_tokens_low"] <= row["break_even_new_tokens"] <= row["break_even_new_tokens_high"]


def test_twins_of_different_days_are_no_pairs(tmp_path: Path) -> None:
    """The machine drifts by 4% in each run, and compiling saves 3%: what is paid for cannot be told."""
    compiled = _calls(21.5, 1.94, compile_mode="default")
    assert _compiled(tmp_path / "a", *_calls(3.0, 2.0), *compiled)["break_even"] == PAID
    for record in compiled:
        record.started_at = (datetime.fromisoformat(str(record.started_at)) + timedelta(days=7)).isoformat()
    assert _compiled(tmp_path / "b", *_calls(3.0, 2.0), *compiled)["break_even"] == NOT_KNOWN


def test_the_twin_has_the_cache_that_it_has_by_itself(tmp_path: Path) -> None:
    static: dict[str, Any] = {"cache_implementation": "static"}
    uncompiled = [*_calls(3.0, 2.0), *_calls(3.0, 4.0, **static)]
    row = _compiled(tmp_path, *uncompiled, *_calls(21.5, 1.5, compile_mode="default", **static))
    assert row["break_even_new_tokens"] == pytest.approx(38 * 8)


def test_slower_never_pays_and_one_round_tells_nothing(tmp_path: Path) -> None:
    slower = _compiled(tmp_path / "a", *_calls(3.0, 1.5), *_calls(21.5, 2.0, compile_mode="default"))
    assert (slower["break_even"], slower["break_even_new_tokens"]) == (NEVER, None)
    alone = _compiled(tmp_path / "b", *_calls(3.0, 2.0, 1), *_calls(21.5, 1.5, 1, compile_mode="default"))
    assert (alone["break_even"], alone["break_even_new_tokens"]) == (NOT_KNOWN, None)


@pytest.mark.parametrize("axes", [{"attn_implementation": "eager"}, {"batch_size": 4}, {"dtype": "float32"}])
def test_without_a_twin_there_is_none(tmp_path: Path, axes: dict[str, Any]) -> None:
    row = _compiled(tmp_path, *_calls(3.0, 2.0, **axes), *_calls(21.5, 1.5, compile_mode="default"))
    assert (row["break_even"], row["break_even_new_tokens"]) == (None, None)


def test_what_computes_something_else_has_not_paid(tmp_path: Path) -> None:
    reference: dict[str, Any] = {"attn_implementation": "eager"}
    records = [*_calls(3.0, 2.0, **reference), *_calls(21.5, 1.5, **reference, compile_mode="default")]
    for record in records:
        is_wrong = record.configuration.compile_mode != "off"
        record.output = {"prompt_nll": 9.0 if is_wrong else 2.5, "prompt_top1": [1, 2], "tokens": [3]}
    assert _compiled(tmp_path, *records)["break_even"] is None
