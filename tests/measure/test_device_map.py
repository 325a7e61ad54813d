"""Layers that are dealt out: refused where that cannot be, proven by the bytes of each device, and waited for together.

No accelerator is here. What is fetched for each pass is real, from the disk; several devices are a fake of torch's.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from types import MethodType, SimpleNamespace

import pytest
import torch
from accelerate.hooks import (  # type: ignore[import-untyped]
    ModelHook,
    add_hook_to_module,
    remove_hook_from_module,
)
from transformers import PreTrainedModel

from hfbench.core.record import UNSUPPORTED, Settings
from hfbench.measure import loading, verification
from hfbench.measure.accounting import describe_needs, fill_cache
from hfbench.measure.device import Accelerators, Cpu
from hfbench.measure.kernels import kernelized_layers
from hfbench.measure.loading import load_model, tensor_differences
from hfbench.measure.plain_pass import check_prompt
from hfbench.measure.support import devices_used, unsupported_reason
from tests.measure import test_support
from tests.measure.conftest import NO_LOADING, PROMPT
from tests.measure.stage_process import Bench
from tests.measure.test_support import CPU, CUDA

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
