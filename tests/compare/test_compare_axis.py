"""The values of an axis within one run: each against the reference, and which is best where."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.synthetic_tables import Plan, sweep
from hfbench.compare.axis import AxisComparison, compare_axis
from hfbench.compare.compare import Options
from hfbench.compare.pairs import choose_metrics
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES, Configuration
from hfbench.statistics.verdicts import FASTER, SAME, SLOWER, UNDECIDED
from tests.compare.sides import side

ATTENTION = "attn_implementation"
PLAN = Plan(sweep(attn_implementation=["sdpa", "flex_attention", "eager"], batch_size=[1, 4]), between=0.005)


def truth(configuration: Configuration) -> float:
    """flex is a tenth slower than sdpa at batch 1 and a tenth faster at batch 4; eager is 1.3 times as slow anyway."""
    if configuration.attn_implementation == "flex_attention":
        return 1.1 if configuration.batch_size == 1 else 0.9
    return 1.0


def compared(plan: Plan, axis: str = ATTENTION, reference: str | None = None, *metrics: str) -> AxisComparison:
    return compare_axis(side(plan), axis, reference, Options(choose_metrics(metrics or ["e2e"])))


def words(comparison: AxisComparison, value: Any) -> dict[int, str]:
    """The verdicts on a value against the reference, by batch size."""
    (found,) = (each for other, each in comparison.comparisons if other == value)
    return {
        result.pair.baseline.axes["batch_size"]: result.judged["end_to_end_seconds"].verdict.word
        for result in found.results
    }


def test_each_value_stands_against_eager_where_it_was_measured() -> None:
    comparison = compared(replace(PLAN, effect=truth))
    assert comparison.reference == "eager"
    assert [value for value, _ in comparison.comparisons] == ["sdpa", "flex_attention"]
    assert words(comparison, "sdpa") == words(comparison, "flex_attention") == {1: FASTER, 4: FASTER}


def test_the_reference_can_be_named() -> None:
    comparison = compared(replace(PLAN, effect=truth), reference="sdpa")
    assert words(comparison, "flex_attention") == {1: SLOWER, 4: FASTER}


def test_the_rounds_of_one_run_are_paired() -> None:
    drift = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
    comparison = compared(replace(PLAN, effect=truth, drift=drift), reference="sdpa")
    assert words(comparison, "flex_attention") == {1: SLOWER, 4: FASTER}
    assert any("round by round" in note for _, each in comparison.comparisons for note in each.notes)


def test_the_winner_is_told_for_each_workload() -> None:
    winners = compared(replace(PLAN, effect=truth)).winners
    place = CONFIGURATION_AXES.index("batch_size")
    assert [(winner.axes[place], winner.value, winner.rival, winner.verdict.word) for winner in winners] == [
        (1, "sdpa", "flex_attention", FASTER),
        (4, "flex_attention", "sdpa", FASTER),
    ]
    ratio = winners[0].contrast.ratio
    assert ratio is not None
    assert ratio.estimate == pytest.approx(1 / 1.1, rel=0.02)


def test_values_that_are_level_have_no_winner() -> None:
    winners = compared(replace(PLAN, between=0.001, within=0.002)).winners
    assert {winner.verdict.word for winner in winners} == {SAME}
    noisy = compared(replace(PLAN, between=0.05, within=0.05)).winners
    assert {winner.verdict.word for winner in noisy} == {UNDECIDED}


def test_a_value_whose_output_differs_does_not_win() -> None:
    wrong = replace(
        PLAN,
        effect=lambda each: 0.5 if each.attn_implementation == "flex_attention" else 1.0,
        output_differs=lambda each: each.attn_implementation == "flex_attention",
    )
    winners = compared(wrong).winners
    assert {(winner.value, winner.left_out) for winner in winners} == {("sdpa", ("flex_attention",))}


def test_throughput_is_won_by_the_higher_value() -> None:
    winners = compared(replace(PLAN, effect=truth), ATTENTION, None, "decode").winners
    assert [winner.value for winner in winners] == ["sdpa", "flex_attention"]


def test_a_boolean_axis_stands_against_false() -> None:
    plan = Plan(sweep(use_kernels=[True, False]), effect=lambda each: 0.8 if each.use_kernels else 1.0)
    comparison = compared(plan, "use_kernels")
    assert comparison.reference is False
    assert words(comparison, True) == {1: FASTER}
    assert compared(plan, "use_kernels", "yes").reference is True


@pytest.mark.parametrize(
    ("axis", "reference", "expected"),
    [
        ("batch_size", None, "do other work"),
        ("attention", None, "expected one of attn_implementation"),
        ("dtype", None, "was measured with bfloat16 alone"),
        (ATTENTION, "flash", "was measured with sdpa, flex_attention, eager"),
    ],
)
def test_an_axis_that_cannot_be_compared_is_told(axis: str, reference: str | None, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        compared(PLAN, axis, reference)
