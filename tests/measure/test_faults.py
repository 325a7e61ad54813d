"""Real faults: signals, a wild read, limits of memory and time. Each leaves a record of its own, and no process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from hfbench.core.record import CRASHED, FAILED, OK, OUT_OF_MEMORY, TIMED_OUT, Record
from hfbench.core.sources import LocalSource
from hfbench.model.manifest import resolve_local
from hfbench.workers.forked import FORKED, FRESH
from tests.conftest import some
from tests.measure.conftest import save_batch
from tests.measure.stage_process import Bench, is_worker


@pytest.fixture(params=[FRESH, FORKED])
def either(bench: Bench, request: pytest.FixtureRequest) -> Bench:
    """A bench for the faults of a process: they are the same whether it starts by itself or is forked."""
    return replace(bench, workers=request.param)


ENDLESS = {"min_iterations": 100_000, "max_iterations": 100_000, "max_seconds": 100}


def worker_of(process: "subprocess.Popen[str]") -> psutil.Process:
    """The process that measures for a stage."""
    folder = psutil.Process(process.pid).cwd()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for found in psutil.process_iter():
            with suppress(psutil.Error):
                if is_worker(found) and found.cwd() == folder:
                    return found
        time.sleep(0.02)
    raise AssertionError("no worker was started")


def wait_for(process: "subprocess.Popen[str]", phase: str) -> None:
    for line in some(process.stderr):
        if re.search(rf"  {phase}$", line.rstrip()):
            return
    raise AssertionError(f"the stage ended before {phase}")


def finish(bench: Bench, process: "subprocess.Popen[str]") -> Record:
    process.communicate(timeout=60)
    assert process.returncode == 0, "a configuration that fails must not stop the sweep"
    return Record.load(bench.output)


def samples(record: Record) -> int:
    return len([iteration for iteration in record.iterations if iteration.phase == "sample"])


def test_an_exception_has_reason_phase_and_log(bench: Bench) -> None:
    process = bench.start(max_new_tokens=0)  # which generate refuses, and params.yaml too
    stderr = process.communicate(timeout=60)[1]
    record = Record.load(bench.output)
    assert process.returncode == 0, "a configuration that fails must not stop the sweep"
    assert (record.status, record.phase) == (FAILED, "first call")
    assert "max_new_tokens" in str(record.reason)
    assert "max_new_tokens" in record.log_tail[-1]
    assert str(bench.log) in stderr


def test_a_time_limit_before_the_first_sample(either: Bench) -> None:
    record = either.measure(timeout_seconds=1)
    assert record.status == TIMED_OUT
    assert record.phase in {"import", "prepare", "load", "first call"}
    assert "timeout_seconds" in str(record.reason)


def test_a_time_limit_keeps_the_samples(either: Bench) -> None:
    record = either.measure(timeout_seconds=20, **ENDLESS)
    assert (record.status, record.phase) == (TIMED_OUT, "sample")
    assert samples(record) >= 1
    assert record.timeline["end"] < 20 + 3
    assert record.effective["parameters"] > 0
    assert record.stopped_because is None


def test_a_worker_that_is_killed_gives_a_record(either: Bench) -> None:
    process = either.start(**ENDLESS)
    worker = worker_of(process)
    wait_for(process, "sample")
    time.sleep(1)
    worker.kill()
    record = finish(either, process)
    assert (record.status, record.phase) == (CRASHED, "sample")
    assert "SIGKILL" in str(record.reason)
    assert samples(record) >= 1


@pytest.fixture
def beside(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The same in a folder of its own: a running measurement has its inputs mapped, and they are not written again."""
    return replace(bench, folder=Path(shutil.copytree(bench.folder, tmp_path_factory.mktemp("beside") / "bench")))


def test_a_second_measurement_waits_for_the_first_and_does_not_count_the_wait(bench: Bench, beside: Bench) -> None:
    first = bench.start(**ENDLESS)
    wait_for(first, "sample")
    second = beside.start(round=2)
    line = some(second.stderr).readline()
    assert f"waiting for the device, which process {first.pid}, round 1" in line
    assert f"in {bench.folder} has" in line
    time.sleep(6)
    assert not beside.log.exists()
    first.kill()
    first.communicate(timeout=60)
    record = finish(beside, second)
    assert record.status == OK
    assert record.timeline["import"] < 5


