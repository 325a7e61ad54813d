"""Warnings about the machine: what slowed the measurement from outside."""

from hfbench.warnings.facts import Facts
from hfbench.warnings.phrases import counted, percent
from hfbench.warnings.warning import MeasurementWarning

# Below it lie the kernel's own threads and the pipeline that waits.
LARGEST_SHARE_OF_OTHERS = 0.05
# Two ticks of the eight that two CPUs have in the window before the start; a single one is chance.
LARGEST_SHARE_BEFORE = 0.2
# Pages of programs that sleep lie in the swap of most machines and cost nothing: some 1% of a memory for models.
LARGEST_SWAP_BYTES = 2**28
# What is bound by the clock is as much slower as the clock is.
LARGEST_CLOCK_SPREAD = 0.05
LARGEST_QUOTA_SHARE = 0.01


def throttled(facts: Facts) -> MeasurementWarning | None:
    """The device, or the processor, said that it ran slower than it can."""
    if not facts.throttle_reasons:
        return None
    rounds, reasons = counted(facts.rounds_throttled, facts.rounds_ok), ", ".join(facts.throttle_reasons)
    return MeasurementWarning(
        "throttled",
        f"throttled in {rounds}: {reasons}",
        "Improve the cooling, raise the power limit, or lock the clock at what the device can hold.",
    )


def throttled_by_cpu_limit(facts: Facts) -> MeasurementWarning | None:
    """A container's CPU limit held the processes back."""
    share = facts.quota_throttled_share
    if share is None or share <= LARGEST_QUOTA_SHARE:
        return None
    return MeasurementWarning(
        "throttled_by_cpu_limit",
        f"the container's CPU limit withheld {share:.2g} CPU seconds in each second",
        "Raise the container's CPU limit, or set OMP_NUM_THREADS to no more cores than it allows.",
    )


def other_processes(facts: Facts) -> MeasurementWarning | None:
    """Others used the accelerator, or the CPUs, while samples were taken or just before."""
    found = []
    if facts.other_processes:
        found.append(f"{facts.other_processes} other process{'es' * (facts.other_processes > 1)} on the accelerator")
    if facts.others_cpu_share is not None and facts.others_cpu_share > LARGEST_SHARE_OF_OTHERS:
        found.append(f"other processes took {percent(facts.others_cpu_share)} of the CPUs")
    if not found:
        return None
    return MeasurementWarning(
        "other_processes", " and ".join(found), "End what else runs on the machine, then `hfbench retry` the point."
    )


def machine_loaded(facts: Facts) -> MeasurementWarning | None:
    """The CPUs were busy before the worker started."""
    share = facts.cpu_share_before
    if share is None or share <= LARGEST_SHARE_BEFORE:
        return None
    return MeasurementWarning(
        "machine_loaded",
        f"{percent(share)} of the CPUs were busy just before a round began",
        "End what else runs on the machine; `hfbench doctor` shows its state.",
    )


def swap_in_use(facts: Facts) -> MeasurementWarning | None:
    """Memory was written out to disk."""
    used = facts.swap_used_bytes
    if used is None or used <= LARGEST_SWAP_BYTES:
        return None
    return MeasurementWarning(
        "swap_in_use",
        f"{used / 2**20:.0f} MiB of swap were in use",
        "Free memory, then `sudo swapoff -a && sudo swapon -a`: what was written out to disk is slow.",
    )


def clocks_changing(facts: Facts) -> MeasurementWarning | None:
    """The device's clock was not the same throughout."""
    spread = facts.clock_spread
    if spread is None or spread <= LARGEST_CLOCK_SPREAD:
        return None
    return MeasurementWarning(
        "clocks_changing",
        f"the device's clock changed by {percent(spread)} of its median",
        "Lock it (nvidia-smi --lock-gpu-clocks; on the CPU the governor `performance` without turbo).",
    )
