"""Points that are split over several real processes: proven, in step, and ended together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hfbench.core.record import CRASHED, OK, OUT_OF_MEMORY, UNSUPPORTED, Record
from hfbench.measure.process import USER_ERROR
from hfbench.measure.ranks import rank_differences
from tests.conftest import ROOT, TINY, save_tokenizer
from tests.families import family_model
from tests.measure.conftest import save_manifest
from tests.measure.stage_process import Bench
from tests.measure.test_faults import ENDLESS, wait_for, worker_of


def test_two_ranks_hold_half_each_and_give_the_same_tokens(bench: Bench) -> None:
    alone = bench.measure(dtype="float32")
    record = bench.measure(dtype="float32", tp_size=2, device="auto")
    assert record.status == OK, record.reason
    assert record.output["tokens"] == alone.output["tokens"]
    assert record.output["prompt_nll"] == pytest.approx(alone.output["prompt_nll"], abs=1e-5)
    assert record.output["path"]["agrees"]
    shares = record.effective["ranks"]
    assert len(shares) == 2
    # Of each layer q, k, v, gate and up are split by rows, o and down by columns.
    layers = TINY["num_hidden_layers"]
    for share in shares:
        assert sum(share["placements"].values()) >= 7 * layers
        assert share["split_weights"] >= 7 * layers
        assert share["weight_bytes"] < alone.effective["weight_bytes"]
    assert record.effective["parameters"] == alone.effective["parameters"]
    # What is needed is of the whole model: torch counted the products of both ranks, and each has half of the heads.
    assert record.accounting == alone.accounting
    assert record.accounting["unknown"] == {}
    assert record.effective["kv_bytes_per_token"] == alone.effective["kv_bytes_per_token"]
    assert len(record.memory["rank_peak_bytes"]) == 2
    assert {each.new_tokens for each in record.iterations} == {(6, 6)}


def test_norms_of_single_heads_are_no_kernels_on_ranks(bench: Bench, tmp_path: Path) -> None:
    """transformers puts a function of its own around them."""
    folder = tmp_path / "qwen3"
    family_model("qwen3").save_pretrained(folder)
    save_tokenizer(folder)
    save_manifest(bench.folder, folder, "Qwen3ForCausalLM", "qwen3")
    record = bench.measure(dtype="float32", tp_size=2)
    assert record.status == OK, record.reason
    norms = [each for each in record.effective["kernelized_layers"] if each["class"] == "Qwen3RMSNorm"]
    assert norms
    assert not any(each["replaced"] for each in norms)


def test_what_transformers_has_no_plan_for_is_refused_before_loading(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    family_model("gpt2").save_pretrained(folder)
    save_tokenizer(folder)
    save_manifest(bench.folder, folder, "GPT2LMHeadModel", "gpt2")
    record = bench.measure(tp_size=2)
    assert record.status == UNSUPPORTED
    assert "tp_size is 2, and transformers has no plan of how to split gpt2" in str(record.reason)
    assert "load" not in record.timeline


def test_heads_that_cannot_be_dealt_out_are_refused_before_loading(bench: Bench) -> None:
    record = bench.measure(tp_size=3)
    assert record.status == UNSUPPORTED
    told = "tp_size is 3, which does not divide the model's num_attention_heads 4 and num_key_value_heads 2"
    assert told in str(record.reason)
    assert "load" not in record.timeline


@pytest.fixture
def sampling(bench: Bench) -> Iterator[tuple[Any, list[psutil.Process]]]:
    """A stage whose point is sampled over two processes, and these."""
    stage = bench.start(tp_size=2, **ENDLESS)
    try:
        wait_for(stage, "sample")
        worker = worker_of(stage)
        yield stage, [worker, *worker.children()]
    finally:
        stage.kill()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_ends_all_with_a_record(
    bench: Bench, sampling: tuple[Any, list[psutil.Process]], victim: int
) -> None:
    stage, ranks = sampling
    assert len(ranks) == 2
    killed = time.monotonic()
    os.kill(ranks[victim].pid, signal.SIGKILL)
    stage.communicate(timeout=30)
    assert time.monotonic() - killed < 5
    assert stage.returncode == 0
    record = Record.load(bench.output)
    assert record.status == CRASHED
    whose = "rank 1 of 2" if victim else "the worker"
    assert record.reason == f"{whose} was killed by SIGKILL"
    assert not [each for each in ranks if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_a_stage_that_is_killed_leaves_no_rank(sampling: tuple[Any, list[psutil.Process]]) -> None:
    stage, ranks = sampling
    stage.kill()
    stage.wait()
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert not alive


LEAVES = """
import sys
from pathlib import Path
from hfbench.measure.process import Reporter
from hfbench.measure.ranks import Ranks
ranks = Ranks(2)
ranks.fork(Reporter(sys.stdout.fileno(), 0.0), Path(sys.argv[1]))
ranks.leave(sys.argv[2], "as it found it")
ranks.wait_for_cause()
"""


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (OUT_OF_MEMORY, {"event": "end", "status": OUT_OF_MEMORY, "reason": "rank 1: as it found it"}),
        (USER_ERROR, {"event": "user_error", "message": "rank 1: as it found it"}),  # which ends the stage
    ],
)
def test_how_another_rank_ended_is_how_the_point_did(tmp_path: Path, word: str, told: dict[str, str]) -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVES, tmp_path, word], capture_output=True, check=True, cwd=ROOT)
    assert json.loads(ended.stdout) == told


def test_weights_that_are_whole_everywhere_are_no_tensor_parallelism() -> None:
    split = {"placements": {"S(0)": 4}, "split_weights": 4, "whole_weights": 1, "weight_bytes": 10}
    whole = {"placements": {"R": 4}, "split_weights": 0, "whole_weights": 5, "weight_bytes": 20}
    assert rank_differences(1, []) == []
    assert rank_differences(2, [split, split]) == []
    assert rank_differences(2, [split, whole]) == ["rank 1 of 2 has no split weights: each is whole there"]
    assert rank_differences(3, [split, split]) == ["2 ranks took part, not 3"]
