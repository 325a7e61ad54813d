"""All checks, in the order of what a person would look at first."""

from collections.abc import Callable

from hfbench.doctor.device_checks import (
    check_device,
    check_device_processes,
    check_persistence_mode,
    check_torch_build,
)
from hfbench.doctor.findings import Finding
from hfbench.doctor.memory_checks import check_disks, check_hugepages, check_memory, check_swap
from hfbench.doctor.processor_checks import (
    check_boost,
    check_cpu_limit,
    check_governor,
    check_load,
    check_smt,
    check_virtual_machine,
)
from hfbench.doctor.readings import Readings

_CHECKS: tuple[Callable[[Readings], Finding | None], ...] = (
    check_device,
    check_torch_build,
    check_device_processes,
    check_persistence_mode,
    check_load,
    check_governor,
    check_boost,
    check_smt,
    check_cpu_limit,
    check_virtual_machine,
    check_memory,
    check_swap,
    check_hugepages,
    check_disks,
)
_ORDER = ("warning", "note", "ok")


def examine(readings: Readings) -> list[Finding]:
    """Return what every check finds, warnings first."""
    results = (check(readings) for check in _CHECKS)
    return sorted(filter(None, results), key=lambda finding: _ORDER.index(finding.level))
