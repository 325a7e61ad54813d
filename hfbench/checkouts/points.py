"""The points of the sweep, by the names that DVC and the tables give them."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

from hfbench.foundation.errors import UserError
from hfbench.foundation.records import Configuration
from hfbench.tables.keys import configuration_keys

_MEASUREMENTS = Path("results/measurements")  # as dvc.yaml names it
_LISTED = 20  # points in an error message


def stage_name(point: Configuration) -> str:
    """Return the point's measure stage, as DVC's matrix names it."""
    return f"measure@{_key(point)}"


def record_path(point: Configuration) -> Path:
    """Return where the point's record is."""
    return _MEASUREMENTS / f"{_key(point)}.json"


def find_point(points: Sequence[Configuration], wanted: str) -> tuple[Configuration, str]:
    """Return the first round of the configuration that `wanted` names, and its key.

    `wanted` is a key as the tables and metrics.json have it, or a part of a key or of a stage's name. Raises
    `UserError` where it names none or more than one.
    """
    rounds: dict[Configuration, list[Configuration]] = {}
    for point in points:
        rounds.setdefault(replace(point, round=0), []).append(point)
    keys = dict(zip(rounds, configuration_keys([vars(item) for item in rounds]), strict=True))
    exact = [item for item, key in keys.items() if key == wanted]
    parts = [
        item for item, key in keys.items() if any(wanted in name for name in (key, *map(stage_name, rounds[item])))
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


def _key(point: Configuration) -> str:
    return "-".join(map(str, astuple(point)))
