"""The formulas, each against numbers worked out by hand."""

from typing import Any

import pytest

from hfbench.tables.roofline import (
    decode_bytes_per_step,
    decode_flops_per_step,
    matmul_ceiling,
    model_bandwidth_utilisation,
    model_flops_utilisation,
    prefill_bytes,
    prefill_flops,
    read_ceiling,
)
from tests.tables.hand_records import DENSE, KIND

EXPERTS = {
    **DENSE,
    "routed_experts": [{"weight_bytes": 800, "matmul_parameters": 400, "experts": 8, "experts_per_token": 2}],
}
MORE_EXPERTS = {"weight_bytes": 80, "matmul_parameters": 40, "experts": 4, "experts_per_token": 1}
OTHER_EXPERTS = {**EXPERTS, "routed_experts": [*EXPERTS["routed_experts"], MORE_EXPERTS]}
STATE = {**DENSE, "cache": {"attention": [], "state_bytes_per_row": 16}}
REPEATED = {**DENSE, "repeated_weight_bytes": 300}


def windowed(tokens: int) -> dict[str, Any]:
    return {**DENSE, "cache": {"attention": [{**KIND, "window_tokens": tokens}], "state_bytes_per_row": 0}}


@pytest.mark.parametrize(
    ("needs", "shape", "value"),
    [
        # Prompt 5, 4 new tokens: 3 decoding steps attend to 6, 7 and 8 tokens, 7 on average. The weights are read once,
        # and the cache of each row: 2 layers × 10 bytes × 7 tokens = 140 bytes.
        (DENSE, (1, 5, 4), 1000 + 140),
        (DENSE, (3, 5, 4), 1000 + 3 * 140),
        # A sliding window bounds the cache: the steps attend to 6, 7 and 7 tokens, 20 / 3 on average.
        (windowed(7), (1, 5, 4), 1000 + 2 * 10 * 20 / 3),
        # After a context of 100 they attend to 106, 107 and 108: 107 on average, 2 layers × 10 bytes × 107 = 2140.
        (DENSE, (3, 5, 4, 100), 1000 + 3 * 2140),
        (windowed(7), (1, 5, 4, 100), 1000 + 2 * 10 * 7),
        # A state does not grow.
        (STATE, (2, 5, 4), 1032),
        (STATE, (2, 5000, 4), 1032),
        # More rows choose more experts. One reads 2 of 8: 200 of 800 bytes. Two leave an expert out with probability
        # (6/8)² = 9/16, so that they read 7/16: 350 bytes.
        (EXPERTS, (1, 5, 4), 1200 + 140),
        (EXPERTS, (2, 5, 4), 1350 + 280),
        (EXPERTS, (10_000, 5, 4), 1800 + 1_400_000),
        # Layers with other experts count by their own numbers: one row reads a quarter of either.
        (OTHER_EXPERTS, (1, 5, 4), 1340 + 20),
        # A block that is used again is read again.
        (REPEATED, (2, 5, 4), 1000 + 300 + 2 * 140),
    ],
)
def test_bytes_of_a_decoding_step(needs: dict[str, Any], shape: tuple[int, ...], value: float) -> None:
    assert decode_bytes_per_step(needs, *shape) == pytest.approx(value)


@pytest.mark.parametrize(
    ("needs", "shape", "value"),
    [
        # The head counts once a row. 5 tokens × 2 × 100 = 1000; head 2 × 50 = 100; attention: 2 layers × 2 × 3 heads ×
        # (4 + 4) × 15 pairs = 1440.
        (DENSE, (1, 5), 1000 + 100 + 1440),
        (DENSE, (4, 5), 4 * 2540),
        # In a sliding window the pairs are 1 + 2 + 2 + 2 + 2 = 9.
        (windowed(2), (1, 5), 1000 + 100 + 2 * 2 * 3 * 8 * 9),
        # After a context of 100 the 5 tokens attend to 101 … 105: 515 pairs, 15 + 5 × 100. The products are as before.
        (DENSE, (4, 5, 100), 4 * (1000 + 100 + 2 * 2 * 3 * 8 * 515)),
        (windowed(7), (1, 5, 100), 1000 + 100 + 2 * 2 * 3 * 8 * 5 * 7),
        # The experts of a token: 2 of 8, 100 of 400 parameters, 5 tokens × 2 × 100 = 1000 FLOPs more; and 10 of 40.
        (EXPERTS, (1, 5), 2540 + 1000),
        (OTHER_EXPERTS, (1, 5), 2540 + 1000 + 5 * 2 * 10),
    ],
)
def test_flops_of_a_prefill(needs: dict[str, Any], shape: tuple[int, ...], value: float) -> None:
    assert prefill_flops(needs, *shape) == value


