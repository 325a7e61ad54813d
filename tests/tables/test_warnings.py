"""Each warning: what makes it appear, with its numbers, and what is just not enough."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hfbench.tables import warnings
from hfbench.tables.warnings import CHECKS, Facts, MeasurementWarning, counted, percent

Check = Callable[[Facts], MeasurementWarning | None]
QUIET = Facts(rounds_asked=3, rounds_ok=3)

# Each row: the check, what it fires on, and a clause that it must say.
FIRING: list[tuple[Check, dict[str, Any], str]] = [
    (warnings.few_rounds, {"rounds_asked": 2, "rounds_ok": 2}, "2 rounds, and it takes 3"),
    (warnings.few_rounds, {"rounds_asked": 1, "rounds_ok": 1}, "one round, and it takes 3"),
    (warnings.few_rounds, {"rounds_asked": 5, "rounds_ok": 2}, "2 of 5 rounds ok, and it takes 3"),
    (warnings.interval_wider_than_asked, {"target_precision": 0.01, "precision": 0.034}, "±3.4%, and ±1% was asked"),
    (
        warnings.interval_wider_than_asked,
        {"target_precision": 0.01, "precision": 0.034, "rounds_ended_early": 2},
        "±1% was asked; sampling ended before that in 2 of 3 rounds",
    ),
    (
        warnings.interval_wider_than_asked,
        {"target_precision": 0.01, "rounds_ok": 1, "rounds_asked": 1, "rounds_ended_early": 1},
        "sampling ended before that in the only round",
    ),
    (warnings.interval_wider_than_asked, {"target_precision": 0.01, "precision": 112}, "known no better than to ±100%"),
    (warnings.drift, {"drifting_rounds": 1, "largest_drift": -0.06}, "falls by 6% within 1 of 3 rounds"),
    (warnings.drift, {"drifting_rounds": 3, "largest_drift": 0.06}, "rises by 6% within 3 of 3 rounds"),
    (warnings.bimodal, {"bimodal": True, "lower_mode": 1.0, "upper_mode": 1.5}, "around 1 s and 1.5 s"),
    (warnings.warmup_never_steady, {"rounds_never_steady": 2}, "in 2 of 3 rounds"),
    (warnings.recompiles, {"recompiles_while_sampling": 1}, "again 1 time while sampling"),
    (warnings.recompiles, {"recompiles_while_sampling": 4}, "again 4 times while sampling"),
    (warnings.timer_resolution, {"inter_token_seconds": 0.02, "clock_resolution_seconds": 0.001}, "every 0.001 s"),
    (
        warnings.observer_cost,
        {"observer_cost_ratio": 1.03, "observer_cost_low": 1.01, "observer_cost_high": 1.05},
        "3% slower (1% to 5%)",
    ),
    (warnings.throttled, {"throttle_reasons": ["cpu_heat", "sw_power_cap"], "rounds_throttled": 2}, "in 2 of 3 rounds"),
    (warnings.throttled, {"throttle_reasons": ["cpu_heat", "sw_power_cap"]}, "cpu_heat, sw_power_cap"),
    (warnings.throttled_by_cpu_limit, {"quota_throttled_share": 0.5}, "0.5 CPU seconds"),
    (warnings.other_processes, {"other_processes": 1}, "1 other process on the accelerator"),
    (warnings.other_processes, {"other_processes": 2, "others_cpu_share": 0.1}, "2 other processes on the accelerator"),
    (warnings.other_processes, {"others_cpu_share": 0.1}, "other processes took 10% of the CPUs"),
    (warnings.machine_loaded, {"cpu_share_before": 0.25}, "25% of the CPUs"),
    (warnings.swap_in_use, {"swap_used_bytes": 2**30}, "1024 MiB"),
    (warnings.clocks_changing, {"clock_spread": 0.2}, "changed by 20%"),
    (warnings.rounds_disagree, {"rounds_disagreeing": 1}, "1 of 3 rounds"),
    (warnings.reference_missing, {"reference": "missing"}, "no reference"),
    (warnings.roofline_exceeded, {"mbu": 1.2}, "model bandwidth utilisation is 120%"),
    (warnings.roofline_exceeded, {"mbu": 0.9, "mfu": 1.06}, "model FLOPs utilisation is 106%"),
]

# Just not enough, and what the records do not tell.
SILENT: list[tuple[Check, dict[str, Any]]] = [
    (warnings.few_rounds, {"rounds_asked": 4, "rounds_ok": 3}),
    (warnings.interval_wider_than_asked, {"target_precision": 0.01, "precision": 0.01}),
    (warnings.interval_wider_than_asked, {"target_precision": 0.01, "precision": 0.01, "rounds_ended_early": 1}),
    (warnings.interval_wider_than_asked, {"target_precision": None, "precision": 0.5}),
    (warnings.drift, {"drifting_rounds": 1, "largest_drift": 0.01}),
    (warnings.drift, {"drifting_rounds": 1, "largest_drift": 0.04, "target_precision": 0.05}),
    (warnings.timer_resolution, {"inter_token_seconds": 0.02, "clock_resolution_seconds": 1e-9}),
    (warnings.timer_resolution, {"inter_token_seconds": None, "clock_resolution_seconds": 1.0}),
    # Above 1%, and within its own noise; established, and below 1%.
    (
        warnings.observer_cost,
        {"observer_cost_ratio": 1.05, "observer_cost_low": 0.99, "observer_cost_high": 1.1},
    ),
    (
        warnings.observer_cost,
        {"observer_cost_ratio": 1.005, "observer_cost_low": 1.004, "observer_cost_high": 1.006},
    ),
    (warnings.observer_cost, {"observer_cost_ratio": 1.05}),
    (warnings.throttled_by_cpu_limit, {"quota_throttled_share": 0.001}),
    (warnings.other_processes, {"other_processes": 0, "others_cpu_share": 0.01}),
    (warnings.machine_loaded, {"cpu_share_before": 0.125}),
    (warnings.swap_in_use, {"swap_used_bytes": 2**20}),
    (warnings.clocks_changing, {"clock_spread": 0.01}),
    (warnings.reference_missing, {"reference": "compared"}),
    (warnings.roofline_exceeded, {"mbu": 1.05, "mfu": 0.5}),
    (warnings.output_differs, {"top1_agreement": 0.95, "first_different_token": 3}),
]


@pytest.mark.parametrize(("check", "changes", "clause"), FIRING)
def test_it_warns(check: Check, changes: dict[str, Any], clause: str) -> None:
    warning = check(replace(QUIET, **changes))
    assert warning is not None
    assert clause in warning.what
    assert warning.remedy.endswith(".")
    assert not warning.what.endswith(".")


@pytest.mark.parametrize(("check", "changes"), SILENT)
def test_it_is_silent(check: Check, changes: dict[str, Any]) -> None:
    assert check(replace(QUIET, **changes)) is None


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_not_told_is_no_warning(check: Check) -> None:
    assert check(QUIET) is None


def test_every_check_is_tried_here() -> None:
    assert {check for check, *_ in FIRING} | {warnings.output_differs} == set(CHECKS)


def test_an_output_that_differs_is_told_with_the_limits() -> None:
    facts = replace(
        QUIET,
        output_differs=True,
        top1_agreement=0.625,
        nll_difference=0.31,
        first_different_token=4,
        min_top1_agreement=0.9,
        max_nll_difference=0.05,
    )
    warning = warnings.output_differs(facts)
    assert warning is not None
    assert warning.what == (
        "top-1 tokens agree at 62% of the prompt's positions; the prompt's likelihood is 0.31 nats a token apart; "
        "number 5 of the generated tokens is the first that differs (limits: 90%, 0.05 nats)"
    )
    assert warning.title == "output differs"


def test_the_remedy_fits_the_cause() -> None:
    wide = replace(QUIET, target_precision=0.01, precision=0.1)
    between, early = (warnings.interval_wider_than_asked(replace(wide, rounds_ended_early=count)) for count in (0, 1))
    assert between is not None
    assert early is not None
    assert "max_seconds" not in between.remedy
    assert "max_seconds" in early.remedy
    asked, failed = (warnings.few_rounds(replace(QUIET, rounds_asked=asked, rounds_ok=2)) for asked in (2, 3))
    assert asked is not None
    assert failed is not None
    assert "sweep.round" in asked.remedy
    assert "hfbench retry" in failed.remedy


def test_phrases() -> None:
    assert [percent(share) for share in (0.0123, 0.0034, 0.156, 0.999, 1.2, 12.0)] == [
        "1.2%",
        "0.34%",
        "16%",
        "100%",
        "120%",
        "1200%",
    ]
    assert (counted(1, 1), counted(1, 3)) == ("the only round", "1 of 3 rounds")
