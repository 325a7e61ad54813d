"""Warnings about the measured process: what it did beside the work that is timed."""

from hfbench.warnings.facts import Facts
from hfbench.warnings.phrases import counted, percent
from hfbench.warnings.warning import MeasurementWarning

# A hundred ticks a token keep the error of a single gap, one tick at most, at 1%: what hfbench allows the observer too.
LARGEST_TICK_SHARE = 0.01
LARGEST_OBSERVER_COST = 0.01


def warmup_never_steady(facts: Facts) -> MeasurementWarning | None:
    """The warm-up ended at its longest and was not steady."""
    if not facts.rounds_never_steady:
        return None
    return MeasurementWarning(
        "warmup_never_steady",
        f"the warm-up was not steady when it ended, in {counted(facts.rounds_never_steady, facts.rounds_ok)}",
        "Raise sampling.max_warmup_iterations, and look for what else runs on the machine.",
    )


def recompiles(facts: Facts) -> MeasurementWarning | None:
    """torch compiled again between samples, so that some of them hold compilation."""
    count = facts.recompiles_while_sampling
    if not count:
        return None
    return MeasurementWarning(
        "recompiles",
        f"torch compiled again {count} time{'s' * (count > 1)} while sampling",
        "Raise sampling.min_warmup_iterations; effective.compilation in the record gives torch's reasons.",
    )


def timer_resolution(facts: Facts) -> MeasurementWarning | None:
    """The clock ticks too seldom for the time of one token."""
    tick, gap = facts.clock_resolution_seconds, facts.inter_token_seconds
    if tick is None or gap is None or tick <= LARGEST_TICK_SHARE * gap:
        return None
    return MeasurementWarning(
        "timer_resolution",
        f"the clock ticks every {tick:.2g} s, and a token takes {gap:.2g} s",
        "Compare end-to-end and decode numbers only, over more new tokens: single gaps are not resolved.",
    )


def observer_cost(facts: Facts) -> MeasurementWarning | None:
    """The token observer slows the call by more than 1%, and its interval excludes that it costs nothing."""
    ratio, low, high = facts.observer_cost_ratio, facts.observer_cost_low, facts.observer_cost_high
    if ratio is None or low is None or high is None or low <= 1 or ratio <= 1 + LARGEST_OBSERVER_COST:
        return None
    return MeasurementWarning(
        "observer_cost",
        f"the token observer makes the call {percent(ratio - 1)} slower ({percent(low - 1)} to {percent(high - 1)})",
        "Compare end_to_end_unobserved_seconds, and take the times of tokens for upper bounds.",
    )
