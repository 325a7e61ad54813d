"""`hfbench retry`: points of the sweep that failed, measured again through DVC."""

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import yaml

from hfbench.core.errors import UserError
from hfbench.core.files import read_json, require_readable_lock, safetensors_metadata
from hfbench.core.point import Configuration
from hfbench.core.record import OK, STATUSES, UNAVAILABLE, UNSUPPORTED
from hfbench.core.results import (
    LISTED_STAGE,
    MEASUREMENTS,
    PARAMS,
    assistant_path,
    inputs_path,
    manifest_path,
    points_meant,
    record_path,
)
from hfbench.model.manifest import forget_trouble
from hfbench.params.schema import load_params

_LISTED = 20  # points in an error message


@dataclass(frozen=True)
class RecordedPoint:
    """A measured point: its stage as DVC prints it, its record, how that ended, and its key as tables have it."""

    stage: str
    record: Path
    status: str
    reason: str | None
    key: str = ""

    @property
    def names(self) -> tuple[str, str, str, str]:
        """The key, the record's name, the stage, and what follows its @: that of a listed configuration has no axes."""
        record = self.record.as_posix().removesuffix(".json")
        name = record.removeprefix(f"{MEASUREMENTS.as_posix()}/")
        return self.key, name, self.stage, self.stage.partition("@")[2]

    def __str__(self) -> str:
        return f"{self.stage} ({self.names[1]})" if self.stage.startswith(LISTED_STAGE) else self.stage


def retry(names: Sequence[str], statuses: Sequence[str], *, dry: bool) -> None:
    """Measure the chosen points again (see `choose`), then bring the pipeline up to date; exits as DVC does.

    An interrupted retry is resumed by another: what it measured is done, and the rest is still known as failed. Raises
    `UserError` where a name matches nothing, or params.yaml or a record cannot be read.
    """
    require_readable_lock()
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
    _forget_other_stages(chosen)
    # --force reaches no farther than these points and what they are made from, which is brought up to date first: a
    # package that was installed since is in environment.json before anything is measured. It also keeps DVC from
    # taking the old record out of dvc.lock or the run cache.
    _dvc("repro", "--force", *(point.stage for point in chosen))
    _dvc("repro")


def find_points(stages: Mapping[Configuration, str]) -> list[RecordedPoint]:
    """Return the points that have a record, in the order of the stages."""
    from hfbench.tables.store import configuration_keys  # not where only what could not be had is forgotten

    points = []
    for (configuration, stage), key in zip(stages.items(), configuration_keys([*map(vars, stages)]), strict=True):
        path = record_path(configuration)
        if path.exists():
            content = read_json(path)
            fields = content if isinstance(content, dict) else {}
            points.append(RecordedPoint(stage, path, str(fields.get("status")), fields.get("reason"), key))
    return points


def choose(points: Sequence[RecordedPoint], names: Sequence[str], statuses: Sequence[str]) -> list[RecordedPoint]:
    """Return the points to measure again: those of these statuses whose stage or record matches one of the names.

    A name is a point's key, or that of a stage or record, a part of one, or a pattern: see
    `hfbench.core.results.points_meant`. Without statuses, of the named ones those that are not `ok` are meant, or all
    where all are; and without names too all but `ok` and `unsupported`: what a machine cannot run does not run at
    another try either.
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
    if names and not statuses and all(point.status == OK for point in chosen):
        wanted = {OK}
    return [point for point in points if point in chosen and point.status in wanted]


_HEAD_BYTES = 4096  # of a record, in which its status stands
_STATUS = re.compile(r'"status": "(\w+)"')


def forget_unavailable(stages: Mapping[Configuration, str]) -> None:
    """Have DVC try again what could not be had, by removing all that says so: it is then as if it never ran.

    The stage `environment` does so at every `dvc repro`, before the stages of these points have their turn.
    """
    records = {point: path for point in stages if _status_in(path := record_path(point)) == UNAVAILABLE}
    if not records:
        return
    without = {point for point in records if _lacks_inputs(inputs_path(point))}
    forget_runs(records.values(), [f"stages.inputs {point.model} " for point in without], with_results=True)
    for point, path in records.items():
        forget_trouble(manifest_path(point.model))
        if point.has_draft_model:
            forget_trouble(assistant_path(point.assistant))
        path.unlink()
    for path in map(inputs_path, without):
        path.unlink(missing_ok=True)  # that of several points


def _lacks_inputs(path: Path) -> bool:
    """Return whether the file holds no tokens, as where the model or its tokenizer could not be had."""
    return path.exists() and UNAVAILABLE in safetensors_metadata(path)


def _status_in(path: Path) -> str | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        found = _STATUS.search(file.read(_HEAD_BYTES).decode(errors="replace"))
    return found[1] if found else None


def forget_runs(records: Iterable[Path], commands: Sequence[str] = (), *, with_results: bool = False) -> None:
    """Remove from DVC's run cache what leads to these records, and runs of these commands.

    Once a point was measured again, its run cache has two results of the same command and dependencies, and DVC takes
    the newer file. `dvc pull --run-cache` writes all of them anew, in any order: then the failure could come back.
    The results themselves stay in DVC's cache, unless they are to go too: of a stage whose dependencies are as they
    were, DVC (3.67) would put them back without asking the run cache.
    """
    from dvc.repo import Repo

    results = {hashlib.md5(record.read_bytes(), usedforsecurity=False).hexdigest() for record in records}
    with Repo() as repo:
        cache = repo.cache.local
        for entry in Path(repo.stage_cache.cache_dir).glob("*/*/*"):
            try:
                text = entry.read_text(encoding="utf-8")
            except FileNotFoundError:  # another process has the same cache
                continue
            is_of_command = any(command in text for command in commands)
            if is_of_command or not results.isdisjoint(re.findall(r"\bmd5: (\w+)", text)):
                with suppress(PermissionError):  # of another user of this cache; of two results, DVC takes the newer
                    entry.unlink(missing_ok=True)
            if is_of_command:
                results |= set(re.findall(r"\bmd5: (\w+\.dir)", text))
        for result in results if with_results else ():
            Path(cache.oid_to_path(result)).unlink(missing_ok=True)


def _forget_other_stages(points: Sequence[RecordedPoint]) -> None:
    """Remove from dvc.lock what other stages have made of these points, while they were listed elsewhere.

    DVC keeps the entries of stages that params.yaml has no more, and when it has one again takes its result from there.
    """
    from dvc.dvcfile import LOCK_FILE, Lockfile
    from dvc.repo import Repo

    path = Path(LOCK_FILE)
    if not path.exists():
        return
    stages = {point.record.as_posix(): point.stage for point in points}
    with Repo() as repo:
        lock = Lockfile(repo, LOCK_FILE)
        for name, entry in yaml.load(path.read_bytes(), yaml.CSafeLoader).get("stages", {}).items():
            if any(stages.get(out["path"], name) != name for out in entry.get("outs", [])):
                lock.remove_stage(SimpleNamespace(name=name))


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
