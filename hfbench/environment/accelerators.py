"""The accelerators of this machine, over all vendors."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

from hfbench.environment.vendors import AmdProbe, AppleProbe, IntelProbe, NvidiaProbe

# A path or an address would differ between equal machines.
_PLACE = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.])/[^\s'\":,]+")


class Probe(Protocol):
    """What finds and describes the accelerators of one vendor."""

    vendor: str

    def describe(self, notes: list[str]) -> list[dict[str, Any]]:
        """Return a dictionary for each device, in a stable order: vendor, torch_device, name, memory_bytes, …

        The list is empty where the vendor's driver or library is not here. What could not be read although it is
        here is told in `notes`.
        """


PROBES: tuple[Probe, ...] = (NvidiaProbe(), AmdProbe(), IntelProbe(), AppleProbe())


def describe_accelerators(probes: Sequence[Probe] = PROBES) -> tuple[list[dict[str, Any]], list[str]]:
    """Return every device found, and a note for each thing that could not be read. Raises nothing."""
    devices: list[dict[str, Any]] = []
    notes: list[str] = []
    for probe in probes:
        try:
            devices += probe.describe(notes)
        except Exception as error:  # a vendor's broken driver must not stop a measurement on the CPU
            notes.append(f"{probe.vendor}: {type(error).__name__}: {error}")
    return devices, [_PLACE.sub("…", note) for note in notes]