def test_a_decoding_step_computes_for_each_row() -> None:
    # Products 2 × (100 + 50) = 300; attention to 7 tokens on average: 2 layers × 2 × 3 heads × (4 + 4) × 7 = 672.
    assert decode_flops_per_step(DENSE, 1, 5, 4) == 300 + 672
    assert decode_flops_per_step(DENSE, 3, 5, 4) == 3 * 972
    # 2 of 8 experts: 2 × 100 more.
    assert decode_flops_per_step(EXPERTS, 1, 5, 4) == 972 + 200


def test_a_prefill_reads_the_weights_once_and_its_own_cache() -> None:
    assert prefill_bytes(DENSE, 1, 5) == 1000 + 2 * 10 * 5
    assert prefill_bytes(DENSE, 4, 5) == 1000 + 4 * 100
    assert prefill_bytes(REPEATED, 1, 5) == 1000 + 300 + 2 * 10 * 5
    # 5 tokens leave an expert out with probability (6/8)^5.
    assert prefill_bytes(EXPERTS, 1, 5) == pytest.approx(1100 + 800 * (1 - 0.75**5))


def test_what_is_not_known_is_none() -> None:
    """A cache of unknown form leaves neither known; FLOPs that torch counts otherwise leave the bytes."""
    neither = {**EXPERTS, "cache": None, "unknown": {"bytes": "why", "flops": "why"}}
    only_bytes = {**EXPERTS, "unknown": {"flops": "why"}}
    assert decode_bytes_per_step(neither, 1, 5, 4) is prefill_bytes(neither, 1, 5) is None
    for needs in (neither, only_bytes):
        assert decode_flops_per_step(needs, 1, 5, 4) is prefill_flops(needs, 1, 5) is None
    assert decode_bytes_per_step(only_bytes, 1, 5, 4) == pytest.approx(1340)
    assert prefill_bytes(only_bytes, 1, 5) is not None


def test_one_new_token_has_no_decoding_step() -> None:
    assert decode_bytes_per_step(DENSE, 1, 5, 1) is None
    assert decode_flops_per_step(DENSE, 1, 5, 1) is None


def test_utilisation_is_the_achieved_over_the_measured_rate() -> None:
    # 300 MB in 30 ms are 10 GB/s, of 20 GB/s; 5 GFLOP in 0.1 s are 50 GFLOP/s, of 200 GFLOP/s.
    assert model_bandwidth_utilisation(300e6, 0.03, 20e9) == pytest.approx(0.5)
    assert model_flops_utilisation(5e9, 0.1, 200e9) == pytest.approx(0.25)


def test_a_working_set_has_the_rate_of_its_size() -> None:
    ceilings = {"read_bytes_per_second_by_size": {"100": 50.0, "200": 20.0, "400": 22.0}}
    assert read_ceiling(ceilings, 10) == 50
    assert read_ceiling(ceilings, 199) == 50
    assert read_ceiling(ceilings, 200) == 22, "what a larger buffer reaches, a smaller one can reach"
    assert read_ceiling(ceilings, 10_000) == 22
    assert read_ceiling({"read_bytes_per_second_by_size": {}}, 10) is None
    assert read_ceiling({}, 10) is None


def test_matrix_rate_of_a_dtype() -> None:
    ceilings = {"matmul_flops_per_second": {"float32": 2.0, "float16": None}}
    assert matmul_ceiling(ceilings, "float32") == 2
    assert matmul_ceiling(ceilings, "float16") is None
    assert matmul_ceiling(ceilings, "bfloat16") is None