def test_a_stage_that_waits_ends_with_the_process_that_started_it(bench: Bench, beside: Bench) -> None:
    first = bench.start(**ENDLESS)
    wait_for(first, "sample")
    shell = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *beside.command(round=2)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=beside.folder,
        env=beside.variables(),
    )
    stderr = some(shell.stderr)
    assert "waiting for the device" in stderr.readline()
    (stage,) = psutil.Process(shell.pid).children()
    shell.kill()
    stage.wait(20)
    assert "the process that started this stage is gone" in stderr.read()
    first.kill()
    first.communicate(timeout=60)


# A model that does something at one of its calls.
CODE = """
import ctypes, time
from transformers import LlamaForCausalLM

class Faulty(LlamaForCausalLM):
    calls = 0

    def forward(self, *arguments, **options):
        self.calls += 1
        if self.calls == {call}:
            {does}
        return super().forward(*arguments, **options)
"""
WILD_READ = CODE.format(call=40, does="ctypes.string_at(0)")  # before it are the first call, the checks and the warm-up
SLOW_AT_FIRST = CODE.format(call=1, does="time.sleep(2)")  # it loads, tunes or allocates something, once in a process


def use_model(bench: Bench, tiny_model: Path, code: str) -> None:
    """Have the bench measure the tiny model with the code of another class."""
    folder = bench.folder / "faulty"
    shutil.copytree(tiny_model, folder)
    (folder / "faulty.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "faulty.Faulty"}
    (folder / "config.json").write_text(json.dumps(config))
    source = LocalSource(source="local", path=str(folder), trust_remote_code=True)
    resolve_local("tiny", source, None).save(bench.folder / "manifest.json")


def test_what_a_process_does_once_is_in_the_first_call(bench: Bench, tiny_model: Path) -> None:
    use_model(bench, tiny_model, SLOW_AT_FIRST)
    record = bench.measure()
    assert record.status == OK, record.reason
    assert some(record.first_call_seconds) > 2, "something ran through the model before the first call"
    assert all(iteration.end_to_end_seconds < 2 for iteration in record.iterations[1:])


def test_a_model_that_reads_where_it_may_not_gives_a_record(either: Bench, tiny_model: Path) -> None:
    use_model(either, tiny_model, WILD_READ)
    record = either.measure(**ENDLESS)
    assert (record.status, record.phase) == (CRASHED, "sample")
    assert "SIGSEGV" in str(record.reason)
    assert samples(record) >= 1


@pytest.fixture
def memory_group() -> Iterator[tuple[Path, Path]]:
    """A control group: its list of processes, and the file of its memory limit."""
    root = Path("/sys/fs/cgroup")
    folder = (root / "memory" if (root / "memory").is_dir() else root) / f"hfbench-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"making a control group is not permitted here: {error}")
    limits = [folder / name for name in ("memory.limit_in_bytes", "memory.max") if (folder / name).exists()]
    try:
        if not limits:
            pytest.skip("control groups have no memory controller here")
        yield folder / "cgroup.procs", limits[0]
    finally:
        folder.rmdir()


# glibc would serve an iteration from what the one before gave back. This has it ask the kernel for every tensor.
EVERY_TENSOR = ("MALLOC_MMAP_THRESHOLD_", "65536")


def test_memory_that_the_kernel_refuses(
    either: Bench, memory_group: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*EVERY_TENSOR)  # what was taken before it joined the group is not charged to it
    save_batch(either.folder / "b512-s16.safetensors", torch.arange(512 * 16).reshape(512, 16) % 600)
    processes, limit = memory_group
    process = either.start(batch_size=512, **ENDLESS)
    worker = worker_of(process)
    wait_for(process, "sample")
    limit.write_text("4M")  # an iteration takes more
    processes.write_text(str(worker.pid))
    record = finish(either, process)
    assert record.status == OUT_OF_MEMORY
    assert "out-of-memory killer" in str(record.reason)
    assert not worker.is_running()


def test_memory_that_runs_out_while_sampling(either: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*EVERY_TENSOR)
    save_batch(either.folder / "b256-s16.safetensors", torch.arange(256 * 16).reshape(256, 16) % 600)
    process = either.start(batch_size=256, **ENDLESS)
    worker = worker_of(process)
    wait_for(process, "sample")
    time.sleep(4)
    worker.rlimit(psutil.RLIMIT_DATA, (worker.memory_info().data - 2_000_000, psutil.RLIM_INFINITY))
    record = finish(either, process)
    assert (record.status, record.phase) == (OUT_OF_MEMORY, "sample")
    assert "allocate" in str(record.reason)
    assert samples(record) >= 1
    assert record.log_tail


def test_memory_that_never_sufficed(either: Bench) -> None:
    process = either.start()
    psutil.Process(process.pid).rlimit(psutil.RLIMIT_AS, (500_000_000, psutil.RLIM_INFINITY))  # for torch, too little
    record = finish(either, process)
    assert (record.status, record.phase) == (OUT_OF_MEMORY, "import")
    assert not record.iterations


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f"mounting a file system is not permitted here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_temporary_folder_that_is_full_stops_the_stage_and_says_so(bench: Bench, small_folder: Path) -> None:
    process = replace(bench, temporary=small_folder).start(compile_mode="default")
    stderr = process.communicate(timeout=100)[1]
    assert process.returncode == 1
    assert "disk is full" in stderr
    assert str(small_folder) in stderr
    assert "TMPDIR" in stderr
    assert "Traceback" not in stderr
    assert not bench.output.exists(), "the configuration is not to blame, and is measured by the next `dvc repro`"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_supervisor(either: Bench, stop: signal.Signals) -> None:
    process = either.start(**ENDLESS)
    worker = worker_of(process)
    wait_for(process, "verify")
    process.send_signal(stop)
    assert process.wait(timeout=5) != 0
    psutil.wait_procs([worker], timeout=5)
    assert not worker.is_running()
    assert not either.output.exists()
    assert not list(either.folder.glob("hfbench-*")) or stop == signal.SIGKILL


def test_the_next_measurement_removes_what_a_killed_one_left(
    bench: Bench, beside: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = bench.start(**ENDLESS)
    wait_for(process, "verify")
    process.kill()
    process.communicate()
    (left,) = bench.folder.glob("hfbench-*")
    an_hour_ago = time.time() - 3600
    os.utime(left, (an_hour_ago, an_hour_ago))
    running = bench.start(**ENDLESS)
    wait_for(running, "verify")
    assert not left.exists()
    (used,) = bench.folder.glob("hfbench-*")
    os.utime(used, (an_hour_ago, an_hour_ago))
    (bench.folder / "locks").mkdir()
    monkeypatch.setenv("HFBENCH_LOCKS", str(bench.folder / "locks"))  # as if it were on another device
    replace(beside, temporary=bench.folder).measure()
    assert used.exists(), "it belongs to a measurement that still runs"
    running.terminate()
    running.communicate()
    assert not used.exists()


# Nobody is left to end the compilers of a supervisor that was killed: each ends with the file that it compiles.
@pytest.mark.parametrize(("stop", "seconds"), [(signal.SIGTERM, 1), (signal.SIGKILL, 15)])
def test_no_compiler_outlives_the_supervisor(bench: Bench, stop: signal.Signals, seconds: float) -> None:
    process = bench.start(compile_mode="default", **ENDLESS)
    started = wait_for_compiler(worker_of(process))
    process.send_signal(stop)
    assert process.wait(timeout=5) != 0
    deadline = time.monotonic() + seconds
    while (left := [item for item in started if runs(item)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def wait_for_compiler(worker: psutil.Process) -> list[psutil.Process]:
    """Wait until a compiler runs below the worker, and return the worker and all that it started."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        started = worker.children(recursive=True)
        with suppress(psutil.Error):
            if any(child.name() in {"cc1plus", "clang++", "clang"} for child in started):
                return [worker, *started]
        time.sleep(0.02)
    raise AssertionError("nothing was compiled")


def runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
