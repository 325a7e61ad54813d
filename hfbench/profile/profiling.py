"""`hfbench profile`: a trace of one iteration of a point, taken in a process of its own, and its longest operators."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hfbench.checkouts.workspace import dvc
from hfbench.core.errors import UserError, say
from hfbench.core.files import read_json
from hfbench.core.point import Configuration
from hfbench.core.record import OK
from hfbench.core.results import PARAMS, PROFILES, configuration_meant, stages_before
from hfbench.measure.process import end_process_group, scratch_folder, worker_environment
from hfbench.measure.support import meant_device, obstacle
from hfbench.measure.task import Task, parse_task
from hfbench.monitoring.devices import take_device, vendors_of
from hfbench.params.schema import load_params
from hfbench.profile.outcome import CONTEXT, DECODE, LOAD, PREFILL, OperatorTime, Profile
from hfbench.report.pages import Column, Heading, Page, Paragraph, Table, number, print_page, standard_output
from hfbench.report.words import significant
from hfbench.tables.metrics import axes_frame
from hfbench.tables.store import measured_points

_SHOWN = (LOAD, CONTEXT, PREFILL, DECODE)
_PHASES = "phases"


def _profile_page(key: str, profile: Profile) -> Page:
    spans = {span.name: span.seconds for span in profile.spans if span.line == _PHASES}
    parts = [f"{name} {significant(spans[name] * 1e3)} ms" for name in _SHOWN if name in spans]
    iteration, in_operators = (significant(each * 1e3) for each in (profile.iteration_seconds, profile.host_seconds))
    sum_of_host = f"of {in_operators} ms in all operators, on all threads; the iteration took {iteration} ms"
    return [
        Heading(f"{key} on {profile.device_name}"),
        Paragraph(", ".join(parts), indent=2),
        Paragraph(
            "Under a profiler everything takes longer: `dvc repro` measures, this shows where time goes.", indent=2
        ),
        Paragraph("There are times of the host only: the point runs on it.", indent=2)
        if profile.device is None
        else _operators("Operators by device time", profile.device, profile.device_seconds),
        _operators("Operators by host time", profile.host, profile.host_seconds),
        Paragraph(sum_of_host, "quiet", indent=2),
    ]


def _operators(title: str, operators: Sequence[OperatorTime], total_seconds: float) -> Table:
    rows = (
        (each.name, str(each.calls), significant(each.seconds * 1e3), f"{100 * each.seconds / total_seconds:.1f}")
        for each in operators
    )
    heads = [Column("operator"), number("calls"), number("self", "ms"), number("share", "%")]
    return Table.of_rows(heads, rows, title=title)


_WORKER = "hfbench.profile.session"
_COMMAND_WORDS = 3  # of a stage's command before its arguments: python -m MODULE


def profile_point(text: str, output: Path | None) -> None:
    """Trace the point of params.yaml that `text` means, write the trace, and print what took its time.

    What the point needs is brought up to date first; the point itself need not be measured. Raises `UserError` where
    `text` means no point or several, where the machine cannot run it, and where it fails.
    """
    from dvc.repo import Repo

    stages = load_params(PARAMS).stages()
    known = dict(zip(stages, measured_points(axes_frame(stages)), strict=True))
    names = {each: (known[each].key, each.file_name, stage) for each, stage in stages.items()}
    # The first round of the point, or the one whose stage the text names.
    point = known[configuration_meant(text, names, among="params.yaml", asked="POINT")[0]]
    configuration = Configuration(**point.axes)
    dvc("repro", *stages_before(configuration))
    with Repo() as repo:
        command = repo.stage.load_one(name=stages[configuration]).cmd  # as DVC would run it
    task = parse_task(shlex.split(command)[_COMMAND_WORDS:])
    environment = read_json(task.environment)
    _, reason = obstacle(task, environment) or (None, None)
    if configuration.devices != 1:
        axis = "tp_size" if configuration.devices else "device_map"
        reason = f"{axis} is {getattr(configuration, axis)}, and hfbench profiles one process on one device"
    if reason is not None:
        raise UserError(f"{point.key} cannot run here, so there is nothing to profile: {reason}.")
    trace = output or PROFILES / f"{point.name}.json.gz"
    log = PROFILES / f"{point.name}.log"
    say(f"Profiling {point.key} …")
    among = vendors_of(environment.get("accelerators", []))
    with take_device(meant_device(task.device, environment), f"profiling {point.key}", among=among) as taken:
        profile = _run(task.on(taken), trace, log)
    if profile.status != OK:
        where = f" in the phase {profile.phase}" if profile.phase else ""
        raise UserError(f"{point.key} could not be profiled, {profile.status}{where}: {profile.reason} (log: {log})")
    console = standard_output()
    print_page(_profile_page(point.key, profile), console)
    console.print(f"\ntrace: {trace}", soft_wrap=True)
    console.print("       open it at https://ui.perfetto.dev, which keeps it on this computer, or in chrome://tracing")


def _run(task: Task, trace: Path, log: Path) -> Profile:
    """Return how the worker ended, which is gone, with all that it started, whatever interrupts this process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as scratch:
        path = scratch / "profile.json"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", _WORKER, str(trace), str(path)],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=worker_environment(task, scratch),
            )
        try:
            with suppress(BrokenPipeError):
                process.communicate(json.dumps(task.to_json()).encode())
        finally:
            end_process_group(process, grace_seconds=0)
        if not path.exists():
            return Profile("crashed", f"the process that profiles ended with exit status {process.returncode}")
        return Profile.load(path)
