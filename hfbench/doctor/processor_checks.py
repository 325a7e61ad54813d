"""Checks of the CPUs: one function each, from readings to a finding, or None where there is nothing to say."""

from hfbench.doctor.findings import Finding
from hfbench.doctor.readings import Readings

# A measurement uses all cores: what keeps a tenth of them busy costs it about as much, ten times the precision that
# params.yaml asks for by default.
_BUSY_SHARE = 0.1


def check_load(readings: Readings) -> Finding | None:
    """Warn where other work runs now; note where it did in the last minute."""
    processor = readings.processor
    busy = processor.busy_percent
    if busy is not None and busy > 100 * _BUSY_SHARE:
        return Finding(
            "warning",
            f"Other programs keep {busy:.0f}% of the CPUs busy.",
            "End them, or wait; `top` shows which they are.",
        )
    if processor.load_average > processor.usable_cores * _BUSY_SHARE:
        return Finding(
            "note",
            f"The load average of the last minute is {processor.load_average:.2f}; the CPUs are idle now.",
            "If something runs every few minutes, stop it while measuring.",
        )
    return Finding("ok", f"The CPUs are idle (load average {processor.load_average:.2f}).")


def check_governor(readings: Readings) -> Finding | None:
    """Warn where a core's clock follows its load. Nothing to say where the kernel sets no clocks."""
    governors = readings.processor.governors
    if not governors:
        return None
    if governors == ("performance",):
        return Finding("ok", "The CPU governor is performance.")
    return Finding(
        "warning",
        f"The CPU governor is {' and '.join(governors)}: clocks follow the load, and short iterations begin slow.",
        "sudo cpupower frequency-set -g performance",
    )


def check_boost(readings: Readings) -> Finding | None:
    """Note where clocks go above the nominal one as heat and neighbouring cores allow."""
    processor = readings.processor
    if processor.boost is None:
        return None
    if not processor.boost:
        return Finding("ok", "Turbo is off: clocks do not depend on the temperature.")
    return Finding(
        "note",
        "Turbo is on: clocks fall as the machine warms up. Leave it on for numbers as in daily use; "
        "switch it off to compare small differences.",
        processor.boost_off,
    )


def check_smt(readings: Readings) -> Finding | None:
    """Note where two logical CPUs share a core."""
    if not readings.processor.smt:
        return None
    return Finding(
        "note",
        "Two logical CPUs share a core (SMT). hfbench starts one thread a core; another program on the same core "
        "still halves it.",
        "echo off | sudo tee /sys/devices/system/cpu/smt/control",
    )


def check_cpu_limit(readings: Readings) -> Finding | None:
    """Warn where a container may use less CPU time than it sees CPUs."""
    limit, cores = readings.processor.limit_cores, readings.processor.usable_cores
    if limit is None or limit >= cores:
        return None
    return Finding(
        "warning",
        f"This container sees {cores} CPUs and may use the time of {limit:g}: threads beyond that are stopped for part "
        "of every 0.1 s.",
        "Give it whole CPUs (docker run --cpuset-cpus=0-3 in place of --cpus), "
        f"or set OMP_NUM_THREADS={max(1, int(limit))}.",
    )


def check_virtual_machine(readings: Readings) -> Finding | None:
    """Note that a hypervisor shares the CPUs."""
    if not readings.processor.is_virtual:
        return None
    return Finding(
        "note",
        "This is a virtual machine: its neighbours change how fast it is, and it may hide clocks and heat.",
        "Measure more rounds, and compare only what was measured in turns.",
    )
