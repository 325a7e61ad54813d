"""What runs is not what was asked for: each case is provoked on a real model, and said."""

import os
import warnings
from collections.abc import Callable
from copy import copy
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hfbench.core.record import FAILED, OUT_OF_MEMORY, REJECTED, UNAVAILABLE, UNSUPPORTED, Settings
from hfbench.measure import verification
from hfbench.measure.compiling import compilations, compiled_since, remember_all
from hfbench.measure.device import Cpu
from hfbench.measure.failure import NotFiniteError, WrongTokenCountError, status_of
from hfbench.measure.generation import Call
from hfbench.measure.loading import load_model, sdpa_backend
from hfbench.measure.plain_pass import check_prompt
from hfbench.measure.process import Reporter
from hfbench.measure.sampling import Sampler
from hfbench.measure.support import refusals_explained
from tests.conftest import TINY
from tests.measure import test_support
from tests.measure.conftest import NO_LOADING, PROMPT

point = partial(test_support.point, sequence_length=16)
pytestmark = pytest.mark.usefixtures("threads_as_asked")


@pytest.fixture
def model(tiny_model: Path) -> PreTrainedModel:
    loaded, loading = load_model(tiny_model, point(), torch.device("cpu"), trust_remote_code=False)
    assert loading == NO_LOADING
    return loaded


def effective_of(model: PreTrainedModel, **asked: object) -> dict[str, Any]:
    described = {**verification.describe_model(model, Cpu()), "loading": NO_LOADING}
    return described | verification.watch_short_call(model, point(**asked), Settings(), PROMPT)[0]


def differences(model: PreTrainedModel, **asked: object) -> list[str]:
    return verification.differences(point(**asked), effective_of(model, **asked))


def test_what_was_asked_for_has_no_difference(model: PreTrainedModel) -> None:
    effective = effective_of(model)
    assert verification.differences(point(), effective) == []
    assert effective["buffer_dtypes"] == {"float32": 2}  # the frequencies of the rotary embedding


def test_attention_that_was_swapped(model: PreTrainedModel) -> None:
    model.set_attn_implementation("eager")
    found = differences(model)
    assert any("attention is eager, not sdpa" in text for text in found)
    assert any("eager_attention_forward" in text for text in found)


@pytest.mark.parametrize("asked", ["sdpa", "sdpa:flash_attention"])
def test_attention_that_was_swapped_in_one_layer(model: PreTrainedModel, asked: str) -> None:
    attention = model.model.layers[0].self_attn
    attention.config = copy(attention.config)
    attention.config._attn_implementation = "eager"
    (found,) = differences(model, attn_implementation=asked)
    assert found.startswith("other attention functions than sdpa's ran")
    assert "eager_attention_forward" in found


def test_sdpa_under_the_name_of_eager(model: PreTrainedModel) -> None:
    found = differences(model, attn_implementation="eager")
    assert "attention is sdpa, not eager" in found
    assert "attention went through scaled_dot_product_attention" in found


@pytest.mark.parametrize("batching", [False, True])
def test_sdpa_backend_that_was_not_held_to(model: PreTrainedModel, batching: bool) -> None:
    asked: dict[str, Any] = {"attn_implementation": "sdpa:math", "continuous_batching": batching}
    assert differences(model, **asked) == ["SDPA ran flash_attention, not math"]
    with sdpa_backend("sdpa:math"):
        assert differences(model, **asked) == []


def test_attention_of_a_kernel_may_have_any_name(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fast(module: Any, query: Any, key: Any, value: Any, mask: Any, **_: Any) -> Any:  # noqa: ARG001
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
        return ((query @ key.mT * module.scaling).softmax(-1) @ value).transpose(1, 2), None

    name = "someone/kernel:fast"
    monkeypatch.setitem(AttentionInterface._global_mapping, name, fast)
    model.config._attn_implementation = name
    assert differences(model, attn_implementation=name) == []


def test_why_no_sdpa_backend_can_run_is_told() -> None:
    why = "For dense input, both fused kernels require query, key and value to have the same num_heads."

    @refusals_explained()
    def refuse() -> None:  # as torch 2.11 on an H100, for three heads of keys to nine of queries
        for message in ("Memory efficient kernel not used because:", why, "Flash attention has been runtime disabled."):
            warnings.warn(f"{message} (Triggered internally at /pytorch/aten/src/sdp_utils.cpp:418.)", stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.")

    with pytest.raises(RuntimeError) as told:
        refuse()
    assert status_of(told.value, "verify") == UNSUPPORTED
    assert str(told.value) == f"No available kernel: {why}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: model.layers[0].train(), ["the model is in training mode"]),
        (lambda model: model.norm.to("meta"), ["tensors are not all on cpu: {'meta': 1}"]),
        (lambda model: model.norm.float(), ["parameters are not all bfloat16: {'float32': 1}"]),
        (
            lambda model: model.register_buffer("scale", torch.ones(1)),
            ["buffers of the weights are not all bfloat16: {'float32': 1}"],
        ),
        (lambda model: model.rotary_emb.double(), ["computed buffers are not all bfloat16 or float32: {'float64': 2}"]),
    ],
)
def test_what_a_model_became(model: PreTrainedModel, change: Callable[[Any], object], told: list[str]) -> None:
    effective = effective_of(model)
    change(model.model)
    assert verification.differences(point(), effective | verification.describe_model(model, Cpu())) == told


