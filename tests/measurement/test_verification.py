"""What runs is not what was asked for: each case is provoked on a real model, and said."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CompileConfig, PreTrainedModel

from hfbench.foundation.configuration import Settings
from hfbench.measurement import verification
from hfbench.measurement.channel import Reporter
from hfbench.measurement.compilation import describe_compilation
from hfbench.measurement.device import Cpu
from hfbench.measurement.failure import WrongTokenCountError
from hfbench.measurement.generation import Call, Prompt, generation_config
from hfbench.measurement.loading import load_model, sdpa_backend
from hfbench.measurement.sampling import Sampler
from tests.measurement import test_support

point = partial(test_support.point, sequence_length=16)
ROWS = torch.arange(1, 33).reshape(2, 16)
PROMPT = Prompt(ROWS, torch.ones_like(ROWS), pad_token_id=0)
NO_LOADING: dict[str, list[str]] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}


@pytest.fixture(autouse=True)
def _threads_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))


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
    assert differences(model) == []


def test_attention_that_was_swapped(model: PreTrainedModel) -> None:
    model.set_attn_implementation("eager")
    found = differences(model)
    assert any("attention is eager, not sdpa" in text for text in found)
    assert any("eager_attention_forward" in text for text in found)


def test_sdpa_under_the_name_of_eager(model: PreTrainedModel) -> None:
    found = differences(model, attn_implementation="eager")
    assert "attention is sdpa, not eager" in found
    assert "attention went through scaled_dot_product_attention" in found


def test_sdpa_backend_that_was_not_held_to(model: PreTrainedModel) -> None:
    assert differences(model, attn_implementation="sdpa:math") == ["SDPA ran flash_attention, not math"]
    with sdpa_backend("sdpa:math"):
        assert differences(model, attn_implementation="sdpa:math") == []


def test_parameter_left_in_float32(model: PreTrainedModel) -> None:
    effective = effective_of(model)
    model.model.norm.float()
    effective |= verification.describe_model(model, Cpu())
    assert verification.differences(point(), effective) == ["parameters are not all bfloat16: {'float32': 1}"]


def test_training_mode(model: PreTrainedModel) -> None:
    model.model.layers[0].train()
    assert differences(model) == ["the model is in training mode"]


def test_tensor_on_another_device(model: PreTrainedModel) -> None:
    effective = effective_of(model)
    model.model.norm.to("meta")
    effective |= verification.describe_model(model, Cpu())
    assert verification.differences(point(), effective) == ["tensors are not all on cpu: {'meta': 1}"]


def test_weights_that_were_missing(model: PreTrainedModel) -> None:
    effective = effective_of(model) | {"loading": {**NO_LOADING, "missing_keys": ["model.norm"]}}
    assert verification.differences(point(), effective) == ["1 missing keys in the weights, first model.norm"]


def test_threads(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads() + 1))
    assert any("threads, not" in text for text in differences(model))


def test_cache_that_is_not_static(model: PreTrainedModel) -> None:
    found = verification.differences(point(compile_mode="default"), effective_of(model))
    assert found == ["the cache is DynamicCache, not StaticCache"]


def test_compilation_that_transformers_skips(model: PreTrainedModel) -> None:
    compiled = point(compile_mode="default")
    config = generation_config(compiled, Settings(), PROMPT)
    config.compile_config = CompileConfig(mode="default")  # without hfbench's flag, the CPU is skipped with a log line
    model.generate(PROMPT.input_ids, attention_mask=PROMPT.attention_mask, generation_config=config)  # type: ignore[operator]
    found = verification.compilation_differences(compiled, describe_compilation(), compiled_calls=0)
    assert found == ["nothing was compiled", "compiled code ran 0 times in 7 decoding steps"]


def test_recompile_limit_is_a_difference() -> None:
    compilation = {"graphs": 8, "fell_back": ["Dynamo recompile limit exceeded Explanation: …"], "cache_hits": 0}
    found = verification.compilation_differences(point(compile_mode="default"), compilation, compiled_calls=100)
    assert len(found) == 1
    assert "gave up recompiling" in found[0]


def test_wrong_number_of_tokens_ends_the_measurement() -> None:
    read_end, write_end = os.pipe()
    short = Call(start=0.0, last_token=1.0, end=1.0, token_times=[[0.5]], tokens=[[7]])
    with pytest.raises(WrongTokenCountError, match="1 new tokens instead of 2"):
        Sampler(lambda _: short, 2, Reporter(write_end, 0.0)).first_call()
    os.close(read_end)
