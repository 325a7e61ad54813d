"""Two sides of known truth compared, and the values of an axis within one: verdicts, obstacles, and what changed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from benchmarks.synthetic_tables import START, Plan, sweep
from hfbench.compare.axis import AxisComparison, compare_axis, payoff, prices_in_quality
from hfbench.compare.compare import Comparison, Options, compare_sides
from hfbench.compare.layout import axis_page
from hfbench.compare.pairs import HEADLINE, choose_metrics
from hfbench.compare.side import Side
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES, Configuration
from hfbench.report.pages import markdown
from hfbench.statistics.verdicts import FASTER, INCOMPARABLE, SAME, SLOWER, UNDECIDED, interval
from tests.compare.project import MACHINE, MANIFEST, side
from tests.conftest import some

SWEEP = sweep(attn_implementation=["eager", "sdpa"], batch_size=[1, 4])
BASELINE = Plan(SWEEP)
LATER = replace(BASELINE, seed=1, started=START + timedelta(days=1))
ATTENTION = "attn_implementation"
AXIS_PLAN = Plan(sweep(attn_implementation=["sdpa", "flex_attention", "eager"], batch_size=[1, 4]), between=0.005)
INTERLEAVED = replace(BASELINE, seed=1, started=START + timedelta(minutes=5))


def compared(
    baseline: Plan | Side, candidate: Plan | Side, *metrics: str, across_environments: bool = False
) -> Comparison:
    """The comparison of two plans or sides."""
    old, new = (side(each) if isinstance(each, Plan) else each for each in (baseline, candidate))
    return compare_sides(old, new, Options(choose_metrics(metrics), across_environments=across_environments))


def words(comparison: Comparison, metric: str = "end_to_end_seconds") -> dict[tuple[str, int], str]:
    """The verdicts by attention and batch size."""
    return {
        (each.pair.baseline.axes["attn_implementation"], each.pair.baseline.axes["batch_size"]): each.verdict.word
        for each in comparison.judged
        if each.metric.name == metric
    }


def slow_sdpa(configuration: Configuration) -> float:
    return 1.1 if configuration.attn_implementation == "sdpa" else 1.0


@pytest.mark.parametrize("candidate", [LATER, INTERLEAVED])
def test_a_planted_slowdown_is_found_and_nothing_else(candidate: Plan) -> None:
    comparison = compared(BASELINE, replace(candidate, effect=slow_sdpa))
    for metric in ("end_to_end_seconds", "decode_tokens_per_second", "time_to_first_token_seconds"):
        verdicts = words(comparison, metric)
        assert {verdicts["sdpa", batch] for batch in (1, 4)} == {SLOWER}
        assert {verdicts["eager", batch] for batch in (1, 4)} <= {SAME, UNDECIDED}
    assert set(words(comparison, "load_seconds").values()) <= {SAME, UNDECIDED}
    assert comparison.is_slower
    mean = some(comparison.means["end_to_end_seconds"].ratio)
    assert mean.estimate == pytest.approx(1.1**0.5, rel=0.01)
    assert interval(mean).low > 1


def test_a_speed_up_is_faster_in_latency_and_in_throughput() -> None:
    comparison = compared(BASELINE, replace(LATER, effect=lambda _: 0.9), "e2e", "decode")
    assert set(words(comparison).values()) == set(words(comparison, "decode_tokens_per_second").values()) == {FASTER}
    assert not comparison.is_slower


def test_records_that_were_not_measured_again_are_the_same() -> None:
    comparison = compared(replace(BASELINE, rounds=(1,)), replace(BASELINE, rounds=(1,)))
    assert set(words(comparison).values()) == {SAME}
    assert comparison.tests == 0
    assert any("4 points not measured again" in note for note in comparison.notes)


def test_rounds_that_interleave_are_paired_and_others_not() -> None:
    drift = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    quiet: dict[str, Any] = {"within": 0.005, "between": 0.002, "drift": drift}
    slower: Callable[[Configuration], float] = lambda _: 1.05  # noqa: E731
    paired = compared(replace(BASELINE, **quiet), replace(INTERLEAVED, effect=slower, **quiet), "e2e")
    alone = compared(replace(BASELINE, **quiet), replace(LATER, effect=slower, **quiet), "e2e")
    assert set(words(paired).values()) == {SLOWER}
    assert set(words(alone).values()) == {UNDECIDED}
    assert any("round by round" in note for note in paired.notes)
    assert any("two separate runs" in note for note in alone.notes)


def test_one_round_on_a_side_is_undecided() -> None:
    comparison = compared(BASELINE, replace(LATER, rounds=(1,), effect=lambda _: 2.0))
    assert set(words(comparison).values()) == {UNDECIDED}
    assert not comparison.is_slower
    assert comparison.means["end_to_end_seconds"].ratio is None


def on(**parts: Any) -> Side:
    """The slower side, on a machine that differs in these parts."""
    return side(replace(LATER, effect=slow_sdpa), environment={**MACHINE, **parts})


def given(**facts: Any) -> Plan:
    """The slower side, measured as these facts say."""
    return replace(LATER, effect=slow_sdpa, facts=tuple({"input_tensors_sha256": "0" * 64, **facts}.items()))


@pytest.mark.parametrize(
    ("candidate", "reason", "is_machine"),
    [
        (on(cpu={"brand": "Other CPU", "physical_cores": 2}), "cpu.brand Synthetic CPU → Other CPU", True),
        (on(system={**MACHINE["system"], "kernel": "6.2.0"}), "system.kernel 6.1.0 → 6.2.0", True),
        (on(variables={"OMP_NUM_THREADS": "1"}), "variables.OMP_NUM_THREADS none → 1", True),
        (on(accelerators=[{"name": "GPU", "driver_version": "550"}]), "accelerators.0.name none → GPU", True),
        (side(replace(LATER, effect=slow_sdpa), environment={}), "machine known → unknown", True),
        (given(device_name="Other device"), "device Synthetic device → Other device", True),
        (given(intra_op_threads=8), "threads 2 → 8", True),
        (given(input_tensors_sha256="1" * 64), "the prompt's token ids differ", False),
    ],
)
def test_another_machine_is_incomparable_unless_it_is_meant_and_other_work_always(
    candidate: Plan | Side, reason: str, is_machine: bool
) -> None:
    comparison = compared(BASELINE, candidate)
    assert set(words(comparison).values()) == {INCOMPARABLE}
    assert reason in (comparison.of_metric(HEADLINE)[0].verdict.reason or "")
    assert not comparison.is_slower
    across = compared(BASELINE, candidate, across_environments=True)
    assert words(across)["sdpa", 1] == (SLOWER if is_machine else INCOMPARABLE)
    assert (reason in across.environment_differences) == isinstance(candidate, Side)


def test_software_is_what_is_compared() -> None:
    packages = {"torch": {"version": "2.13.0"}, "transformers": {"version": "5.23.0", "commit": "c" * 40}}
    other = side(LATER, environment={**MACHINE, "packages": packages, "python": {"version": "3.12.1"}})
    comparison = compared(BASELINE, other)
    assert INCOMPARABLE not in words(comparison).values()
    sentences = [change.sentence for change in comparison.changes if change.kind == "package"]
    assert sentences == ["transformers 5.22.2 → 5.23.0 at cccccccccc", "python.version 3.11.7 → 3.12.1"]


def test_another_architecture_is_incomparable_and_another_revision_is_not() -> None:
    gpt = {**MANIFEST, "architecture": "GPT2LMHeadModel"}
    assert set(words(compared(BASELINE, side(LATER, manifests={"synthetic": gpt}))).values()) == {INCOMPARABLE}
    revision = {**MANIFEST, "provenance": {"revision": "b" * 40}}
    comparison = compared(BASELINE, side(LATER, manifests={"synthetic": revision}))
    assert INCOMPARABLE not in words(comparison).values()
    (change,) = [change for change in comparison.changes if change.kind == "model"]
    assert change.sentence == f"synthetic.provenance.revision {'a' * 40} → {'b' * 40}"


def test_a_point_that_fails_now_is_a_finding() -> None:
    def broken(configuration: Configuration) -> str | None:
        is_broken = configuration.batch_size == 4 and configuration.attn_implementation == "sdpa"
        return "ImportError: no kernel" if is_broken else None

    comparison = compared(BASELINE, replace(LATER, fails=broken))
    (change,) = comparison.pairing.changed
    assert (change.is_regression, change.status_change) == (True, "ok → failed: ImportError: no kernel")
    assert ("sdpa", 4) not in words(comparison)
    assert comparison.is_slower
    (back,) = compared(replace(BASELINE, fails=broken), LATER).pairing.changed
    assert (back.is_regression, back.status_change) == (False, "failed → ok: ImportError: no kernel")


def test_one_round_that_fails_now_is_a_finding_too() -> None:
    comparison = compared(BASELINE, replace(LATER, fails=lambda each: "OOM" if each.round == 3 else None))
    assert {pair.status_change for pair in comparison.pairing.changed} == {"ok → 6 of 7 rounds ok: OOM"}
    assert comparison.is_slower
    assert len(words(comparison)) == 4


def test_points_of_one_side_are_listed_and_not_judged() -> None:
    comparison = compared(replace(BASELINE, configurations=SWEEP[:3]), replace(LATER, configurations=SWEEP[1:]))
    assert len(comparison.pairing.pairs) == 2
    assert [point.axes["batch_size"] for point in comparison.pairing.only_baseline] == [1]
    assert [point.axes["batch_size"] for point in comparison.pairing.only_candidate] == [4]


def test_an_output_that_differs_is_marked_and_left_out_of_the_mean() -> None:
    wrong = replace(LATER, effect=lambda _: 0.5, output_differs=lambda each: each.batch_size == 4)
    comparison = compared(BASELINE, wrong)
    marked = {pair.baseline.axes["batch_size"]: pair.output_differs for pair in comparison.pairing.pairs}
    assert marked == {1: (), 4: ("candidate",)}
    assert comparison.means["end_to_end_seconds"].pairs == 2
    assert any("2 points marked !" in note for note in comparison.notes)


def test_what_changed_is_named() -> None:
    kernel = "RMSNorm: owner/kernels@1a2b3c4d5e6f"
    gomp, cudnn = "libgomp: libgomp.so.1 of torch, 8 bytes", "libcudnn: libcudnn.so.9.23 of nvidia, 9 bytes"
    facts = {"input_tensors_sha256": "1" * 64, "kernels": [kernel], "clock_mhz": 1410.0}
    before = replace(BASELINE, facts=(*BASELINE.facts, ("clock_mhz", 1980.0), ("libraries", [gomp, cudnn])))
    baseline = side(before, params={"sampling": {"max_seconds": 12}, "sweep": {"batch_size": [1, 4]}})
    candidate = side(
        replace(LATER, facts=(*facts.items(), ("libraries", [gomp, "libcudnn: libcudnn.so.9.24 of nvidia, 9 bytes"]))),
        params={"sampling": {"max_seconds": 20}, "sweep": {"batch_size": [1, 4, 8]}},
        manifests={"synthetic": {**MANIFEST, "files": [{**MANIFEST["files"][0], "size_bytes": 2_000_000}]}},
    )
    sentences = [f"{change.kind}: {change.sentence}" for change in compared(baseline, candidate).changes]
    assert sentences == [
        "params: sampling.max_seconds 12 → 20",
        "params: sweep.batch_size [1, 4] → [1, 4, 8]",
        "code: not known, since side and side is no revision",
        "library: libcudnn libcudnn.so.9.23 of nvidia, 9 bytes → libcudnn.so.9.24 of nvidia, 9 bytes",
        "kernel: RMSNorm none → owner/kernels@1a2b3c4d5e6f",
        "hardware: the device's clock while it was measured 1980 → 1410 MHz at 4 of 4 points",
        "model: synthetic files (model.safetensors) 1.0 MB → 2.0 MB",
        "prompt: the prompt's token ids differ at 4 of 4 points",
    ]


@pytest.mark.parametrize("noise", [0.01, 0.03])
@pytest.mark.parametrize("effect", [1.0, 1.01, 1 / 1.01, 1.03, 1 / 1.03, 1.1, 1 / 1.1])
def test_the_verdicts_are_right_where_the_truth_is_known(noise: float, effect: float) -> None:
    """At effect 0 at most 5% of false alarms, at 10% at least 95% right, and `same` beyond 2% in at most 5%."""
    many = sweep(batch_size=list(range(1, 61)))
    baseline = Plan(many, iterations=8, between=noise, seed=7)
    candidate = replace(baseline, seed=8, started=START + timedelta(days=1), effect=lambda _: effect)
    counts = Counter(compared(baseline, candidate, "e2e").counts(HEADLINE))
    right, wrong = (SLOWER, FASTER) if effect > 1 else (FASTER, SLOWER)
    if effect == 1:
        assert counts[SLOWER] + counts[FASTER] <= 0.05 * len(many)
    else:
        assert counts[wrong] <= 0.05 * len(many)
    if abs(effect - 1) > 0.02:
        assert counts[SAME] <= 0.05 * len(many)
    if abs(effect - 1) > 0.09:
        assert counts[right] >= 0.95 * len(many)


def truth(configuration: Configuration) -> float:
    """flex is a tenth slower than sdpa at batch 1 and a tenth faster at batch 4; eager is 1.3 times as slow anyway."""
    if configuration.attn_implementation == "flex_attention":
        return 1.1 if configuration.batch_size == 1 else 0.9
    return 1.0


def axis_compared(plan: Plan, axis: str = ATTENTION, reference: str | None = None, *metrics: str) -> AxisComparison:
    return compare_axis(side(plan), axis, reference, Options(choose_metrics(metrics or ["e2e"])))


def axis_words(comparison: AxisComparison, value: Any) -> dict[int, str]:
    """The verdicts on a value against the reference, by batch size."""
    (found,) = (each for other, each in comparison.comparisons if other == value)
    return {each.pair.baseline.axes["batch_size"]: each.verdict.word for each in found.of_metric(HEADLINE)}


def test_each_value_stands_against_eager_where_it_was_measured_or_a_named_one() -> None:
    plan = replace(AXIS_PLAN, effect=truth)
    comparison = axis_compared(plan)
    assert comparison.reference == "eager"
    assert [value for value, _ in comparison.comparisons] == ["sdpa", "flex_attention"]
    assert axis_words(comparison, "sdpa") == axis_words(comparison, "flex_attention") == {1: FASTER, 4: FASTER}
    assert axis_words(axis_compared(plan, reference="sdpa"), "flex_attention") == {1: SLOWER, 4: FASTER}


def test_the_rounds_of_one_run_are_paired() -> None:
    drift = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
    comparison = axis_compared(replace(AXIS_PLAN, effect=truth, drift=drift), reference="sdpa")
    assert axis_words(comparison, "flex_attention") == {1: SLOWER, 4: FASTER}
    assert any("round by round" in note for _, each in comparison.comparisons for note in each.notes)


def test_the_winner_is_told_for_each_workload() -> None:
    winners = axis_compared(replace(AXIS_PLAN, effect=truth)).winners
    place = CONFIGURATION_AXES.index("batch_size")
    assert [(winner.axes[place], winner.value, winner.rival, winner.verdict.word) for winner in winners] == [
        (1, "sdpa", "flex_attention", FASTER),
        (4, "flex_attention", "sdpa", FASTER),
    ]
    assert some(winners[0].contrast.ratio).estimate == pytest.approx(1 / 1.1, rel=0.02)
    # Throughput is won by the higher value.
    winners = axis_compared(replace(AXIS_PLAN, effect=truth), ATTENTION, None, "decode").winners
    assert [winner.value for winner in winners] == ["sdpa", "flex_attention"]


def test_values_that_are_level_have_no_winner() -> None:
    winners = axis_compared(replace(AXIS_PLAN, between=0.001, within=0.002)).winners
    assert {winner.verdict.word for winner in winners} == {SAME}
    noisy = axis_compared(replace(AXIS_PLAN, between=0.05, within=0.05)).winners
    assert {winner.verdict.word for winner in noisy} == {UNDECIDED}


def test_a_value_whose_output_differs_does_not_win() -> None:
    wrong = replace(
        AXIS_PLAN,
        effect=lambda each: 0.5 if each.attn_implementation == "flex_attention" else 1.0,
        output_differs=lambda each: each.attn_implementation == "flex_attention",
    )
    winners = axis_compared(wrong).winners
    assert {(winner.value, winner.left_out) for winner in winners} == {("sdpa", ("flex_attention",))}


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ({1: 1.1, 2: 0.9, 4: 0.8}, "faster from batch 2 on; slower at batch 1"),
        ({1: 0.8, 2: 0.9, 4: 1.1}, "faster up to batch 2; slower at batch 4"),
        ({1: 0.8, 2: 0.8, 4: 1.0}, "faster up to batch 2; same at batch 4"),
        ({1: 0.8, 2: 0.8, 4: 0.8}, "faster everywhere"),
        ({1: 0.8, 2: 1.1, 4: 0.8}, "faster at b1, b4; slower at b2"),
    ],
)
def test_where_a_value_pays_is_said_in_a_sentence(effects: dict[int, float], expected: str) -> None:
    def truth(each: Configuration) -> float:
        return 1.0 if each.quantization == "none" else effects[each.batch_size]

    plan = Plan(sweep(quantization=["int8", "none"], batch_size=[1, 2, 4]), effect=truth, between=0.002, within=0.002)
    comparison = axis_compared(plan, "quantization")
    assert comparison.reference == "none"  # although it comes second
    ((value, found),) = comparison.comparisons
    assert value == "int8"
    (metric,) = found.options.metrics
    assert payoff(found, metric) == expected
    assert f"int8: {expected}" in markdown(list(axis_page(comparison, is_full=True)))


def test_wrong_output_and_failing_points_pay_nowhere() -> None:
    plan = Plan(
        sweep(quantization=["none", "nf4"], batch_size=[1, 4, 16]),
        effect=lambda each: 1.0 if each.quantization == "none" else 0.5,
        output_differs=lambda each: each.quantization == "nf4" and each.batch_size == 4,
        fails=lambda each: "no memory" if each.quantization == "nf4" and each.batch_size == 16 else None,
    )
    ((_, found),) = axis_compared(plan, "quantization").comparisons
    assert payoff(found, HEADLINE) == "faster at b1; output differs at b4; failed at b16"


def test_a_value_has_its_price_against_its_own_reference() -> None:
    prices = {"none": 0.0, "int8": 0.2}

    def price(each: Configuration) -> float | None:
        return prices[each.quantization] + 0.01 * (each.cache_implementation == "quantized")

    axes = {"quantization": ["none", "int8"], "cache_implementation": ["auto", "quantized"]}
    run = side(Plan(sweep(**axes), nll_change=price))
    for axis, reference, told in (
        ("cache_implementation", None, {"quantized": "+0.01 nats a token"}),
        ("quantization", "int8", {"none": "-0.2 nats a token"}),
    ):
        comparison = compare_axis(run, axis, reference, Options(choose_metrics(["e2e"])))
        assert prices_in_quality(comparison) == told


def test_where_a_value_pays_is_said_of_points_that_have_the_metric() -> None:
    batches = [1, 4]
    run = side(Plan(sweep(attn_implementation=["eager", "sdpa"], compile_mode=["off", "default"], batch_size=batches)))
    compiled = pl.when(pl.col("compile_mode") == "default").then(pl.lit(2.0) + pl.col("round") / 100)
    run = replace(run, points=run.points.with_columns(compile_seconds=compiled))
    ((_, found),) = compare_axis(run, ATTENTION, None, Options(choose_metrics(["compile"]))).comparisons
    assert payoff(found, found.options.metrics[0]) == "same everywhere"


def test_rounds_that_a_side_lacks_are_no_separate_runs() -> None:
    failing = replace(INTERLEAVED, fails=lambda each: "no" if each.round == 3 and each.batch_size == 1 else None)
    notes = compared(BASELINE, failing, "e2e").notes
    assert "2 points compared without pairing rounds, of which a side lacks some that the other has." in notes
    assert not any("two separate runs" in note for note in notes)


def test_the_values_of_an_axis_are_of_one_machine_even_where_it_is_unknown() -> None:
    unknown = side(AXIS_PLAN, environment={})
    comparison = compare_axis(unknown, ATTENTION, None, Options(choose_metrics(["e2e"])))
    words = {judged.verdict.word for _, each in comparison.comparisons for judged in each.judged}
    assert INCOMPARABLE not in words
    assert FASTER in words


def test_what_quantising_costs_in_quality_stands_beside_the_speed() -> None:
    def price(each: Configuration) -> float | None:
        return {"none": 0.0, "int8": 0.01 * each.batch_size, "nf4": 0.25}.get(each.quantization)

    plan = Plan(sweep(quantization=["none", "int8", "nf4", "new"], batch_size=[1, 2]), nll_change=price)
    comparison = axis_compared(plan, "quantization")
    assert prices_in_quality(comparison) == {"int8": "+0.01 to +0.02 nats a token", "nf4": "+0.25 nats a token"}
    assert "nf4: +0.25 nats a token" in markdown(list(axis_page(comparison, is_full=True)))
    # Of what is to compute the same, a check of the output says it.
    levels = replace(AXIS_PLAN, nll_change=lambda _: 0.01)
    assert prices_in_quality(axis_compared(levels)) == {}


def test_a_boolean_axis_stands_against_false() -> None:
    plan = Plan(sweep(use_kernels=[True, False]), effect=lambda each: 0.8 if each.use_kernels else 1.0)
    comparison = axis_compared(plan, "use_kernels")
    assert comparison.reference is False
    assert axis_words(comparison, True) == {1: FASTER}
    assert axis_compared(plan, "use_kernels", "yes").reference is True


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
        axis_compared(AXIS_PLAN, axis, reference)
