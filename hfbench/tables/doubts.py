"""The checks of what makes a configuration's numbers doubtful: each yields what, with the numbers, and what to do."""

from collections.abc import Callable, Iterator
from math import ceil
from typing import TypeAlias

from hfbench.tables.agreement import MISSING_REFERENCE, REFERENCE_NOT_OK
from hfbench.tables.configurations import Facts
from hfbench.tables.roofline import NOISE_OF_CEILINGS

POINT = "'POINT'"  # in a command of a remedy: stands for the configuration's key
Told: TypeAlias = Iterator[tuple[str, str]]  # `what` and `remedy`, or nothing


def percent(share: float) -> str:
    """Return a share as a percentage with two significant digits: 1.2%, 0.34%, 15%, 120%."""
    value = 100 * share
    return f"{value:.2g}%" if abs(value) < 99.5 else f"{value:.0f}%"


def counted(rounds: int, of: int) -> str:
    """Return `2 of 3 rounds`, or `the only round`."""
    return "the only round" if rounds == of == 1 else f"{rounds} of {of} rounds"


def output_differs(facts: Facts) -> Told:
    """The output is farther from the reference than `limits` allow."""
    if not facts.output_beyond_limits:
        return
    found = []
    if facts.top1_agreement is not None:
        found.append(f"top-1 tokens agree at {percent(facts.top1_agreement)} of the prompt's positions")
    if facts.nll_difference is not None:
        found.append(f"the prompt's likelihood is {facts.nll_difference:.2g} nats a token apart")
    if facts.first_different_token is not None:
        found.append(f"number {facts.first_different_token + 1} of the generated tokens is the first that differs")
    if facts.path_agrees is False and (facts.path_difference or 0) <= (facts.path_tolerance or 0):
        found.append("the timed call chose a token that greedy decoding does not, by more than rounding explains")
    elif facts.path_agrees is False:
        found.append(
            f"what is timed gives other logits than one plain forward pass, {facts.path_difference or 0:.1e} of their "
            f"size apart where rounding explains {facts.path_tolerance or 0:.1e}"
        )
    limits = f"limits: {percent(facts.min_top1_agreement or 0)}, {facts.max_nll_difference:g} nats"
    yield (
        f"{'; '.join(found)} ({limits})",
        "Find out why before you use its speed, which is not marked as best; float32 tells rounding from a mistake.",
    )


def rounds_disagree(facts: Facts) -> Told:
    """The same configuration gave another output in another round."""
    if facts.rounds_disagreeing:
        yield (
            f"the output of {counted(facts.rounds_disagreeing, facts.rounds_ok)} is not that of the first",
            "Something in it is not deterministic; find out what before you trust its output.",
        )


def other_kernels(facts: Facts) -> Told:
    """Kernels replaced other layers in another round, as after a download that failed."""
    if facts.rounds_with_other_kernels:
        rounds = counted(facts.rounds_with_other_kernels, facts.rounds_ok)
        yield (
            f"other layers have kernels in {rounds} than in the first",
            "Its speed is not marked as best. `hfbench show --point 'POINT'` names the layers of each round; measure "
            "the point again (`hfbench retry 'POINT'`).",
        )


def path_not_checked(facts: Facts) -> Told:
    """What is timed could not be compared with what the model computes."""
    if facts.path_checked is False:
        yield (
            "what is timed could not be compared with one plain forward pass",
            "Read output.path in the record for the reason, and measure a shorter prompt beside it, which can be "
            "compared.",
        )


def roofline_exceeded(facts: Facts) -> Told:
    """Something would be above what can be, and is not told: it or the ceiling is wrong."""
    above = {
        "decoding reads {} times as many bytes a second": facts.decode_bandwidth_above_roof,
        "decoding computes {} times as many FLOPs a second": facts.decode_products_above_roof,
        "the prefill reads {} times as many bytes a second": facts.prefill_bandwidth_above_roof,
        "the prefill computes {} times as many FLOPs a second": facts.prefill_products_above_roof,
    }
    if told := {words.format(f"{factor:.3g}"): factor for words, factor in above.items() if factor is not None}:
        what = f"{' and '.join(told)} as the device was measured to reach, so that its utilisation is not known"
        yield what, _remedy_for_roofline(facts, max(told.values()))


_MEASURE_CEILINGS = (
    "easure the ceilings again on a quiet machine (`dvc repro --force --single-item ceilings`), then `dvc repro`."
)


