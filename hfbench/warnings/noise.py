"""Warnings about how well a median is known."""

from hfbench.warnings.facts import Facts
from hfbench.warnings.phrases import counted, percent
from hfbench.warnings.warning import MeasurementWarning

# Two rounds give their difference and no idea of how far it is from typical.
LEAST_ROUNDS = 3
# Where no precision is asked for: the default of `sampling.target_precision`. What changes by less hides no effect.
NEGLIGIBLE_DRIFT = 0.01


def interval_wider_than_asked(facts: Facts) -> MeasurementWarning | None:
    """The interval is wider than `sampling.target_precision`; or there is none, and sampling ended too early."""
    target, ended_early = facts.target_precision, facts.rounds_ended_early
    if target is None:
        return None
    early = f"sampling ended before that in {counted(ended_early, facts.rounds_ok)}"
    if facts.precision is None and ended_early:
        what = f"the median end-to-end latency should be known to ±{percent(target)}, and {early}"
    elif facts.precision is not None and facts.precision > target:
        known = f"to ±{percent(facts.precision)}" if facts.precision < 1 else "no better than to ±100%"
        what = f"the median end-to-end latency is known {known}, and ±{percent(target)} was asked"
        what += f"; {early}" * bool(ended_early)
    else:
        return None
    remedy = "Add rounds to sweep.round: each round alone is precise enough, and they differ from each other."
    if ended_early:
        remedy = "Raise sampling.max_seconds and sampling.max_iterations, and add rounds to sweep.round."
    return MeasurementWarning("interval_wider_than_asked", what, remedy)


def few_rounds(facts: Facts) -> MeasurementWarning | None:
    """Too few rounds are ok to tell how much processes differ from each other."""
    if facts.rounds_ok >= LEAST_ROUNDS:
        return None
    rounds = counted(facts.rounds_ok, facts.rounds_asked) + " ok"
    if facts.rounds_ok == facts.rounds_asked:
        rounds = "one round" if facts.rounds_ok == 1 else f"{facts.rounds_ok} rounds"
    what = f"{rounds}, and it takes {LEAST_ROUNDS} to tell noise from effect"
    remedy = f"Give sweep.round at least {LEAST_ROUNDS} values."
    if facts.rounds_asked >= LEAST_ROUNDS:
        remedy = "See under Not ok why the other rounds were not; `hfbench retry` measures them again."
    return MeasurementWarning("few_rounds", what, remedy)


def drift(facts: Facts) -> MeasurementWarning | None:
    """Latencies rise or fall within a process, by more than the precision that was asked for."""
    negligible = facts.target_precision or NEGLIGIBLE_DRIFT
    if not facts.drifting_rounds or facts.largest_drift is None or abs(facts.largest_drift) <= negligible:
        return None
    direction = "rises" if facts.largest_drift > 0 else "falls"
    rounds = counted(facts.drifting_rounds, facts.rounds_ok)
    return MeasurementWarning(
        "drift",
        f"the end-to-end latency {direction} by {percent(abs(facts.largest_drift))} within {rounds}",
        "Raise sampling.min_warmup_iterations, and look for heat and for a load that changes.",
    )


def bimodal(facts: Facts) -> MeasurementWarning | None:
    """Latencies lie around two values, so that a median says little."""
    if not facts.bimodal:
        return None
    return MeasurementWarning(
        "bimodal",
        f"the end-to-end latencies lie around {facts.lower_mode:.3g} s and {facts.upper_mode:.3g} s",
        "Do not rely on their median; look in samples.parquet for what changes: a clock, another process, memory.",
    )
