"""Each formula on token times whose result is worked out by hand."""

import polars as pl
import pytest

from hfbench.tables import metrics

PROMPT = {"batch_size": 2, "requests": 2, "prompt_tokens": 20, "new_tokens": 6, "end_to_end_seconds": 1.5}
# One list for a batch of 2 rows: gaps 0.1, 0.2, 0.3.
IN_STEP = {**PROMPT, "token_seconds": [[0.5, 0.6, 0.8, 1.1]]}
# Two requests: first tokens at 0.2 and 0.6; mean gaps (0.8 - 0.2) / 2 = 0.3 and (1.0 - 0.6) / 2 = 0.2.
REQUESTS = {**PROMPT, "token_seconds": [[0.2, 0.4, 0.8], [0.6, 0.7, 1.0]]}
ONE_TOKEN = {**PROMPT, "token_seconds": [[0.5]]}
ONE_TOKEN_EACH = {**PROMPT, "token_seconds": [[0.5], [0.9]]}
UNOBSERVED = {**PROMPT, "token_seconds": []}
# Three requests of 2, 3 and 1 new tokens, two at a time: the third begins where the first ended.
UNEQUAL = {
    **PROMPT,
    "requests": 3,
    "prompt_tokens": 17,
    "token_seconds": [[0.2, 0.4], [0.2, 0.5, 0.9], [0.6]],
}
TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "batch_size": pl.Int64,
    "requests": pl.Int64,
    "prompt_tokens": pl.Int64,
    "new_tokens": pl.Int64,
    "end_to_end_seconds": pl.Float64,
    "token_seconds": pl.List(pl.List(pl.Float64)),
}


def _evaluate(formula: pl.Expr, *iterations: dict[str, object]) -> list[float | None]:
    return pl.DataFrame(list(iterations), schema=TYPES).select(result=formula)["result"].to_list()


@pytest.mark.parametrize(
    ("formula", "in_step", "requests"),
    [
        (metrics.time_to_first_token(), 0.5, 0.4),
        (metrics.inter_token_latency(), 0.2, 0.25),  # 0.6 / 3; dividing by n = 4 would give 0.15
        (metrics.prefill_throughput(), 40.0, 20 / 0.6),  # 2 rows of 10 tokens in 0.5 s, and until the last one's 0.6 s
        (metrics.decode_throughput(), 10.0, 5.0),  # 2 rows of 3 in 0.6 s; 2 + 2 tokens from 0.2 s to 1.0 s
    ],
    ids=["time to first token", "inter-token latency", "prefill throughput", "decode throughput"],
)
def test_formula(formula: pl.Expr, in_step: float, requests: float) -> None:
    assert _evaluate(formula, IN_STEP, REQUESTS, UNOBSERVED) == [pytest.approx(in_step), pytest.approx(requests), None]


def test_requests_of_unequal_lengths() -> None:
    assert _evaluate(metrics.time_to_first_token(), UNEQUAL) == [0.2]
    assert _evaluate(metrics.slow_first_token(), UNEQUAL) == [pytest.approx(0.2 + 0.9 * 0.4)]  # place 1.9 of 0 … 2
    assert _evaluate(metrics.inter_token_latency(), UNEQUAL) == [pytest.approx(0.275)]  # of 0.2 and 0.7 / 2
    assert _evaluate(metrics.decode_throughput(), UNEQUAL) == [pytest.approx(3 / 0.7)]  # 1 + 2 + 0, from 0.2 to 0.9 s
    assert _evaluate(metrics.prefill_throughput(), UNEQUAL) == [None]  # the third waits while others decode
    at_once = {**UNEQUAL, "batch_size": 4}
    assert _evaluate(metrics.prefill_throughput(), at_once) == [pytest.approx(17 / 0.6)]
    assert _evaluate(metrics.output_throughput(), UNEQUAL, UNOBSERVED) == [4.0, 4.0]  # 6 tokens in 1.5 s


def test_rows_in_step_have_no_slowest_request() -> None:
    assert _evaluate(metrics.slow_first_token(), IN_STEP, UNOBSERVED) == [None, None]


def test_one_new_token_has_a_prefill_and_no_decode() -> None:
    assert _evaluate(metrics.time_to_first_token(), ONE_TOKEN, ONE_TOKEN_EACH) == [0.5, 0.7]
    assert _evaluate(metrics.prefill_throughput(), ONE_TOKEN, ONE_TOKEN_EACH) == [40.0, pytest.approx(20 / 0.9)]
    assert _evaluate(metrics.inter_token_latency(), ONE_TOKEN, ONE_TOKEN_EACH) == [None, None]
    assert _evaluate(metrics.decode_throughput(), ONE_TOKEN, ONE_TOKEN_EACH) == [None, None]


def test_tokens_at_one_instant_have_no_rate() -> None:
    same = {**IN_STEP, "token_seconds": [[0.5, 0.5]]}
    assert _evaluate(metrics.decode_throughput(), same) == [None]
    assert _evaluate(metrics.inter_token_latency(), same) == [0.0]


def test_gaps_stay_with_their_request() -> None:
    gaps = pl.DataFrame([REQUESTS, ONE_TOKEN], schema=TYPES).select(gaps=metrics.inter_token_gaps())["gaps"].to_list()
    assert gaps == [[pytest.approx([0.2, 0.4]), pytest.approx([0.1, 0.3])], [[]]]
