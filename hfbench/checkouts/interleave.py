"""The sweep on several commits of an editable checkout, or with several interpreters, in interleaved rounds.

The results of each side become an experiment. Nothing here remembers what was measured: DVC does. A record depends on
environment.json, which names commits and versions, so that `dvc repro` brings back what a side has and measures what it
lacks. An interrupted run goes on where it was.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hfbench.checkouts.fit import require_fit
from hfbench.checkouts.processes import HERE, ending_in_order
from hfbench.checkouts.workspace import (
    describe_into,
    dvc,
    lent_workspace,
    require_measured,
    require_same_environment,
)
from hfbench.core.errors import UserError, say
from hfbench.core.files import read_json
from hfbench.core.point import Configuration
from hfbench.core.results import ENVIRONMENT, PARAMS, RESULTS, configuration_meant, record_path
from hfbench.git import Repository, run_git, try_git
from hfbench.params.levels import rewrite
from hfbench.params.schema import load_params
from hfbench.retry import forget_runs
from hfbench.statistics.bootstrap import FEWEST_ROUNDS
from hfbench.tables.store import configuration_keys


def find_point(stages: Mapping[Configuration, str], wanted: str) -> tuple[Configuration, str]:
    """Return the first round of the configuration that `wanted` means, and its key.

    `stages` has each point's stage. Raises `UserError`; see `hfbench.core.results.configuration_meant`.
    """
    keys = configuration_keys([vars(point) for point in stages])
    names = {point: (key, point.file_name, stage) for (point, stage), key in zip(stages.items(), keys, strict=True)}
    key = names[configuration_meant(wanted, names, among="the sweep in params.yaml")[0]][0]
    return next(point for point in stages if names[point][0] == key), key


# For DVC to settle what is to be done, and for a checkout of a large repository, between two sides of a round.
_PAUSE_SECONDS = 60.0


class Measured(NamedTuple):
    """When a record was begun, in seconds of the epoch, and how long its measurement took."""

    start: float
    seconds: float


@dataclass(frozen=True)
class SideOfRound:
    """One side's records of one round, by their stage; `began` is when this side was entered for it."""

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


@dataclass(frozen=True)
class Arm:
    """What is measured: `name` in words, how to enter it, and the interpreter that stages run with.

    `experiment` is the DVC experiment that its results become, and `project` what it belongs to.
    """

    name: str
    experiment: str
    project: str
    enter: Callable[[], None] = lambda: None
    python: Path = HERE


def interleave(
    checkout: Path, revisions: Sequence[str], *, rounds: int | None, experiments: Sequence[str]
) -> list[Arm]:
    """Measure the sweep on each revision of the checkout, round by round, and save each side as a DVC experiment.

    Round 1 of every revision comes before round 2 of any, and every other round takes them in reverse, so that a
    machine which warms up or slows down does so for all. `rounds` stands in for `sweep.round` of params.yaml, and
    `experiments` for the names `CHECKOUT-COMMIT`. Checkout and workspace are as before afterwards, after an
    interruption too. Raises `UserError` where the revisions cannot be measured or do not differ.
    """
    repository = Repository(checkout)
    commits = [repository.commit(revision) for revision in revisions]
    project = repository.folder.name
    names = list(experiments) or [_plain(f"{project}-{commit.short}") for commit in commits]
    _check("the commits", [commit.sha for commit in commits], names)
    sides = [
        Arm(str(commit), name, project, partial(repository.switch, commit))
        for commit, name in zip(commits, names, strict=True)
    ]
    with ending_in_order(), repository.borrowed():
        for side in sides:
            side.enter()
            require_fit(side.name, side.python, repository.folder)
        remedy = (
            f"Install the checkout where hfbench is installed (`pip install --editable {checkout}`), and give commits "
            "that differ in it."
        )
        _measure(sides, rounds, remedy)
    return sides


def interleave_interpreters(pythons: Sequence[Path], *, rounds: int | None, experiments: Sequence[str]) -> list[Arm]:
    """Measure the sweep with each interpreter as `interleave` does on each revision; all run this folder's hfbench.

    The names of the experiments are those of the environments, unless given. Raises `UserError` where an environment
    lacks what hfbench needs, and where no two differ in what is measured.
    """
    found = [Path(os.path.abspath(python.expanduser())) for python in pythons]  # noqa: PTH100 (links stay: venv's are)
    names = list(experiments) or [_plain(python.parent.parent.name) for python in found]
    _check("--python", [str(python) for python in found], names)
    sides = [Arm(str(python), name, name, python=python) for python, name in zip(found, names, strict=True)]
    with ending_in_order():
        for side in sides:
            require_fit(side.name, side.python)
        _measure(sides, rounds, "Give environments with different packages.")
    return sides


