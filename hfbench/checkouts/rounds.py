"""Which measurements of a round belong together: those of the same point, taken side by side on every commit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from hfbench.foundation.files import read_json

# For DVC to settle what is to be done, and for a checkout of a large repository, between two sides of a round.
_PAUSE_SECONDS = 60.0


class Measured(NamedTuple):
    """When a record was begun, in seconds of the epoch, and how long its measurement took."""

    start: float
    seconds: float


@dataclass(frozen=True)
class SideOfRound:
    """One commit's records of one round, by their stage; `began` is when this commit was switched to for it."""

    began: float
    measured: Mapping[str, Measured]


def read_measured(path: Path) -> Measured:
    """Return when a record was measured, and for how long. Raises `UserError` where there is no record."""
    content = read_json(path)
    return Measured(datetime.fromisoformat(content["started_at"]).timestamp(), float(content["timeline"]["end"]))


def apart(sides: Mapping[str, SideOfRound]) -> dict[str, list[str]]:
    """Return, for each side, the stages to measure again, because DVC had them from a run of another time.

    `sides` are the sides of one round. The records of a point are side by side where they began within the time that
    all measurements of the round take, and a minute for each side: then the machine drifts no more between them than
    within a round. Where they are not, those that were not measured just now are to be measured again.
    """
    together = sum(item.seconds for side in sides.values() for item in side.measured.values())
    limit = together + _PAUSE_SECONDS * len(sides)
    again: dict[str, list[str]] = {name: [] for name in sides}
    for stage in next(iter(sides.values())).measured:
        starts = [side.measured[stage].start for side in sides.values()]
        if max(starts) - min(starts) > limit:
            for name, side in sides.items():
                # Records tell their start in whole seconds.
                if side.measured[stage].start < int(side.began):
                    again[name].append(stage)
    return again
