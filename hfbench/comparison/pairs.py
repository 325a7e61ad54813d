"""Pairing the points of two sides by their axes, and what stands against comparing a pair."""

from collections.abc import Mapping
from dataclasses import dataclass

from hfbench.comparison.points import Point
from hfbench.comparison.side import Side
from hfbench.comparison.values import Axes
from hfbench.foundation.records import OK

_SHOWN_DIGEST = 7
# Of a manifest: what no other revision of the same model would change. Its provenance and files may differ.
_ARCHITECTURE = ("architecture", "model_type", "vocab_size")


@dataclass(frozen=True)
class Pair:
    """The same configuration on both sides."""

    axes: Axes
    baseline: Point
    candidate: Point


@dataclass(frozen=True)
class Pairing:
    """The pairs, and the points that only one side has."""

    pairs: tuple[Pair, ...]
    only_baseline: tuple[Point, ...]
    only_candidate: tuple[Point, ...]


@dataclass(frozen=True)
class StatusChange:
    """A pair of which one side has rounds that are not ok, and the other does not have as many."""

    pair: Pair
    is_regression: bool

    @property
    def sentence(self) -> str:
        """What changed, with the reason."""
        old, new = self.pair.baseline, self.pair.candidate
        worse = new if self.is_regression else old
        change = f"{_state(old)} → {_state(new)}"
        return f"{change}: {worse.reason}" if worse.reason else change


def pair_points(baseline: Mapping[Axes, Point], candidate: Mapping[Axes, Point]) -> Pairing:
    """Return the pairs in the baseline's order."""
    return Pairing(
        pairs=tuple(Pair(axes, point, candidate[axes]) for axes, point in baseline.items() if axes in candidate),
        only_baseline=tuple(point for axes, point in baseline.items() if axes not in candidate),
        only_candidate=tuple(point for axes, point in candidate.items() if axes not in baseline),
    )


def status_changes(pairing: Pairing) -> tuple[StatusChange, ...]:
    """Return the pairs whose share of rounds that are ok changed, or which fail otherwise than before.

    It is a regression where the share fell: also one round in seven that fails now is a finding.
    """
    changes = []
    for pair in pairing.pairs:
        old, new = (point.rounds_ok / len(point.statuses) for point in (pair.baseline, pair.candidate))
        if old != new or pair.baseline.status != pair.candidate.status:
            changes.append(StatusChange(pair, is_regression=new < old))
    return tuple(changes)


def obstacles(pair: Pair, baseline: Side, candidate: Side, *, across_environments: bool) -> list[str]:
    """Return in words what differs between the two points that no comparison can look through.

    That is their device and its threads, unless two environments are compared on purpose, and always what they were
    given to do: the model's architecture and the token ids of the prompt. What a side does not tell is no difference.
    """
    old, new = pair.baseline, pair.candidate
    found = []
    if not across_environments:
        found += _different("device", old.devices, new.devices)
        found += _different("threads", old.threads, new.threads)
    if old.inputs and new.inputs and old.inputs != new.inputs:
        digests = (min(point.inputs)[:_SHOWN_DIGEST] for point in (old, new))
        found.append(f"the prompt's token ids differ (inputs {' → '.join(digests)})")
    manifests = [side.manifests.get(str(pair.baseline.axes["model"]), {}) for side in (baseline, candidate)]
    for name in _ARCHITECTURE:
        before, after = (manifest.get(name) for manifest in manifests)
        if None not in (before, after) and before != after:
            found.append(f"the model's {name} {before} → {after}")
    return found


def _different(name: str, old: frozenset[object], new: frozenset[object]) -> list[str]:
    if not old or not new or old == new:
        return []
    return [f"{name} {_joined(old)} → {_joined(new)}"]


def _joined(values: frozenset[object]) -> str:
    return ", ".join(sorted(map(str, values)))


def _state(point: Point) -> str:
    """Return `ok`, the status, or how many of the rounds are ok."""
    if point.status != OK or point.rounds_ok == len(point.statuses):
        return point.status
    return f"{point.rounds_ok} of {len(point.statuses)} rounds ok"