def _remedy_for_roofline(facts: Facts, factor: float) -> str:
    others = facts.ceilings_others_cpu_share or 0
    if others > LARGEST_SHARE_OF_OTHERS:
        return (
            f"Other processes took {percent(others)} of the CPUs while the ceilings were measured: m{_MEASURE_CEILINGS}"
        )
    if factor <= NOISE_OF_CEILINGS:
        return f"M{_MEASURE_CEILINGS}"
    if facts.rows_choose_experts and facts.decode_bandwidth_above_roof:
        return "Rely on batch size 1: bytes are counted as if rows chose experts alike, and a router may prefer some."
    if facts.compile_mode != "off" or facts.use_kernels:
        return (
            "Rely on the same configuration uncompiled and without kernels: the ceiling is of torch's own products, "
            "and fused ones may be faster."
        )
    return f"M{_MEASURE_CEILINGS} If it stays, the model's needs are counted wrong: report its config to hfbench."


def slower_than_float32(facts: Facts) -> Told:
    """The dtype is emulated, or computed as slowly as if it were."""
    if facts.dtype_emulated is None:
        return
    rates = (
        ("matrix products reach", facts.dtype_flops_per_second, facts.float32_flops_per_second),
        ("those of one row, as in decoding,", facts.dtype_row_flops_per_second, facts.float32_row_flops_per_second),
    )
    measured = [
        f"{words} {rate / 1e9:.3g} GFLOP/s, and {in_float32 / 1e9:.3g} in float32"
        for words, rate, in_float32 in rates
        if rate is not None and in_float32 is not None
    ]
    cause = f"this CPU has no instructions for {facts.dtype} products and torch emulates them"
    what = "; ".join([cause, *measured] if facts.dtype_emulated else [f"in {facts.dtype} {measured[0]}", *measured[1:]])
    yield what, "Add float32 to sweep.dtype and compare: it takes twice the memory, and needs no emulation."


def reference_missing(facts: Facts) -> Told:
    """There is nothing to compare the output with."""
    what = "no reference was measured that its output could be compared with"
    if facts.reference == MISSING_REFERENCE:
        yield what, f"Have the same with {facts.reference_wanted} among the points of the sweep."
    if facts.reference == REFERENCE_NOT_OK:
        yield what, "See under Not ok why its reference was not."


# Two rounds give their difference and no idea of how far it is from typical.
LEAST_ROUNDS = 3
# Where no precision is asked for: the default of `sampling.target_precision`. What changes by less hides no effect.
NEGLIGIBLE_DRIFT = 0.01


def few_rounds(facts: Facts) -> Told:
    """Too few rounds are ok to tell how much processes differ from each other."""
    if facts.rounds_ok >= LEAST_ROUNDS:
        return
    rounds = counted(facts.rounds_ok, facts.rounds_asked) + " ok"
    if facts.rounds_ok == facts.rounds_asked:
        rounds = "one round" if facts.rounds_ok == 1 else f"{facts.rounds_ok} rounds"
    remedy = f"Give sweep.round at least {LEAST_ROUNDS} values."
    if facts.rounds_asked >= LEAST_ROUNDS:
        remedy = "See under Not ok why the other rounds were not; `hfbench retry` measures them again."
    yield f"{rounds}, and it takes {LEAST_ROUNDS} to tell noise from effect", remedy


def interval_wider_than_asked(facts: Facts) -> Told:
    """The interval is wider than `sampling.target_precision`; or there is none, and sampling ended too early."""
    target, ended_early = facts.target_precision, facts.rounds_ended_early
    if target is None:
        return
    early = f"sampling ended before that in {counted(ended_early, facts.rounds_ok)}"
    if facts.precision is None and ended_early:
        what = f"the median end-to-end latency should be known to ±{percent(target)}, and {early}"
    elif facts.precision is not None and facts.precision > target:
        known = f"to ±{percent(facts.precision)}" if facts.precision < 1 else "no better than to ±100%"
        what = f"the median end-to-end latency is known {known}, and ±{percent(target)} was asked"
        what += f"; {early}" * bool(ended_early)
    else:
        return
    remedy = "Add rounds to sweep.round: each round alone is precise enough, and they differ from each other."
    if ended_early:
        remedy = "Raise sampling.max_seconds and sampling.max_iterations, and add rounds to sweep.round."
    yield what, remedy


