"""Real measurements: real processes and a real model."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hfbench.core.record import OK, UNSUPPORTED, Manifest, Record
from tests.measure.conftest import make_bench
from tests.measure.stage_process import Bench

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TMPDIR")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cpu_environment: Path) -> Record:
    """What the usual point of the tiny model gave."""
    return make_bench(tmp_path_factory.mktemp("measured"), tiny_model, cpu_environment).measure()


def test_each_iteration_is_recorded_with_its_tokens(record: Record) -> None:
    assert (record.status, record.reason) == (OK, None)
    assert [iteration.phase for iteration in record.iterations] == ["first", "warmup"] + ["sample"] * 5
    assert [iteration.observed for iteration in record.iterations[2:]] == [True, True, False, True, True]
    for iteration in record.iterations:
        assert iteration.new_tokens == (6, 6)
        times = iteration.token_seconds
        assert len(times) == int(iteration.observed)
        assert all(len(row) == 6 and list(row) == sorted(row) for row in times)
        assert all(row[0] > 0 and row[-1] <= iteration.end_to_end_seconds for row in times)
    assert record.first_call_seconds == record.iterations[0].end_to_end_seconds


def test_a_record_holds_what_ran_and_what_it_took(record: Record) -> None:
    assert record.load_seconds
    assert record.memory["peak_bytes"] > 100e6
    assert len(record.output["prompt_top1"]) == 16
    assert len(record.output["tokens"]) == 6
    assert record.effective["sdpa_backends"] == {"flash_attention": 2 * 2}  # a prefill and a decoding step
    assert record.effective["cache"] == "DynamicCache"
    assert record.effective["parameter_dtypes"].keys() == {"bfloat16"}
    variables = record.effective["variables"]
    assert (variables["PYTHONHASHSEED"], variables["HF_HUB_OFFLINE"]) == ("0", "1")
    assert variables["OMP_NUM_THREADS"] == str(record.effective["intra_op_threads"])
    assert variables["PYTORCH_ALLOC_CONF"] == os.environ.get("PYTORCH_ALLOC_CONF", "")
    assert record.effective["libraries"]["libgomp"]["owner"] == "torch"
    assert record.provenance["packages"]["torch"] == torch.__version__
    assert "certifi" in record.provenance["packages"]


def test_a_package_that_is_no_longer_the_one_described_gives_no_record(bench: Bench, tmp_path: Path) -> None:
    """As where it is installed anew while the point is measured."""
    environment = json.loads(bench.environment.read_text())
    environment["packages"]["numpy"] = {"version": "0.1"}
    (tmp_path / "described.json").write_text(json.dumps(environment))
    process = replace(bench, environment=tmp_path / "described.json").start()
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "numpy changed after" in said
    assert "Traceback" not in said
    assert not bench.output.exists()


def test_phases_and_iterations_lie_on_one_clock(record: Record) -> None:
    phases = ["import", "prepare", "load", "first call", "verify", "warm-up", "sample", "conclude", "end"]
    assert list(record.timeline) == phases
    assert sorted(record.timeline.values()) == list(record.timeline.values())
    samples = [iteration for iteration in record.iterations if iteration.phase == "sample"]
    assert record.timeline["sample"] <= samples[0].start_seconds
    assert samples[-1].start_seconds + samples[-1].call_seconds <= record.timeline["conclude"]


def test_attention_implementations_agree_in_float32(bench: Bench) -> None:
    records = {
        name: bench.measure(
            attn_implementation=name, dtype="float32", max_new_tokens=70, min_iterations=1, max_iterations=1
        )
        for name in ("eager", "sdpa", "sdpa:math")
    }
    assert {record.status for record in records.values()} == {OK}
    reference = records["eager"].output
    assert len(reference["tokens"]) == 70, "where a long output begins to differ must be seen"
    for record in records.values():
        assert record.output["prompt_nll"] == pytest.approx(reference["prompt_nll"], abs=1e-4)
        assert record.output["tokens"] == reference["tokens"]
    assert records["eager"].effective["sdpa_calls"] == 0
    assert records["sdpa:math"].effective["sdpa_calls"] > 0
    assert records["sdpa:math"].effective["sdpa_backends"] == {}


def test_unsupported_is_known_without_a_worker(bench: Bench) -> None:
    record = bench.measure(attn_implementation="flash_attention_2")
    assert (record.status, record.phase) == (UNSUPPORTED, "before the start")
    assert "CPU" in str(record.reason)
    assert not bench.log.exists()


def test_threads_of_mkl_are_those_of_openmp(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")  # of which torch alone takes the smaller
    record = bench.measure()
    assert record.status == OK, record.reason
    assert record.effective["intra_op_threads"] == 2


def test_a_text_that_cannot_be_decoded_costs_no_point(tmp_path: Path, tiny_model: Path, cpu_environment: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "tokenizer.json").write_text("{}")
    record = make_bench(tmp_path, model, cpu_environment).measure()
    assert record.status == OK
    assert record.output["text_unavailable"]
    assert "text" not in record.output


def test_a_tokenizer_with_code_of_its_own_is_decoded_as_the_user_allowed(
    tmp_path: Path, tiny_model: Path, cpu_environment: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n"
        "class OwnTokenizer(PreTrainedTokenizerFast):\n"
        "    def decode(self, *arguments, **options):\n"
        "        return 'as its own code says'\n"
    )
    bench = make_bench(tmp_path, model, cpu_environment)
    manifest = Manifest.load(tmp_path / "manifest.json")
    replace(manifest, source={**manifest.source, "trust_remote_code": True}).save(tmp_path / "manifest.json")
    record = bench.measure()
    assert (record.status, record.output["text"]) == (OK, "as its own code says")
