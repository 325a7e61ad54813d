"""Each warning: what makes it appear, with its numbers, and what is just not enough."""

import re
from dataclasses import replace
from typing import Any

import pytest

from hfbench.tables.build import MeasurementWarning
from hfbench.tables.configurations import Facts
from hfbench.tables.doubts import CHECKS, counted, percent

QUIET = Facts(rounds_asked=3, rounds_ok=3)

EMULATED: dict[str, Any] = {
    "dtype": "bfloat16",
    "dtype_emulated": True,
    "dtype_flops_per_second": 14e9,
    "float32_flops_per_second": 54e9,
    "dtype_row_flops_per_second": 0.7e9,
    "float32_row_flops_per_second": 18e9,
}

# Each row: the check, what it fires on, and a clause that it must say.
FIRING: list[tuple[str, dict[str, Any], str]] = [
    ("few_rounds", {"rounds_asked": 2, "rounds_ok": 2}, "2 rounds, and it takes 3"),
    ("few_rounds", {"rounds_asked": 1, "rounds_ok": 1}, "one round, and it takes 3"),
    ("few_rounds", {"rounds_asked": 5, "rounds_ok": 2}, "2 of 5 rounds ok, and it takes 3"),
    ("interval_wider_than_asked", {"target_precision": 0.01, "precision": 0.034}, "±3.4%, and ±1% was asked"),
    (
        "interval_wider_than_asked",
        {"target_precision": 0.01, "precision": 0.034, "rounds_ended_early": 2},
        "±1% was asked; sampling ended before that in 2 of 3 rounds",
    ),
    (
        "interval_wider_than_asked",
        {"target_precision": 0.01, "rounds_ok": 1, "rounds_asked": 1, "rounds_ended_early": 1},
        "sampling ended before that in the only round",
    ),
    ("interval_wider_than_asked", {"target_precision": 0.01, "precision": 112}, "known no better than to ±100%"),
    ("drift", {"drifting_rounds": 1, "largest_drift": -0.06}, "falls by 6% within 1 of 3 rounds"),
    ("drift", {"drifting_rounds": 3, "largest_drift": 0.06}, "rises by 6% within 3 of 3 rounds"),
    ("bimodal", {"bimodal": True, "lower_mode": 1.0, "upper_mode": 1.5}, "around 1 s and 1.5 s"),
    ("warmup_never_steady", {"rounds_never_steady": 2}, "in 2 of 3 rounds"),
    (
        "few_iterations",
        {
            "rounds_with_few_iterations": 2,
            "iterations_asked": 6,
            "iterations_sampled": 3,
            "asked_iterations_seconds": 27.5,
        },
        "max_seconds ended sampling after 3 iterations in 2 of 3 rounds; the 6 asked take 28 s",
    ),
    ("recompiles", {"recompiles_while_sampling": 1}, "again 1 time while sampling"),
    ("recompiles", {"recompiles_while_sampling": 4}, "again 4 times while sampling"),
    ("timer_resolution", {"inter_token_seconds": 0.02, "clock_resolution_seconds": 0.001}, "every 0.001 s"),
    (
        "observer_cost",
        {"observer_cost_ratio": 1.03, "observer_cost_low": 1.01, "observer_cost_high": 1.05},
        "3% slower (1% to 5%)",
    ),
    ("throttled", {"throttle_reasons": ["cpu_heat", "sw_power_cap"], "rounds_throttled": 2}, "in 2 of 3 rounds"),
    ("throttled", {"throttle_reasons": ["cpu_heat", "sw_power_cap"]}, "cpu_heat, sw_power_cap"),
    ("throttled_by_cpu_limit", {"quota_throttled_share": 0.5}, "0.5 CPU seconds"),
    ("other_processes", {"other_processes": 1}, "1 other process on the accelerator"),
    ("other_processes", {"other_processes": 2, "others_cpu_share": 0.1}, "2 other processes on the accelerator"),
    ("other_processes", {"others_cpu_share": 0.1}, "other processes took 10% of the CPUs"),
    ("machine_loaded", {"cpu_share_before": 0.25}, "25% of the CPUs"),
    ("swap_in_use", {"swap_used_bytes": 2**30}, "1024 MiB"),
    ("clocks_changing", {"clock_spread": 0.2}, "changed by 20%"),
    ("rounds_disagree", {"rounds_disagreeing": 1}, "1 of 3 rounds"),
    ("other_kernels", {"rounds_with_other_kernels": 1}, "in 1 of 3 rounds than in the first"),
    ("tokens_handed_out_late", {"tokens_handed_out_late": True}, "up to a step too much"),
    ("one_long_gap", {"recurring_gap_ratio": 8.0, "recurring_gap_token": 18}, "new token 18 comes after 8 times"),
    ("not_watched", {"monitor_readings": 1}, "not watched: the device was read 1 times while samples were taken"),
    ("path_not_checked", {"path_checked": False}, "could not be compared"),
    ("reference_missing", {"reference": "missing"}, "no reference"),
    ("reference_missing", {"reference": "not ok"}, "no reference"),
    ("roofline_exceeded", {"decode_bandwidth_above_roof": 1.2}, "decoding reads 1.2 times as many bytes a second as"),
    (
        "roofline_exceeded",
        {"decode_products_above_roof": 1.02, "prefill_products_above_roof": 9.08},
        "computes 1.02 times as many FLOPs a second and the prefill computes 9.08 times as many FLOPs a second as",
    ),
    ("roofline_exceeded", {"prefill_bandwidth_above_roof": 1.2}, "the prefill reads 1.2 times"),
    (
        "slower_than_float32",
        EMULATED,
        "no instructions for bfloat16 products and torch emulates them; matrix products reach 14 GFLOP/s, and 54 in "
        "float32; those of one row, as in decoding, 0.7 GFLOP/s, and 18 in float32",
    ),
    (
        "slower_than_float32",
        {**EMULATED, "dtype_emulated": False},
        "in bfloat16 matrix products reach 14 GFLOP/s, and 54",
    ),
    (
        "slower_than_float32",
        {"dtype": "float16", "dtype_emulated": True},
        "for float16 products and torch emulates them",
    ),
]

