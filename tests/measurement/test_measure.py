"""Real measurements: real processes, a real model, real faults."""

import os
import re
import signal
import subprocess
import time

import psutil
import pytest

from hfbench.measurement.isolation import worker_environment
from hfbench.records import CRASHED, FAILED, OK, REJECTED, TIMED_OUT, UNSUPPORTED, Configuration, Record
from tests.measurement.stage_process import Bench


def test_one_record_holds_what_was_measured(bench: Bench) -> None:
    record = bench.measure()
    assert record.status == OK
    assert record.reason is None
    assert [iteration.phase for iteration in record.iterations] == ["first", "warmup"] + ["sample"] * 5
    assert [iteration.observed for iteration in record.iterations[2:]] == [True, True, False, True, True]
    for iteration in record.iterations:
        assert iteration.new_tokens == (6, 6)
        times = iteration.token_seconds
        assert len(times) == int(iteration.observed)
        assert all(len(row) == 6 and list(row) == sorted(row) for row in times)
        assert all(row[0] > 0 and row[-1] <= iteration.end_to_end_seconds for row in times)
    assert record.load_seconds
    assert record.first_call_seconds == record.iterations[0].end_to_end_seconds
    assert record.memory["peak_bytes"] > 100e6
    assert len(record.output["prompt_top1"]) == 16
    assert len(record.output["tokens"]) == 6
    assert record.effective["sdpa_backends"] == {"flash_attention": 4}
    assert record.effective["cache"] == "DynamicCache"
    assert record.effective["parameter_dtypes"].keys() == {"bfloat16"}
    phases = ["import", "prepare", "load", "verify", "first call", "warm-up", "sample", "conclude", "end"]
    assert list(record.timeline) == phases
    assert sorted(record.timeline.values()) == list(record.timeline.values())


def test_iterations_lie_in_their_phase_on_one_clock(bench: Bench) -> None:
    record = bench.measure()
    samples = [iteration for iteration in record.iterations if iteration.phase == "sample"]
    assert record.timeline["sample"] <= samples[0].start_seconds
    assert samples[-1].start_seconds + samples[-1].call_seconds <= record.timeline["conclude"]


def test_attention_implementations_agree_in_float32(bench: Bench) -> None:
    records = {
        name: bench.measure(attn_implementation=name, dtype="float32", min_iterations=1, max_iterations=1)
        for name in ("eager", "sdpa", "sdpa:math")
    }
    assert {record.status for record in records.values()} == {OK}
    reference = records["eager"].output
    for record in records.values():
        assert record.output["prompt_nll"] == pytest.approx(reference["prompt_nll"], abs=1e-4)
        assert record.output["tokens"] == reference["tokens"]
    assert records["eager"].effective["sdpa_calls"] == 0
    assert records["sdpa:math"].effective["sdpa_calls"] > 0
    assert records["sdpa:math"].effective["sdpa_backends"] == {}


def test_compiled_point_really_compiles(bench: Bench) -> None:
    record = bench.measure(compile_mode="default")
    assert record.status == OK, record.reason
    compilation = record.effective["compilation"]
    assert compilation["graphs"] == 1
    assert compilation["compiled_calls"] == 5  # decoding steps after the prefill
    assert compilation["seconds"] > 0.5
    assert compilation["cache_hits"] == 0
    assert record.effective["cache"] == "StaticCache"
    assert record.first_call_seconds is not None
    assert record.first_call_seconds > compilation["seconds"]
    assert not list(bench.folder.glob("hfbench-*")), "the compile cache was left behind"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_continuous_batching_times_every_token_of_every_request(bench: Bench, attention: str) -> None:
    record = bench.measure("--continuous_batching", attn_implementation=attention)
    assert record.status == OK, record.reason
    assert record.effective["cache"] == "PagedAttentionCache"
    for iteration in record.iterations:
        assert iteration.new_tokens == (6, 6)
        assert [len(times) for times in iteration.token_seconds] == ([6, 6] if iteration.observed else [])
        assert iteration.end_to_end_seconds <= iteration.call_seconds
        for times in iteration.token_seconds:
            assert times[-1] <= iteration.end_to_end_seconds


def test_kernels_that_replace_nothing_are_rejected(bench: Bench) -> None:
    record = bench.measure("--use_kernels")
    assert record.status == REJECTED
    assert "replaced no layer" in str(record.reason)
    assert not record.iterations


def test_unsupported_is_known_without_a_worker(bench: Bench) -> None:
    record = bench.measure(attn_implementation="flash_attention_2")
    assert (record.status, record.phase) == (UNSUPPORTED, "before the start")
    assert "CPU" in str(record.reason)
    assert not bench.log.exists()


def test_failure_has_reason_phase_and_log(bench: Bench) -> None:
    process = bench.start(max_new_tokens=0)  # which generate refuses, and params.yaml too
    stderr = process.communicate(timeout=60)[1]
    record = Record.load(bench.output)
    assert process.returncode == 0, "a configuration that fails must not stop the sweep"
    assert (record.status, record.phase) == (FAILED, "verify")
    assert "max_new_tokens" in str(record.reason)
    assert "max_new_tokens" in record.log_tail[-1]
    assert str(bench.log) in stderr


def test_time_limit(bench: Bench) -> None:
    record = bench.measure(timeout_seconds=1)
    assert record.status == TIMED_OUT
    assert record.phase in {"import", "prepare", "load", "verify"}
    assert "timeout_seconds" in str(record.reason)


def _worker_of(process: "subprocess.Popen[str]") -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children(recursive=True):
            if "hfbench.measurement.worker" in " ".join(child.cmdline()):
                return child
        time.sleep(0.02)
    raise AssertionError("no worker was started")


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_gives_a_record(bench: Bench, fault: signal.Signals) -> None:
    process = bench.start(min_iterations=100_000, max_iterations=100_000, max_seconds=100)
    worker = _worker_of(process)
    _wait_for(process, "sample")
    time.sleep(2)
    worker.send_signal(fault)
    process.communicate(timeout=30)
    record = Record.load(bench.output)
    assert (record.status, record.phase) == (CRASHED, "sample")
    assert fault.name in str(record.reason)
    assert len([iteration for iteration in record.iterations if iteration.phase == "sample"]) >= 1


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_supervisor(bench: Bench, stop: signal.Signals) -> None:
    process = bench.start(min_iterations=100_000, max_iterations=100_000, max_seconds=100)
    worker = _worker_of(process)
    _wait_for(process, "verify")
    process.send_signal(stop)
    assert process.wait(timeout=5) != 0
    psutil.wait_procs([worker], timeout=5)
    assert not worker.is_running()
    assert not bench.output.exists()


def _wait_for(process: "subprocess.Popen[str]", phase: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(rf"  {phase}$", line.rstrip()):
            return
    raise AssertionError(f"the stage ended before {phase}")


def test_hash_seed_threads_and_caches_are_set(bench: Bench) -> None:
    configuration = Configuration(1, "m", "sdpa", "off", False, False, "bfloat16", 1, 8, 8)
    environment = worker_environment(configuration, bench.folder)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", environment["OMP_NUM_THREADS"])
    assert environment["TORCHINDUCTOR_CACHE_DIR"].startswith(str(bench.folder))