def test_what_the_models_class_keeps_in_float32(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        **{**TINY, "model_type": "ernie4_5_moe"}, moe_num_experts=4, moe_k=2, moe_intermediate_size=32
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    model, _ = load_model(tmp_path, point(), torch.device("cpu"), trust_remote_code=False)
    effective = effective_of(model)
    assert effective["parameter_dtypes"]["float32"] == effective["kept_in_float32"]["parameters"] > 0
    assert verification.differences(point(), effective) == []
    model.lm_head.float()
    effective |= verification.describe_model(model, Cpu())
    assert verification.differences(point(), effective) == ["parameters are not all bfloat16: {'float32': 1}"]


@pytest.mark.parametrize(("dtype", "kept"), [("float16", 4), ("bfloat16", 0)])
def test_what_the_models_class_keeps_from_float16_only(tmp_path: Path, dtype: str, kept: int) -> None:
    config = AutoConfig.for_model("rwkv", vocab_size=600, hidden_size=64, num_hidden_layers=2)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    asked = point(attn_implementation="eager", dtype=dtype)
    model, _ = load_model(tmp_path, asked, torch.device("cpu"), trust_remote_code=False)
    decay = model.get_parameter("rwkv.blocks.0.attention.time_decay")
    decay.data = decay.data.float()
    effective = effective_of(model, attn_implementation="eager", dtype=dtype)
    assert effective["kept_in_float32"]["parameters"] == kept
    wrong = [] if kept else ["parameters are not all bfloat16: {'float32': 1}"]
    assert verification.differences(asked, effective) == wrong


def test_weights_that_were_missing(model: PreTrainedModel) -> None:
    effective = effective_of(model) | {"loading": {**NO_LOADING, "missing_keys": ["model.norm"]}}
    assert verification.differences(point(), effective) == ["1 missing keys in the weights, first model.norm"]


def test_threads(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads() + 1))
    assert any("threads, not" in text for text in differences(model))


@pytest.mark.parametrize(
    ("ran", "asked", "told"),
    [
        ({}, {"compile_mode": "default"}, ["the cache is DynamicCache, not StaticCache"]),
        ({"cache_implementation": "static"}, {"cache_implementation": "static"}, []),
        (
            {"cache_implementation": "static"},
            {"cache_implementation": "dynamic"},
            ["the cache is StaticCache, not DynamicCache"],
        ),
    ],
)
def test_caches(model: PreTrainedModel, ran: dict[str, str], asked: dict[str, str], told: list[str]) -> None:
    assert verification.differences(point(**asked), effective_of(model, **ran)) == told


def test_a_frame_that_is_compiled_after_many_others_is_told() -> None:
    functions: list[Callable[[torch.Tensor], torch.Tensor]] = [
        torch.compile(eval("lambda x: x + 1"), backend="eager", dynamic=False) for _ in range(70)
    ]
    remember_all()
    for function, length in product(functions, (2, 3)):
        function(torch.ones(length))
    known = compilations()
    functions[0](torch.ones(2))
    assert compiled_since(known) == []
    functions[0](torch.ones(4))
    twice: Callable[[torch.Tensor], torch.Tensor] = torch.compile(lambda x: x * 2, backend="eager")
    twice(torch.ones(2))
    again, first = compiled_since(known)
    assert "size mismatch" in again
    assert "first call of" in first


def test_logits_that_are_not_a_number_reject_the_point(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(
        NotFiniteError, match="likelihood of the prompt is nan: the model overflows in bfloat16"
    ) as raised:
        check_prompt(model, PROMPT, 2)
    assert status_of(raised.value, "verify") == REJECTED


# No such device is here: this is how torch and transformers say it, in exceptions of general types.
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB). Tried to allocate 1.00 GB on private pool."),
        RuntimeError("generate_batch failed: CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_device_memory_that_runs_out(error: Exception) -> None:
    assert status_of(error, "sample") == OUT_OF_MEMORY


def test_wrong_number_of_tokens_ends_the_measurement() -> None:
    read_end, write_end = os.pipe()
    short = Call(start=0.0, last_token=1.0, end=1.0, token_times=[[0.5]], tokens=[[7]])
    with pytest.raises(WrongTokenCountError, match="1 new tokens instead of 2"):
        Sampler(lambda *_: short, (2,), Reporter(write_end, 0.0)).first_call()
    os.close(read_end)


class _HubError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"{status_code} of the hub")
        self.response = SimpleNamespace(status_code=status_code)


@pytest.mark.parametrize(
    ("error", "phase", "status"),
    [
        (ImportError("libcudnn.so.9: cannot open shared object file"), "load", UNAVAILABLE),
        (ModuleNotFoundError("No module named 'einops'"), "import", UNAVAILABLE),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "sample", UNAVAILABLE),
        (RuntimeError("HIP error: unspecified launch failure"), "warm-up", UNAVAILABLE),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "load", UNSUPPORTED),
        (RuntimeError("CUDA error: out of memory"), "sample", OUT_OF_MEMORY),
        (_HubError(503), "prepare", UNAVAILABLE),
        (_HubError(429), "load", UNAVAILABLE),
        (_HubError(404), "load", FAILED),
        (ValueError("sdpa is not supported for this model"), "load", UNSUPPORTED),
        (ValueError("sdpa is not supported for this model"), "first call", UNSUPPORTED),
        (ValueError("sdpa is not supported for this model"), "sample", FAILED),
        (NotImplementedError("no such operator"), "first call", UNSUPPORTED),
    ],
)
def test_a_passing_trouble_is_told_from_what_cannot_be(error: Exception, phase: str, status: str) -> None:
    assert status_of(error, phase) == status