def few_iterations(facts: Facts) -> Told:
    """`sampling.max_seconds` ended sampling before `sampling.min_iterations`."""
    if facts.rounds_with_few_iterations:
        yield (
            f"sampling.max_seconds ended sampling after {facts.iterations_sampled} iterations in "
            f"{counted(facts.rounds_with_few_iterations, facts.rounds_ok)}; the {facts.iterations_asked} asked take "
            f"{ceil(facts.asked_iterations_seconds or 0)} s",
            "Raise sampling.max_seconds to what they take, or measure fewer tokens.",
        )


def drift(facts: Facts) -> Told:
    """Latencies rise or fall within a process, by more than the precision that was asked for."""
    change = facts.largest_drift or 0
    if facts.drifting_rounds and abs(change) > (facts.target_precision or NEGLIGIBLE_DRIFT):
        direction, rounds = "rises" if change > 0 else "falls", counted(facts.drifting_rounds, facts.rounds_ok)
        yield (
            f"the end-to-end latency {direction} by {percent(abs(change))} within {rounds}",
            "Raise sampling.min_warmup_iterations, and look for heat and for a load that changes.",
        )


def bimodal(facts: Facts) -> Told:
    """Latencies lie around two values, so that a median says little."""
    if facts.bimodal:
        yield (
            f"the end-to-end latencies lie around {facts.lower_mode:.3g} s and {facts.upper_mode:.3g} s",
            "Do not rely on their median; look in samples.parquet for what changes: a clock, another process, memory.",
        )


# A hundred ticks a token keep the error of a single gap, one tick at most, at 1%: what hfbench allows the observer too.
LARGEST_TICK_SHARE = 0.01
LARGEST_OBSERVER_COST = 0.01


def warmup_never_steady(facts: Facts) -> Told:
    """The warm-up ended at its longest and was not steady."""
    if facts.rounds_never_steady:
        yield (
            f"the warm-up was not steady when it ended, in {counted(facts.rounds_never_steady, facts.rounds_ok)}",
            "Raise sampling.max_warmup_iterations and sampling.max_seconds, and look for what else runs here.",
        )


def recompiles(facts: Facts) -> Told:
    """torch compiled again between samples, so that some of them hold compilation."""
    if count := facts.recompiles_while_sampling:
        yield (
            f"torch compiled again {count} time{'s' * (count > 1)} while sampling",
            "Raise sampling.min_warmup_iterations; effective.compilation in the record gives torch's reasons.",
        )


def observer_cost(facts: Facts) -> Told:
    """The token observer slows the call by more than 1%, and its interval excludes that it costs nothing."""
    ratio, low, high = facts.observer_cost_ratio or 0, facts.observer_cost_low or 0, facts.observer_cost_high or 0
    if low > 1 and ratio > 1 + LARGEST_OBSERVER_COST:
        yield (
            f"the token observer makes the call {percent(ratio - 1)} slower "
            f"({percent(low - 1)} to {percent(high - 1)})",
            "Compare end_to_end_unobserved_seconds, and take the times of tokens for upper bounds.",
        )


def timer_resolution(facts: Facts) -> Told:
    """The clock ticks too seldom for the time of one token."""
    tick, gap = facts.clock_resolution_seconds or 0, facts.inter_token_seconds
    if gap is not None and tick > LARGEST_TICK_SHARE * gap:
        yield (
            f"the clock ticks every {tick:.2g} s, and a token takes {gap:.2g} s",
            "Compare end-to-end and decode numbers only, over more new tokens: single gaps are not resolved.",
        )


def tokens_handed_out_late(facts: Facts) -> Told:
    """The time of a token is that at which the next step was queued."""
    if facts.tokens_handed_out_late:
        yield (
            "on this device transformers hands out a token when it has queued the next step: the time to the first "
            "token holds up to a step too much",
            "Compare it within this device, and end-to-end times and decode rates with others.",
        )


# Steps next to each other differ by one position: half a step more is other work. That the same token comes late in
# most iterations of each round rules out chance.
LARGEST_GAP_RATIO = 1.5


def one_long_gap(facts: Facts) -> Told:
    """The same token comes late in most iterations: the model does other work at that length."""
    if facts.recurring_gap_ratio is not None and facts.recurring_gap_ratio >= LARGEST_GAP_RATIO:
        yield (
            f"new token {facts.recurring_gap_token} comes after {facts.recurring_gap_ratio:.3g} times the median gap "
            "or more in most iterations",
            "The model does other work at that length, such as taking in all tokens anew: measure lengths on one side "
            "of it, and read the largest inter_token_gap_seconds beside the mean.",
        )


