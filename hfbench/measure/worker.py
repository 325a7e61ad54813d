"""The process that measures: started afresh for each configuration, it reports on a pipe and ends.

`python -m hfbench.measure.worker DESCRIPTOR CLOCK_ZERO` reads its task as JSON from standard input. With a third
argument, `first-call`, it ends after the first call.
"""

import gc
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfbench.core.errors import UserError
from hfbench.core.files import read_json
from hfbench.core.record import OK, REJECTED
from hfbench.measure.process import USER_ERROR, Reporter
from hfbench.measure.task import Task
from hfbench.workers.forked import die_with_parent

if TYPE_CHECKING:
    from hfbench.measure.phases import Measurement
    from hfbench.measure.ranks import Ranks


FIRST_CALL = "first-call"
# Before the first call nothing runs through the model: what checking it needs would else be done for the call already.
_UNTIL_FIRST_CALL = ("prepare", "load", "first call")
_JUDGING = ("verify", "conclude")  # phases in which a rank may find what the others do not
_PHASES = (*_UNTIL_FIRST_CALL, "verify", "warm-up", "sample", "conclude")


def main() -> None:
    """Measure the task and report how it ended; exits 0 unless the worker itself is broken."""
    die_with_parent()
    reporter = Reporter(int(sys.argv[1]), float(sys.argv[2]))
    run(Task.from_json(json.load(sys.stdin)), reporter, first_call_only=FIRST_CALL in sys.argv[3:])


def measure_forked(descriptor: int, task: Mapping[str, Any], clock_zero: float, arguments: Sequence[str]) -> None:
    """Be the worker that a server of workers has forked; as `main`, but for where the task comes from."""
    run(Task.from_json(task), Reporter(descriptor, clock_zero), first_call_only=FIRST_CALL in arguments)


def run(task: Task, reporter: Reporter, *, first_call_only: bool = False) -> None:
    """Measure the task in this process and report how it ended."""
    phase = "import"  # which the supervisor begins, before it starts this process
    ranks: Ranks | None = None
    try:
        from hfbench.measure.phases import Measurement

        point = Measurement(task, reporter)
        ranks = point.ranks
        for phase in (*_UNTIL_FIRST_CALL, "conclude first call") if first_call_only else _PHASES:
            reporter.phase(phase)
            found = _run_phase(point, phase)
            if phase in _JUDGING:
                found = list(dict.fromkeys(chain(*ranks.gathered(found))))
            if found:
                ranks.finish()
                reporter.update(differences=found)
                _end(task, reporter, REJECTED, "; ".join(found))
                return
        ranks.finish()
        _end(task, reporter, OK)
    except UserError as error:
        if ranks is not None:
            ranks.leave(USER_ERROR, str(error))
        reporter.user_error(str(error))
    except Exception as error:
        from hfbench.measure.failure import is_full_disk, reason_of, status_of

        with suppress(OSError):  # the log's disk may be the one that is full
            traceback.print_exc()
        is_full = is_full_disk(error)  # which no other configuration would survive either
        if ranks is not None:
            ranks.leave(*((USER_ERROR, _full_disk(phase)) if is_full else (status_of(error, phase), reason_of(error))))
        if is_full:
            reporter.user_error(_full_disk(phase))
            return
        if ranks is not None:
            ranks.wait_for_cause()
        _end(task, reporter, status_of(error, phase), reason_of(error))


def _end(task: Task, reporter: Reporter, status: str, reason: str | None = None) -> None:
    """Report the end; where packages are no longer those described, that no record is to be made of it."""
    try:
        changed = _changed_packages(task.environment)
    except Exception:  # of a process that has no memory left, for instance
        changed = []
    if changed:
        reporter.user_error(
            f"{', '.join(changed)} changed after {task.environment} described it (another version, or an edit of its "
            "checkout), and this measurement is dropped. Run `dvc repro` again."
        )
    else:
        reporter.end(status, reason)


def _changed_packages(environment: Path) -> list[str]:
    """Return the packages that are no longer as described, by their names.

    They have another version; or they are checkouts, and files that this process has imported were written since.
    """
    described, described_at = read_json(environment)["packages"], environment.stat().st_mtime
    found = {name for name, each in described.items() if _version(name) != each["version"]}
    checkouts = {name.replace("-", "_"): name for name, each in described.items() if "uncommitted" in each}
    for module, content in tuple(sys.modules.items()):
        name, file = checkouts.get(module.partition(".")[0]), getattr(content, "__file__", None)
        with suppress(OSError):
            if name and file and Path(file).stat().st_mtime > described_at:
                found.add(name)
    return sorted(found)


def _version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _run_phase(point: "Measurement", phase: str) -> list[str]:
    """Run one phase and return where the configuration is not what was asked for."""
    match phase:
        case "prepare":
            point.prepare()
        case "load":
            point.load()
            gc.collect()
            gc.freeze()  # the model's objects are not looked at again between iterations
        case "first call":
            point.first_call()
        case "verify":
            return point.verify()
        case "warm-up":
            point.warm_up()
        case "sample":
            point.sample()
        case "conclude":
            return point.conclude()
        case "conclude first call":
            return point.conclude_first_call()
    return []


def _full_disk(phase: str) -> str:
    return (
        f"the disk is full in the phase {phase}; temporary files lie in {os.environ['TMPDIR']}. "
        "Free some space, or set TMPDIR to a folder that has some, and run again; what was measured is kept."
    )


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the record is complete: interpreter and device need no orderly shutdown
