"""Caches as transformers names them: in force, proven, and counted by what their tensors take; with a context too."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import DynamicCache, QuantizedCache, StaticCache

from hfbench.core.record import OK, Record, Settings
from hfbench.measure.accounting import kv_bytes_per_token
from hfbench.tables.agreement import Output
from tests.conftest import TINY
from tests.measure.conftest import ROWS, save_batch
from tests.measure.stage_process import Bench

FP8 = {"backend": "fp8"}
HEAD = TINY["hidden_size"] // TINY["num_attention_heads"]
NUMBERS = 2 * TINY["num_hidden_layers"] * TINY["num_key_value_heads"] * HEAD  # of keys and values of a token


def measured(bench: Bench, name: str, **axes: object) -> Record:
    settings = Settings(quantized_cache=FP8 if name == "quantized" else None)
    return replace(bench, settings=settings).measure(cache_implementation=name, **axes)


@pytest.mark.parametrize("depth", [0, 4])
@pytest.mark.parametrize(
    ("name", "kind", "bytes_a_number"),
    [("dynamic", "DynamicCache", 2), ("static", "StaticCache", 2), ("quantized", "QuantizedCache", 1)],
)
def test_each_cache_is_in_force_and_its_bytes_are_known(
    bench: Bench, name: str, kind: str, bytes_a_number: int, depth: int
) -> None:
    save_batch(bench.folder / "b2-s12.safetensors", ROWS)
    axes = {"context_depth": depth, "sequence_length": 16 - depth} if depth else {}
    record = measured(bench, name, **axes)
    assert (record.status, record.reason) == (OK, None)
    assert record.requested["cache_implementation"] == name
    assert record.effective["cache"] == kind
    assert record.effective["compilation"]["graphs"] == 0
    assert not record.effective["cache_offloads"]
    # What is beyond is the scales of fp8, of which each layer has two.
    assert NUMBERS * bytes_a_number <= record.effective["kv_bytes_per_token"] < NUMBERS * bytes_a_number + 4


def test_a_quantized_cache_has_its_price_and_is_not_wrong_for_it(bench: Bench) -> None:
    record = measured(bench, "quantized", dtype="float32")
    assert (record.status, record.reason) == (OK, None)
    output = Output.read(record.output)
    assert output.path_agrees is None
    assert output.path_change is not None
    assert abs(output.path_change) < 0.1
    exact = measured(bench, "dynamic", dtype="float32")
    assert Output.read(exact.output).path_agrees


def test_bytes_are_those_of_the_tensors_whatever_has_room() -> None:
    keys = torch.zeros(3, 2, 5, HEAD, dtype=torch.bfloat16)
    config = _config()
    dynamic, quantized = DynamicCache(config=config), QuantizedCache(backend="fp8", config=config)
    static = StaticCache(config=config, max_cache_len=50)
    for cache in (dynamic, quantized, static):
        for layer in range(TINY["num_hidden_layers"]):
            cache.update(keys, keys, layer)
    assert kv_bytes_per_token(dynamic, 3) == kv_bytes_per_token(static, 3) == 2 * NUMBERS
    scales = 4 * 2 * TINY["num_hidden_layers"] / (5 * 3)
    assert kv_bytes_per_token(quantized, 3) == pytest.approx(NUMBERS + scales)
    assert kv_bytes_per_token(DynamicCache(config=config), 3) is None


def _config() -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**TINY)