def _measure(sides: Sequence[Arm], rounds: int | None, remedy: str) -> None:
    with tempfile.TemporaryDirectory() as scratch, lent_workspace():
        if rounds is not None:
            rewrite(PARAMS, {"sweep.round": list(range(1, rounds + 1))})
        params = load_params(PARAMS)
        if len(params.sweep.round) < FEWEST_ROUNDS:
            raise UserError(f"An interval takes {FEWEST_ROUNDS} rounds at least. Give --rounds, 5 for instance.")
        environments = _describe(sides, Path(scratch), remedy)
        for index, number in enumerate(params.sweep.round):
            points = {point: stage for point, stage in params.stages().items() if point.round == number}
            _measure_round(sides if index % 2 == 0 else sides[::-1], environments, points)
        for side in sides:
            _save(side, environments)


def _plain(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name, flags=re.ASCII)


def _check(what: str, measured: Sequence[str], names: Sequence[str]) -> None:
    for kind, values in ((what, measured), ("--names", names)):
        if len(set(values)) < len(values):
            raise UserError(f"Two of {kind} are the same ({', '.join(values)}). Give different ones.")
    if len(names) != len(measured):
        raise UserError(f"{len(names)} names were given for {len(measured)} sides. Give as many.")
    for name in names:
        if try_git(Path(), "rev-parse", "--quiet", "--verify", "--end-of-options", name):
            raise UserError(f"{name!r} already names a revision of this repository. Give another with --names.")


def _describe(sides: Sequence[Arm], scratch: Path, remedy: str) -> dict[str, bytes]:
    """Return the environment of each side, by its experiment; they differ in what is measured, which comes first."""
    environments = {}
    for number, side in enumerate(sides):
        side.enter()
        environments[side.experiment] = describe_into(scratch / f"{number}.json", side.python)
    described = {side.name: json.loads(environments[side.experiment]) for side in sides}
    say(f"{' and '.join(described)} differ for a measurement in: {', '.join(require_measured(described, remedy))}")
    return environments


def stages_of_round(number: int) -> list[str]:
    """Return the words after `dvc repro` that mean the points of a round: DVC parses its files anew for each target."""
    return ["--glob", f"measure*@{number}-*"]


def _measure_round(
    sides: Sequence[Arm], environments: Mapping[str, bytes], points: Mapping[Configuration, str]
) -> None:
    """Bring one round of all sides up to date, and measure again what DVC had that was not measured side by side."""
    number = next(iter(points)).round
    found = {}
    for side in sides:
        say(f"round {number} of {side.name}")
        began = time.time()
        _reproduce(side, environments, *stages_of_round(number))
        measured = {stage: read_measured(record_path(point)) for point, stage in points.items()}
        found[side.experiment] = SideOfRound(began, measured)
    again = apart(found)
    for side in sides:
        if stages := again[side.experiment]:
            say(f"round {number} of {side.name}, again: what DVC had was not measured side by side")
            # Here they are this side's again, to be forgotten: of two results for the same dependencies DVC could take
            # the old.
            _reproduce(side, environments, *stages_of_round(number))
            forget_runs([record_path(point) for point, stage in points.items() if stage in stages])
            _reproduce(side, environments, "--force", "--single-item", *stages)


def _reproduce(side: Arm, environments: Mapping[str, bytes], *words: str) -> None:
    """Run `dvc repro` on a side, from DVC's cache where that has it."""
    side.enter()
    dvc("repro", *words, python=side.python)
    remedy = "Run this again; what belongs to the environment as it is now is not measured twice."
    require_same_environment(side.name, environments[side.experiment], ENVIRONMENT.read_bytes(), remedy)


def _save(side: Arm, environments: Mapping[str, bytes]) -> None:
    """Make the tables of all rounds, and keep the whole as an experiment."""
    say(f"results of {side.name}")
    _reproduce(side, environments)
    # DVC adds what it is told to with --force, so that a folder would bring what git ignores.
    others = run_git(Path(), "ls-files", "-z", "--others", "--exclude-standard", "--", str(RESULTS)).stdout
    untracked = [word for name in others.split("\0") if name for word in ("--include-untracked", name)]
    dvc("exp", "save", "--force", "--name", side.experiment, "--message", f"{side.project}: {side.name}", *untracked)