# Just not enough, and what the records do not tell.
SILENT: list[tuple[str, dict[str, Any]]] = [
    ("few_rounds", {"rounds_asked": 4, "rounds_ok": 3}),
    ("interval_wider_than_asked", {"target_precision": 0.01, "precision": 0.01}),
    ("interval_wider_than_asked", {"target_precision": 0.01, "precision": 0.01, "rounds_ended_early": 1}),
    ("interval_wider_than_asked", {"target_precision": None, "precision": 0.5}),
    ("drift", {"drifting_rounds": 1, "largest_drift": 0.01}),
    ("drift", {"drifting_rounds": 1, "largest_drift": 0.04, "target_precision": 0.05}),
    ("timer_resolution", {"inter_token_seconds": 0.02, "clock_resolution_seconds": 1e-9}),
    ("timer_resolution", {"inter_token_seconds": None, "clock_resolution_seconds": 1.0}),
    # Above 1%, and within its own noise; established, and below 1%.
    ("observer_cost", {"observer_cost_ratio": 1.05, "observer_cost_low": 0.99, "observer_cost_high": 1.1}),
    ("observer_cost", {"observer_cost_ratio": 1.005, "observer_cost_low": 1.004, "observer_cost_high": 1.006}),
    ("observer_cost", {"observer_cost_ratio": 1.05}),
    ("throttled_by_cpu_limit", {"quota_throttled_share": 0.001}),
    ("other_processes", {"other_processes": 0, "others_cpu_share": 0.01}),
    ("machine_loaded", {"cpu_share_before": 0.125}),
    ("swap_in_use", {"swap_used_bytes": 2**20}),
    ("clocks_changing", {"clock_spread": 0.01}),
    ("reference_missing", {"reference": "compared"}),
    ("output_differs", {"top1_agreement": 0.95, "first_different_token": 3}),
]


