"""Forked workers: as large as fresh ones and as apart from each other, and a server that nothing leaves behind."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hfbench.core.errors import UserError
from hfbench.core.record import CRASHED, OK, Record
from hfbench.workers.forked import FORKED, FRESH, RefusedError, _address, refuse_unsafe
from hfbench.workers.forkserver import open_device
from tests.conftest import ROOT
from tests.measure.stage_process import Bench, is_server, is_worker


@pytest.fixture
def forked(bench: Bench) -> Bench:
    return replace(bench, workers=FORKED)


def servers_of(owner: int) -> list[psutil.Process]:
    """The servers of workers that watch this process, but for the workers themselves."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if is_server(process):
                watched = Path(f"/proc/{process.pid}/fdinfo/{process.cmdline()[-1]}").read_text()
                if f"Pid:\t{owner}\n" in watched:
                    found.append(process)
    return found


def start_of(record: Record) -> str:
    return str(record.provenance["worker"])


def test_a_forked_worker_is_as_large_as_a_fresh_one_and_says_which_it_is(bench: Bench, forked: Bench) -> None:
    fresh, other, again = replace(bench, workers=FRESH).measure(), forked.measure(), forked.measure()
    assert start_of(fresh) == f"{FRESH}: HFBENCH_WORKERS is fresh"
    assert [start_of(each) for each in (other, again)] == [FORKED, FORKED]
    for name in ("load_peak_bytes", "peak_bytes"):
        assert other.memory[name] == pytest.approx(fresh.memory[name], rel=0.02)
    assert again.timeline["load"] < 2, "the libraries are imported already"
    assert other.output == fresh.output
    assert {**other.effective, "compilation": None} == {**fresh.effective, "compilation": None}


def test_what_one_worker_compiles_the_next_one_does_not_find(forked: Bench) -> None:
    records = [forked.measure(compile_mode="default", max_new_tokens=3) for _ in range(2)]
    for record in records:
        assert record.status == OK, record.reason
        assert record.effective["compilation"]["graphs"] > 0
        assert record.effective["compilation"]["cache_hits"] == 0
    assert not list(forked.folder.glob("hfbench-*"))


OWNER = "import subprocess, sys, time; print(subprocess.run(sys.argv[1:]).returncode, flush=True); time.sleep(100)"


@pytest.fixture
def owner(forked: Bench) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs the stage, as DVC does, and goes on."""
    command = [sys.executable, "-c", OWNER, *forked.command()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=forked.folder, env=forked.variables()) as it:
        yield it
        it.kill()


def test_the_server_ends_with_the_process_that_ran_the_stage(forked: Bench, owner: "subprocess.Popen[str]") -> None:
    assert owner.stdout is not None
    assert owner.stdout.readline() == "0\n"
    assert start_of(Record.load(forked.output)) == FORKED
    (server,) = servers_of(owner.pid)
    owner.kill()
    server.wait(5)


def test_the_server_ends_when_nobody_wants_a_worker(tmp_path: Path) -> None:
    code = "from hfbench.workers import forkserver; forkserver._IDLE_SECONDS = 0.5; forkserver.main()"
    address = f"\0hfbench-test-{tmp_path}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listener:
        listener.bind(address)
        listener.listen()
        owner = os.pidfd_open(os.getpid())
        command = [sys.executable, "-c", code, str(listener.fileno()), str(owner)]
        server = subprocess.Popen(
            command, pass_fds=[listener.fileno(), owner], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        os.close(owner)
    assert server.wait(60) == 0


def test_a_server_that_is_killed_costs_its_worker_and_no_other(forked: Bench) -> None:
    process = forked.start(min_iterations=100_000, max_iterations=100_000, max_seconds=100)
    deadline = time.monotonic() + 60
    while not (workers := [each for each in psutil.process_iter() if is_worker(each) and _is_in(each, forked.folder)]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    server = workers[0].parent()
    assert server is not None
    server.kill()
    process.communicate(timeout=60)
    assert Record.load(forked.output).status == CRASHED
    assert not workers[0].is_running()
    assert start_of(forked.measure()) == FORKED


def _is_in(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error):
        return process.cwd() == str(folder)
    return False


TRACED = """
import runpy, sys
sys.settrace(lambda *_: None)
sys.argv = sys.argv[1:]
runpy.run_module("stages.measure", run_name="__main__")
"""


def test_under_a_debugger_a_worker_starts_by_itself(forked: Bench) -> None:
    python, _, module, *words = forked.command()
    subprocess.run(
        [python, "-c", TRACED, module, *words], cwd=forked.folder, env=forked.variables(), check=True, timeout=200
    )
    record = Record.load(forked.output)
    assert record.status == OK
    assert start_of(record) == f"{FRESH}: a debugger or a profiler is attached"


def test_only_where_dvc_runs_the_stage_is_a_worker_forked_unasked() -> None:
    refuse_unsafe({"DVC_STAGE": "measure@1"})
    refuse_unsafe({"HFBENCH_WORKERS": FORKED})
    with pytest.raises(UserError, match=r"HFBENCH_WORKERS is 'fork'\. Expected auto, forked or fresh"):
        refuse_unsafe({"DVC_STAGE": "measure@1", "HFBENCH_WORKERS": "fork"})
    for variables, reason in (
        ({}, "not started by DVC"),
        ({"DVC_STAGE": "measure@1", "HFBENCH_WORKERS": FRESH}, "HFBENCH_WORKERS is fresh"),
        ({"DVC_STAGE": "measure@1", "CUDA_INJECTION64_PATH": "libToolsInjection64.so"}, "a debugger"),
    ):
        with pytest.raises(RefusedError, match=reason):
            refuse_unsafe(variables)


def test_a_device_that_the_libraries_opened_keeps_them_from_being_forked(tmp_path: Path) -> None:
    """Links stand for what a driver opens, which is not here."""
    descriptors = tmp_path / "proc/self/fd"
    descriptors.mkdir(parents=True)
    for number, target in enumerate(("/dev/null", "/dev/pts/0", "/dev/urandom", "socket:[1]", "/data/nvidia0")):
        (descriptors / str(number)).symlink_to(target)
    assert open_device(tmp_path) is None
    (descriptors / "9").symlink_to("/dev/nvidiactl")
    assert open_device(tmp_path) == "/dev/nvidiactl"


def test_workers_with_other_variables_come_from_another_server() -> None:
    owner, other = os.pidfd_open(os.getpid()), os.pidfd_open(os.getppid())
    try:
        usual = _address({"OMP_NUM_THREADS": "2"}, owner)
        assert _address({"OMP_NUM_THREADS": "2", "TMPDIR": "/tmp/a", "DVC_STAGE": "measure@1"}, owner) == usual
        assert _address({"OMP_NUM_THREADS": "1"}, owner) != usual
        assert _address({"OMP_NUM_THREADS": "2"}, other) != usual
    finally:
        os.close(owner)
        os.close(other)
