"""Which environment a row of a history was measured in: rows of different ones are never held against each other."""

from collections.abc import Mapping
from typing import Any

from hfbench.comparison.environments import environment_differences

_UNKNOWN = "an unknown machine"
_MOST_TOLD = 3  # differences in a label


class Environments:
    """The environments of a history, in the order in which they appear; each gets a label of its own."""

    def __init__(self) -> None:
        self._known: list[tuple[str, Mapping[str, Any]]] = []

    def label(self, environment: Mapping[str, Any]) -> str:
        """Return the label of the environment (the content of environment.json) that this one is comparable with.

        What makes two comparable is decided by `hfbench.comparison.environments`, as for a comparison of two commits.
        """
        for label, known in self._known:
            if not environment_differences(known, environment):
                return label
        label = self._new_label(environment)
        self._known.append((label, environment))
        return label

    def _new_label(self, environment: Mapping[str, Any]) -> str:
        machine = machine_text(environment)
        alike = [known for label, known in self._known if label == machine or label.startswith(f"{machine} #")]
        if not alike:
            return machine
        # Equal at first sight: what tells them apart is in the details.
        differences = environment_differences(alike[0], environment)
        told = [difference.sentence for difference in differences[:_MOST_TOLD]]
        more = ["and more"] if len(differences) > _MOST_TOLD else []
        return f"{machine} #{len(alike) + 1} ({', '.join([*told, *more])})"


def machine_text(environment: Mapping[str, Any]) -> str:
    """Return processor, cores, memory and accelerators from the content of environment.json."""
    cpu, memory, system = (environment.get(part) or {} for part in ("cpu", "memory", "system"))
    cores = system.get("cpu_limit_cores") or cpu.get("available_logical_cores") or cpu.get("logical_cores")
    accelerators = [str(each.get("name")) for each in environment.get("accelerators") or ()]
    parts = [
        cpu.get("brand"),
        f"{cores} cores" if cores else None,
        f"{memory['total_gib']} GiB" if memory.get("total_gib") else None,
        *(f"{accelerators.count(name)} × {name}" for name in dict.fromkeys(accelerators)),
    ]
    return ", ".join(part for part in parts if part) or _UNKNOWN