def _told(code: str, **changes: Any) -> tuple[str, str]:
    """What the warning of this code says of a quiet configuration with these changes, twice nothing if it is silent."""
    (check,) = (check for check in CHECKS if check.__name__ == code)
    return next(check(replace(QUIET, **changes)), ("", ""))


@pytest.mark.parametrize(("code", "changes", "clause"), FIRING)
def test_it_warns(code: str, changes: dict[str, Any], clause: str) -> None:
    what, remedy = _told(code, **changes)
    assert clause in what
    assert remedy.endswith(".")
    assert not what.endswith(".")


@pytest.mark.parametrize(("code", "changes"), [*SILENT, *((check.__name__, {}) for check in CHECKS)])
def test_it_is_silent(code: str, changes: dict[str, Any]) -> None:
    assert _told(code, **changes) == ("", "")


def test_every_check_is_tried_here() -> None:
    assert {code for code, *_ in FIRING} | {"output_differs"} == {check.__name__ for check in CHECKS}


def test_an_output_that_differs_is_told_with_the_limits() -> None:
    found = {"top1_agreement": 0.625, "nll_difference": 0.31, "first_different_token": 4}
    limits = {"min_top1_agreement": 0.9, "max_nll_difference": 0.05}
    told = _told("output_differs", output_beyond_limits=True, **found, **limits)
    assert told[0] == (
        "top-1 tokens agree at 62% of the prompt's positions; the prompt's likelihood is 0.31 nats a token apart; "
        "number 5 of the generated tokens is the first that differs (limits: 90%, 0.05 nats)"
    )
    assert MeasurementWarning("output_differs", *told, "tiny", {}).title == "output differs"


def test_the_remedy_fits_the_cause() -> None:
    wide: dict[str, Any] = {"target_precision": 0.01, "precision": 0.1}
    assert "max_seconds" not in _told("interval_wider_than_asked", **wide)[1]
    assert "max_seconds" in _told("interval_wider_than_asked", **wide, rounds_ended_early=1)[1]
    assert "sweep.round" in _told("few_rounds", rounds_asked=2, rounds_ok=2)[1]
    assert "hfbench retry" in _told("few_rounds", rounds_asked=3, rounds_ok=2)[1]


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        ({"ceilings_others_cpu_share": 0.8}, "Other processes took 80% of the CPUs while the ceilings were measured"),
        ({"decode_bandwidth_above_roof": 1.04}, "Measure the ceilings again on a quiet machine"),
        ({"rows_choose_experts": True}, "batch size 1"),
        ({"compile_mode": "default"}, "the same configuration uncompiled"),
        ({"use_kernels": True}, "without kernels"),
        ({}, "report its config"),
    ],
)
def test_the_remedy_for_a_roof_that_is_passed_fits_the_cause(cause: dict[str, Any], remedy: str) -> None:
    assert remedy in _told("roofline_exceeded", **{"decode_bandwidth_above_roof": 1.5, **cause})[1]


def test_phrases() -> None:
    shares = {0.0123: "1.2%", 0.0034: "0.34%", 0.156: "16%", 0.999: "100%", 1.2: "120%", 12.0: "1200%"}
    assert [percent(share) for share in shares] == list(shares.values())
    assert (counted(1, 1), counted(1, 3)) == ("the only round", "1 of 3 rounds")


def commands_of_remedies() -> set[str]:
    """The commands of hfbench and DVC in the remedies of all warnings."""
    remedies = [_told(code, **changes)[1] for code, changes, _ in FIRING]
    return {each for remedy in remedies for each in re.findall(r"`((?:hfbench|dvc) [^`]+)`", remedy)}