# A counter, such as that of energy, needs two.
FEWEST_READINGS = 2


def not_watched(facts: Facts) -> Told:
    """The monitor read next to nothing while samples were taken, and its silence says nothing."""
    if facts.monitor_readings is not None and facts.monitor_readings < FEWEST_READINGS:
        yield (
            f"not watched: the device was read {facts.monitor_readings} times while samples were taken, so whether it "
            "throttled, what else ran and what energy it took is not known",
            "Sample longer (sampling.min_iterations; on an accelerator sampling.min_watched_seconds), or read it more "
            "often (sampling.monitor_interval_seconds); `hfbench show --point 'POINT'` names what this machine does "
            "not tell.",
        )


# Below it lie the kernel's own threads and the pipeline that waits.
LARGEST_SHARE_OF_OTHERS = 0.05
# Two ticks of the eight that two CPUs have in the window before the start; a single one is chance.
LARGEST_SHARE_BEFORE = 0.2
# Pages of programs that sleep lie in the swap of most machines and cost nothing: some 1% of a memory for models.
LARGEST_SWAP_BYTES = 2**28
# What is bound by the clock is as much slower as the clock is.
LARGEST_CLOCK_SPREAD = 0.05
LARGEST_QUOTA_SHARE = 0.01


def throttled(facts: Facts) -> Told:
    """The device, or the processor, said that it ran slower than it can."""
    if facts.throttle_reasons:
        yield (
            f"throttled in {counted(facts.rounds_throttled, facts.rounds_ok)}: {', '.join(facts.throttle_reasons)}",
            "Improve the cooling, raise the power limit, or lock the clock at what the device can hold.",
        )


def throttled_by_cpu_limit(facts: Facts) -> Told:
    """A container's CPU limit held the processes back."""
    if (share := facts.quota_throttled_share or 0) > LARGEST_QUOTA_SHARE:
        yield (
            f"the container's CPU limit withheld {share:.2g} CPU seconds in each second",
            "Raise the container's CPU limit, or set OMP_NUM_THREADS to no more cores than it allows.",
        )


def clocks_changing(facts: Facts) -> Told:
    """The device's clock was not the same throughout."""
    if (spread := facts.clock_spread or 0) > LARGEST_CLOCK_SPREAD:
        yield (
            f"the device's clock changed by {percent(spread)} of its median",
            "Lock it (nvidia-smi --lock-gpu-clocks; on the CPU the governor `performance` without turbo).",
        )


def other_processes(facts: Facts) -> Told:
    """Others used the accelerator, or the CPUs, while samples were taken or just before."""
    found = []
    if count := facts.other_processes:
        found.append(f"{count} other process{'es' * (count > 1)} on the accelerator")
    if (share := facts.others_cpu_share or 0) > LARGEST_SHARE_OF_OTHERS:
        found.append(f"other processes took {percent(share)} of the CPUs")
    if found:
        yield (
            " and ".join(found),
            "End what else runs, then measure the point again (`hfbench retry 'POINT'`).",
        )


def machine_loaded(facts: Facts) -> Told:
    """The CPUs were busy before the worker started."""
    if (share := facts.cpu_share_before or 0) > LARGEST_SHARE_BEFORE:
        yield (
            f"{percent(share)} of the CPUs were busy just before a round began",
            "End what else runs on the machine; `hfbench doctor` shows its state.",
        )


def swap_in_use(facts: Facts) -> Told:
    """Memory was written out to disk."""
    if (used := facts.swap_used_bytes or 0) > LARGEST_SWAP_BYTES:
        yield (
            f"{used / 2**20:.0f} MiB of swap were in use",
            "Free memory, then `sudo swapoff -a && sudo swapon -a`: what was written out to disk is slow.",
        )


# A warning's code is the name of its check.
CHECKS: tuple[Callable[[Facts], Told], ...] = (
    output_differs,
    rounds_disagree,
    other_kernels,
    path_not_checked,
    roofline_exceeded,
    slower_than_float32,
    reference_missing,
    few_rounds,
    interval_wider_than_asked,
    few_iterations,
    drift,
    bimodal,
    warmup_never_steady,
    recompiles,
    observer_cost,
    timer_resolution,
    tokens_handed_out_late,
    one_long_gap,
    not_watched,
    throttled,
    throttled_by_cpu_limit,
    clocks_changing,
    other_processes,
    machine_loaded,
    swap_in_use,
)
