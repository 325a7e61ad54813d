"""All checks, in the order in which their warnings are shown."""

from collections.abc import Callable

from hfbench.warnings import correctness, machine, noise, process
from hfbench.warnings.facts import Facts
from hfbench.warnings.warning import MeasurementWarning

CHECKS: tuple[Callable[[Facts], MeasurementWarning | None], ...] = (
    correctness.output_differs,
    correctness.rounds_disagree,
    correctness.roofline_exceeded,
    correctness.reference_missing,
    noise.few_rounds,
    noise.interval_wider_than_asked,
    noise.drift,
    noise.bimodal,
    process.warmup_never_steady,
    process.recompiles,
    process.observer_cost,
    process.timer_resolution,
    machine.throttled,
    machine.throttled_by_cpu_limit,
    machine.clocks_changing,
    machine.other_processes,
    machine.machine_loaded,
    machine.swap_in_use,
)
