"""The points of the sweep, by the names that DVC and the tables give them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hfbench.foundation.configuration import Configuration
from hfbench.foundation.errors import UserError
from hfbench.tables.keys import configuration_keys

_MEASUREMENTS = Path("results/measurements")  # as dvc.yaml names it
_LISTED = 20  # points in an error message


def record_path(point: Configuration) -> Path:
    """Return where the point's record is."""
    return _MEASUREMENTS / f"{point.file_name}.json"


def find_point(stages: Mapping[Configuration, str], wanted: str) -> tuple[Configuration, str]:
    """Return the first round of the configuration that `wanted` names, and its key.

    `stages` has each point's stage; `wanted` is a key as the tables and metrics.json have it, or a part of a key or
    of a stage's name. Raises `UserError` where it names none or more than one.
    """
    rounds: dict[Configuration, list[Configuration]] = {}
    for point in stages:
        rounds.setdefault(replace(point, round=0), []).append(point)
    keys = dict(zip(rounds, configuration_keys([vars(item) for item in rounds]), strict=True))
    exact = [item for item, key in keys.items() if key == wanted]
    parts = [
        item
        for item, key in keys.items()
        if any(wanted in name for name in (key, *(stages[point] for point in rounds[item])))
    ]
    found = exact or parts
    if len(found) == 1:
        return rounds[found[0]][0], keys[found[0]]
    candidates = [keys[item] for item in found or rounds]
    more = f"\n  and {len(candidates) - _LISTED} more" if len(candidates) > _LISTED else ""
    raise UserError(
        f"--point {wanted!r} names {'several points' if found else 'no point'} of the sweep in params.yaml. Expected "
        "one of:" + "".join(f"\n  {key}" for key in candidates[:_LISTED]) + more
    )
