"""Warnings about what was computed, and about counts that contradict each other."""

from hfbench.roofline.utilisation import LARGEST_UTILISATION
from hfbench.warnings.facts import Facts
from hfbench.warnings.phrases import counted, percent
from hfbench.warnings.warning import MeasurementWarning

MISSING_REFERENCE = "missing"  # the value of `Facts.reference` where none was measured


def output_differs(facts: Facts) -> MeasurementWarning | None:
    """The output is farther from the reference than `limits` allow."""
    if not facts.output_differs:
        return None
    found = []
    if facts.top1_agreement is not None:
        found.append(f"top-1 tokens agree at {percent(facts.top1_agreement)} of the prompt's positions")
    if facts.nll_difference is not None:
        found.append(f"the prompt's likelihood is {facts.nll_difference:.2g} nats a token apart")
    if facts.first_different_token is not None:
        found.append(f"number {facts.first_different_token + 1} of the generated tokens is the first that differs")
    limits = f"limits: {percent(facts.min_top1_agreement or 0)}, {facts.max_nll_difference:g} nats"
    return MeasurementWarning(
        "output_differs",
        f"{'; '.join(found)} ({limits})",
        "Find out why before you use its speed, which is not marked as best; float32 tells rounding from a mistake.",
    )


def reference_missing(facts: Facts) -> MeasurementWarning | None:
    """There is nothing to compare the output with."""
    if facts.reference != MISSING_REFERENCE:
        return None
    return MeasurementWarning(
        "reference_missing",
        "no reference was measured that its output could be compared with",
        "Have eager attention, uncompiled, without kernels and continuous batching, among the points of the sweep.",
    )


def rounds_disagree(facts: Facts) -> MeasurementWarning | None:
    """The same configuration gave another output in another round."""
    if not facts.rounds_disagreeing:
        return None
    return MeasurementWarning(
        "rounds_disagree",
        f"the output of {counted(facts.rounds_disagreeing, facts.rounds_ok)} is not that of the first",
        "Something in it is not deterministic; find out what before you trust its output.",
    )


def roofline_exceeded(facts: Facts) -> MeasurementWarning | None:
    """A utilisation above what can be: something is counted wrong."""
    utilisations = {"bandwidth": facts.mbu, "FLOPs": facts.mfu}
    above = {name: value for name, value in utilisations.items() if value is not None and value > LARGEST_UTILISATION}
    if not above:
        return None
    return MeasurementWarning(
        "roofline_exceeded",
        " and ".join(f"model {name} utilisation is {percent(value)}" for name, value in above.items()),
        "Measure the ceilings again on a quiet machine (`dvc repro --force --single-item ceilings`), then `dvc repro`.",
    )
