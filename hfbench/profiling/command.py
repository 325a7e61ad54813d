"""`hfbench profile`: a trace of one iteration of a point, taken in a process of its own, and its longest operators."""

import json
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hfbench.checkouts.workspace import PARAMS, RESULTS, dvc
from hfbench.foundation.configuration import Configuration
from hfbench.foundation.errors import UserError
from hfbench.foundation.files import read_json
from hfbench.foundation.params import load_params
from hfbench.measurement.arguments import Task, parse_task
from hfbench.measurement.isolation import end_process_group, worker_environment
from hfbench.measurement.scratch import scratch_folder
from hfbench.measurement.support import unsupported_reason
from hfbench.profiling.outcome import Outcome
from hfbench.profiling.render import print_outcome
from hfbench.reporting.point_choice import choose_point
from hfbench.reporting.terminal import standard_output
from hfbench.tables.columns import axes_frame
from hfbench.tables.record_files import MeasuredPoint, measured_points

_WORKER = "hfbench.profiling.worker"
_PROFILES = RESULTS / "profiles"
_COMMAND_WORDS = 3  # of a stage's command before its arguments: python -m MODULE


def profile_point(text: str, output: Path | None) -> None:
    """Trace the point of params.yaml that `text` means, write the trace, and print what took its time.

    What the point needs is brought up to date first; the point itself need not be measured. Raises `UserError` where
    `text` means no point or several, where the machine cannot run it, and where it fails.
    """
    stages = load_params(PARAMS).stages()
    point = _choose(text, stages)
    configuration = Configuration(**point.axes)
    dvc("repro", f"inputs@{configuration.model}")
    task = _task(stages[configuration])
    reason = unsupported_reason(configuration, task.device, read_json(task.environment), task.settings)
    if reason is not None:
        raise UserError(f"{point.key} cannot run here, so there is nothing to profile: {reason}.")
    trace = output or _PROFILES / f"{point.name}.json.gz"
    log = _PROFILES / f"{point.name}.log"
    print(f"Profiling {point.key} …", file=sys.stderr, flush=True)
    outcome = _run(task, trace, log)
    if not outcome.is_ok:
        where = f" in the phase {outcome.phase}" if outcome.phase else ""
        raise UserError(f"{point.key} could not be profiled, {outcome.status}{where}: {outcome.reason} (log: {log})")
    print_outcome(point.key, outcome, trace, standard_output())


def _choose(text: str, stages: dict[Configuration, str]) -> MeasuredPoint:
    """Return the first round of the point that `text` means, or the one whose stage it names."""
    points = measured_points(axes_frame(stages))
    named = [point for point, stage in zip(points, stages.values(), strict=True) if stage == text.strip()]
    return (named or choose_point(text, points, asked="POINT", among="params.yaml"))[0]


def _task(stage: str) -> Task:
    """Return what the stage would measure, from its command as DVC would run it."""
    from dvc.repo import Repo

    with Repo() as repo:
        command = repo.stage.load_one(name=stage).cmd
    return parse_task(shlex.split(command)[_COMMAND_WORDS:])


def _run(task: Task, trace: Path, log: Path) -> Outcome:
    """Return how the worker ended, which is gone, with all that it started, whatever interrupts this process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as scratch:
        path = scratch / "outcome.json"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", _WORKER, str(trace), str(path)],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=worker_environment(task.configuration, scratch),
            )
        try:
            with suppress(BrokenPipeError):
                process.communicate(json.dumps(task.to_json()).encode())
        finally:
            end_process_group(process, grace_seconds=0)
        if not path.exists():
            return Outcome("crashed", f"the process that profiles ended with exit status {process.returncode}")
        return Outcome.load(path)
