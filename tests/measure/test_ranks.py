"""Points that are split over several real processes, or dealt out to several devices by layers.

They are proven, in step, and ended together; refused where that cannot be. No accelerator is here: what is fetched for
each pass is real, from the disk; several devices are a fake of torch's.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from accelerate.hooks import (  # type: ignore[import-untyped]
    ModelHook,
    add_hook_to_module,
    remove_hook_from_module,
)
from transformers import PreTrainedModel

from hfbench.core.record import CRASHED, OK, OUT_OF_MEMORY, UNSUPPORTED, Record, Settings
from hfbench.measure import loading, verification
from hfbench.measure.accounting import describe_needs, fill_cache
from hfbench.measure.device import Accelerators, Cpu
from hfbench.measure.kernels import kernelized_layers
from hfbench.measure.loading import load_model, tensor_differences
from hfbench.measure.plain_pass import check_prompt
from hfbench.measure.process import USER_ERROR
from hfbench.measure.ranks import rank_differences
from hfbench.measure.support import devices_used, unsupported_reason
from tests.conftest import ROOT, TINY, save_tokenizer
from tests.families import family_model
from tests.measure import test_support
from tests.measure.conftest import NO_LOADING, PROMPT, save_manifest
from tests.measure.stage_process import Bench
from tests.measure.test_faults import ENDLESS, wait_for, worker_of
from tests.measure.test_support import CPU, CUDA


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


point = partial(test_support.point, sequence_length=16, device_map="auto")
FOUR = {**CUDA, "accelerators": [{**CUDA["accelerators"][0], "count": 4}]}


@pytest.fixture
def model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """The tiny model with a layer on the disk, as `auto` would leave it there for want of memory."""
    dealt = {"model.embed_tokens": "cpu", "model.layers.0": "disk", "lm_head": "cpu"}
    dealt |= {f"model.{name}": "cpu" for name in ("layers.1", "norm", "rotary_emb")}
    monkeypatch.setattr(loading, "_placement", lambda *_, **__: {"device_map": dealt})
    return load_model(tiny_model, point(), torch.device("cpu"), trust_remote_code=False)[0]


@pytest.fixture
def whole(tiny_model: Path) -> PreTrainedModel:
    return load_model(tiny_model, point(device_map="none"), torch.device("cpu"), trust_remote_code=False)[0]


def test_the_bytes_of_each_place_are_told_and_are_those_of_the_model(
    whole: PreTrainedModel, model: PreTrainedModel
) -> None:
    layer = sum(parameter.nbytes for parameter in whole.model.layers[0].parameters())
    total = loading.describe_loaded(whole)["weight_bytes"]
    assert loading.weight_bytes_by_device(whole) == {"cpu": total}
    assert loading.weight_bytes_by_device(model) == {"cpu": total - layer, "disk": layer}


@pytest.mark.usefixtures("threads_as_asked")
def test_a_model_that_is_dealt_out_is_verified_like_another(whole: PreTrainedModel, model: PreTrainedModel) -> None:
    effective = {**verification.describe_model(model, Cpu()), "loading": NO_LOADING}
    output, reference = check_prompt(model, PROMPT, 2, 64)
    watched, _, path = verification.watch_short_call(model, point(), Settings(), PROMPT, reference)
    assert verification.differences(point(), effective | watched) == []
    assert path["agrees"]
    assert output["prompt_nll"] == check_prompt(whole, PROMPT, 2, 64)[0]["prompt_nll"]
    needs, expected = (describe_needs(each, fill_cache(each, PROMPT), PROMPT) for each in (model, whole))
    assert needs["unknown"]["bytes"] == "part of the weights is fetched from the host for each pass (disk)"
    assert needs["dense_weight_bytes"] == expected["dense_weight_bytes"]
    assert expected["unknown"] == {}


def test_a_kernel_is_told_behind_what_fetches_the_weights(model: PreTrainedModel) -> None:
    norms = [model.model.layers[number].input_layernorm for number in range(2)]
    assert all(norm.forward != norm._old_forward for norm in norms), "accelerate has put its own around it"
    found = [each for each in kernelized_layers(model, Settings()) if each["layer"] == "RMSNorm"]
    assert [each["replaced"] for each in found] == [0]
    remove_hook_from_module(norms[0])
    norms[0].forward = MethodType(lambda _, states: states, norms[0])
    add_hook_to_module(norms[0], ModelHook())
    found = [each for each in kernelized_layers(model, Settings()) if each["layer"] == "RMSNorm"]
    assert [each["replaced"] for each in found] == [1]


def test_what_is_in_one_place_was_not_dealt_out(whole: PreTrainedModel, model: PreTrainedModel) -> None:
    described = loading.describe_loaded(whole) | {"device": "cpu"}
    (found,) = tensor_differences("bfloat16", "auto", described)
    assert found == "device_map auto put all weights on cpu; device_map none measures that"
    assert tensor_differences("bfloat16", "none", described) == []
    (found,) = tensor_differences("bfloat16", "none", loading.describe_loaded(model) | {"device": "cpu"})
    assert found.startswith("tensors are not all on cpu: {")


def test_the_cpu_has_nothing_to_deal_out_to(bench: Bench) -> None:
    record = bench.measure(device_map="auto")
    assert record.status == UNSUPPORTED
    assert record.reason == "device_map is auto, which deals layers out to accelerators, and this point runs on the CPU"


def test_all_devices_of_the_kind_are_used() -> None:
    assert unsupported_reason(point(), "auto", FOUR, Settings()) is None
    assert devices_used(point(), "auto", FOUR) == devices_used(point(), "cuda", FOUR) == 4
    assert devices_used(point(device_map="none"), "cuda", FOUR) == 1
    assert devices_used(point(device_map="none", tp_size=2), "cuda", FOUR) == 2
    assert devices_used(point(device_map="none"), "cpu", CPU) == 1


class FakeAccelerators:
    """torch's interface to devices that are not here, device n with a peak of n + 1 bytes."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.current = -1
        self.calls: Counter[tuple[str, int]] = Counter()

    def device_count(self) -> int:
        return len(self.names)

    def set_device_index(self, number: int) -> None:
        self.current = number

    def get_device_name(self, device: torch.device) -> str:
        return self.names[device.index]

    def synchronize(self, device: torch.device) -> None:
        self.calls["synchronize", device.index] += 1

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.calls["reset", device.index] += 1

    def max_memory_allocated(self, device: torch.device) -> int:
        return int(device.index) + 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeAccelerators:
    accelerators = FakeAccelerators(["H200"] * 3)
    monkeypatch.setattr(torch, "accelerator", accelerators)
    monkeypatch.setattr(
        torch, "get_device_module", lambda _: SimpleNamespace(get_device_name=accelerators.get_device_name)
    )
    return accelerators


def test_all_devices_are_waited_for_and_their_peaks_are_summed(fake: FakeAccelerators) -> None:
    devices = Accelerators("cuda")
    devices.synchronize()
    assert devices.reset_peak()
    assert fake.calls == {(what, number): 1 for what in ("synchronize", "reset") for number in range(3)}
    assert devices.peaks() == [1, 2, 3]
    assert devices.peak_bytes() == 6
    assert (devices.torch_device, devices.name) == (torch.device("cuda:0"), "H200")
    assert fake.current == 0


def test_devices_of_several_models_are_refused(fake: FakeAccelerators) -> None:
    fake.names[2] = "T4"
    with pytest.raises(NotImplementedError, match="beside H200 there is T4; hide those"):
        Accelerators("cuda")
