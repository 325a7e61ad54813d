"""`hfbench retry`: points of the sweep that failed, measured again through DVC."""

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfbench.core.errors import UserError
from hfbench.core.files import read_json
from hfbench.core.point import Configuration
from hfbench.core.record import OK, STATUSES, UNSUPPORTED
from hfbench.core.results import LISTED_STAGE, MEASUREMENTS, PARAMS, points_meant, record_path
from hfbench.params.schema import load_params

_LISTED = 20  # points in an error message


@dataclass(frozen=True)
class RecordedPoint:
    """A measured point: its stage as DVC prints it, its record, and how that ended."""

    stage: str
    record: Path
    status: str
    reason: str | None

    @property
    def names(self) -> tuple[str, str, str]:
        """The record's name, the stage, and what follows its @: the stage of a listed configuration has no axes."""
        record = self.record.as_posix().removesuffix(".json")
        return record.removeprefix(f"{MEASUREMENTS.as_posix()}/"), self.stage, self.stage.partition("@")[2]

    def __str__(self) -> str:
        return f"{self.stage} ({self.names[0]})" if self.stage.startswith(LISTED_STAGE) else self.stage


def retry(names: Sequence[str], statuses: Sequence[str], *, dry: bool) -> None:
    """Measure the chosen points again (see `choose`), then bring the pipeline up to date; exits as DVC does.

    An interrupted retry is resumed by another: what it measured is done, and the rest is still known as failed. Raises
    `UserError` where a name matches nothing, or params.yaml or a record cannot be read.
    """
    stages = load_params(PARAMS).stages()
    if not all(record_path(configuration).exists() for configuration in stages):
        # DVC removes a record before it measures its point: an interrupted retry leaves a gap where a failure was.
        _dvc("checkout", "--quiet", "--allow-missing", *sorted({stage.partition("@")[0] for stage in stages.values()}))
    chosen = choose(find_points(stages), names, statuses)
    if not chosen:
        print("Nothing to retry.")
        return
    print(f"{'Would retry' if dry else 'Retrying'} {len(chosen)} point{'s' * (len(chosen) > 1)}:")
    for point in chosen:
        print(f"  {point}  {point.status}" + (f": {point.reason}" if point.reason else ""))
    if dry:
        return
    sys.stdout.flush()
    forget_runs([point.record for point in chosen])
    # --force reaches no farther than these points and what they are made from, which is brought up to date first: a
    # package that was installed since is in environment.json before anything is measured. It also keeps DVC from
    # taking the old record out of dvc.lock or the run cache.
    _dvc("repro", "--force", *(point.stage for point in chosen))
    _dvc("repro")


def find_points(stages: Mapping[Configuration, str]) -> list[RecordedPoint]:
    """Return the points that have a record, in the order of the stages."""
    points = []
    for configuration, stage in stages.items():
        path = record_path(configuration)
        if path.exists():
            content = read_json(path)
            fields = content if isinstance(content, dict) else {}
            points.append(RecordedPoint(stage, path, str(fields.get("status")), fields.get("reason")))
    return points


def choose(points: Sequence[RecordedPoint], names: Sequence[str], statuses: Sequence[str]) -> list[RecordedPoint]:
    """Return the points to measure again: those of these statuses whose stage or record matches one of the names.

    A name is that of a stage or record, a part of one, or a pattern: see `hfbench.core.results.points_meant`. Without
    statuses, all but `ok` are meant, and without names too all but `ok` and `unsupported`: what a machine cannot run
    does not run at another try either.
    Raises `UserError` for a name that no point matches, and for a word that is no status.
    """
    for status in statuses:
        if status not in STATUSES:
            raise UserError(f"--status {status!r} is no status; expected one of: {', '.join(STATUSES)}.")
    names_of = {point: point.names for point in points}
    chosen = set() if names else set(points)
    for name in names:
        found = points_meant(name, names_of)
        if not found:
            raise UserError(_no_match(name, points))
        chosen.update(found)
    wanted = set(statuses) or set(STATUSES) - ({OK} if names else {OK, UNSUPPORTED})
    return [point for point in points if point in chosen and point.status in wanted]


def forget_runs(records: Sequence[Path]) -> None:
    """Remove from DVC's run cache what leads to these records; the records themselves stay in DVC's cache.

    Once a point was measured again, its run cache has two results of the same command and dependencies, and DVC takes
    the newer file. `dvc pull --run-cache` writes all of them anew, in any order: then the failure could come back.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        runs = Path(repo.stage_cache.cache_dir)
    failures = {hashlib.md5(record.read_bytes(), usedforsecurity=False).hexdigest() for record in records}
    for entry in runs.glob("*/*/*"):
        if failures.intersection(re.findall(r"\bmd5: (\w+)", entry.read_text(encoding="utf-8"))):
            entry.unlink()


def _dvc(*words: str) -> None:
    """Run a DVC command in this process, so that signals mean to it what they mean to `dvc`; exit where it fails."""
    from dvc.cli import main

    status = main(list(words))
    if status:
        sys.exit(status)


def _no_match(name: str, points: Sequence[RecordedPoint]) -> str:
    if not points:
        return f"no point matches {name!r}: none of the sweep was measured yet. Run `dvc repro`."
    failed = [point for point in points if point.status != OK]
    listed = [f"\n  {point}  {point.status}" for point in failed[:_LISTED]]
    more = f"\n  and {len(failed) - _LISTED} more" if len(failed) > _LISTED else ""
    there = f"These are not ok:{''.join(listed)}{more}" if failed else f"All {len(points)} points are ok."
    return f"no point of the sweep matches {name!r}; expected a stage, a part of one or a pattern. {there}"
