"""A call after a prompt, and a prompt in chunks: as one call on the whole row, and proven to be what was asked."""

import dataclasses
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import pstdev
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hfbench.core.record import OK, REJECTED, UNSUPPORTED, Record, Settings
from hfbench.measure import prompt as prompts
from hfbench.measure import verification
from hfbench.measure.batching import Batching, arrival_delays, continuous_batching_config, prepare_generate_batch
from hfbench.measure.compiling import describe_compilation, watch_compiled_call
from hfbench.measure.device import Cpu
from hfbench.measure.failure import WrongTokenCountError, status_of
from hfbench.measure.generation import generation_config, prepare_generate
from hfbench.measure.plain_pass import check_prompt
from hfbench.measure.prompt import (
    Passes,
    Prompt,
    batches_of,
    longest_row,
    longest_to_decode,
    prefill_differences,
    request_tokens,
)
from hfbench.params.sections import BatchingParams
from tests.conftest import some
from tests.families import family_model
from tests.measure.conftest import PROMPT, save_batch
from tests.measure.stage_process import Bench
from tests.measure.test_support import point

AFTER_CONTEXT = 5
ROWS = torch.randint(1, 600, (2, 40), generator=torch.Generator().manual_seed(1))


_model = partial(family_model, attention=None)


def _prompt(depth: int) -> Prompt:
    return Prompt(ROWS[:, depth:], torch.ones_like(ROWS), 0, context_ids=ROWS[:, :depth] if depth else None)


def _asked(depth: int, **axes: Any) -> Any:
    lengths = {"batch_size": 2, "sequence_length": 40 - depth, "max_new_tokens": AFTER_CONTEXT, "context_depth": depth}
    return point(dtype="float32", **{**lengths, **axes})


def _generate(model: PreTrainedModel, **arguments: Any) -> tuple[list[list[int]], torch.Tensor]:
    """New tokens of each row, and the logits of each step."""
    output = model.generate(**arguments)  # type: ignore[operator]
    return output.sequences[:, arguments["input_ids"].shape[1] :].tolist(), torch.stack(output.logits)


@pytest.mark.parametrize("prefill_chunk_size", [0, 5])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])  # rotary positions, learned ones, sliding windows
def test_a_context_and_the_rest_are_as_the_whole_row(
    name: str, cache: str, prefill_chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "_FILL_TOKENS", 7)  # so that the context goes in as 4 × 7 tokens
    layers: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"]} if name == "gemma3_text" else {}
    model, prompt = _model(name, **layers), _prompt(28)
    asked = _asked(28, cache_implementation=cache, prefill_chunk_size=prefill_chunk_size)
    logged = {"return_dict_in_generate": True, "output_logits": True}
    whole = generation_config(_asked(0), Settings(), _prompt(0))
    whole.update(**logged)
    tokens, logits = _generate(model, input_ids=ROWS, attention_mask=torch.ones_like(ROWS), generation_config=whole)

    call = prepare_generate(model, asked, Settings(), prompt, Cpu())
    assert [call(True).tokens for _ in range(2)] == [tokens, tokens]  # the second after what the first left behind
    config = generation_config(asked, Settings(), prompt)
    config.update(**logged)
    filled = prompts.prepare_context(model, asked, Settings(), prompt, AFTER_CONTEXT)()
    arguments = {"attention_mask": prompt.attention_mask, "generation_config": config, **filled}
    after = _generate(model, input_ids=prompt.input_ids, **arguments)
    assert after[0] == tokens
    assert (after[1] - logits).abs().max() < 1e-5

    watched, _, _ = verification.watch_short_call(model, asked, Settings(), prompt)
    assert watched["cache"] == f"{cache.capitalize()}Cache"
    assert watched["prefill_lengths"] == ([5, 5, 2] if prefill_chunk_size else [12])
    assert watched["context"] == {"tokens_before": 28, "tokens_after": 41, "new_tokens": 2}
    assert prefill_differences(asked, watched) == []


def test_a_prompt_of_one_token_and_one_new_token() -> None:
    model, prompt = _model("llama"), _prompt(39)
    asked = _asked(39, max_new_tokens=1)
    ((token,), (other,)) = prepare_generate(model, asked, Settings(), prompt, Cpu())(False).tokens
    assert [token, other] == model(ROWS).logits[:, -1].argmax(-1).tolist()
    watched, _, _ = verification.watch_short_call(model, asked, Settings(), prompt)
    assert watched["prefill_lengths"] == [1]
    assert prefill_differences(asked, watched) == []
    assert check_prompt(model, prompt, 1)[0] == {"prompt_nll": None, "prompt_top1": [token]}


def test_the_likelihood_is_that_of_the_prompt_after_its_context() -> None:
    model = _model("llama")
    found = check_prompt(model, _prompt(28), 4)[0]
    log_probabilities = model(ROWS[:1]).logits[0].detach().log_softmax(-1)
    scored = [-float(log_probabilities[position - 1, ROWS[0, position]]) for position in range(29, 40)]
    assert found["prompt_nll"] == pytest.approx(sum(scored) / 11, abs=1e-5)
    assert found["nll_positions"] == [29, 39]
    assert found["prompt_top1"] == log_probabilities.argmax(-1)[28:].tolist()


def test_what_went_in_otherwise_than_asked_is_a_difference() -> None:
    model = _model("llama")
    watched, _, _ = verification.watch_short_call(model, _asked(28), Settings(), _prompt(28))
    chunked = prefill_differences(_asked(28, prefill_chunk_size=5), watched)
    assert chunked == ["the prompt went in as 12 tokens, not as 2 × 5 + 2"]
    deeper = prefill_differences(_asked(28, context_depth=30), watched)
    assert deeper[0] == "the cache held 28 tokens before the call, and context_depth is 30"
    none, _, _ = verification.watch_short_call(model, _asked(0), Settings(), _prompt(0))
    assert none["context"] is None
    assert any("held 0 tokens before" in text for text in prefill_differences(_asked(0, context_depth=4), none))


def test_a_cache_that_does_not_hold_the_context_ends_the_measurement() -> None:
    model, prompt = _model("llama"), _prompt(28)
    used = prompts.prepare_context(model, _asked(28), Settings(), prompt, AFTER_CONTEXT)()["past_key_values"]
    with pytest.raises(WrongTokenCountError, match="holds 56 tokens before the call, and context_depth is 28"):
        prompts._fill(model, prompt, used)


def test_an_architecture_that_takes_no_such_cache() -> None:
    model = _model("mamba")
    with pytest.raises(NotImplementedError, match="MambaForCausalLM takes no past_key_values") as refusal:
        prepare_generate(model, _asked(28), Settings(), _prompt(28), Cpu())
    assert status_of(refusal.value, "verify") == UNSUPPORTED
    chunked = prepare_generate(model, _asked(0, prefill_chunk_size=5), Settings(), _prompt(0), Cpu())
    with pytest.raises(ValueError, match="without a cache") as refused:
        chunked(False)
    assert status_of(refused.value, "verify") == UNSUPPORTED


def test_compiled_code_decodes_after_a_context_without_compiling_again() -> None:
    model, prompt = _model("llama"), _prompt(28)
    plain = prepare_generate(model, _asked(28), Settings(), prompt, Cpu())(False)
    asked = _asked(28, compile_mode="default", prefill_chunk_size=6)
    before = describe_compilation()["graphs"]
    call = prepare_generate(model, asked, Settings(), prompt, Cpu())
    assert call(False).tokens == plain.tokens
    graphs = describe_compilation()["graphs"]
    assert graphs - before == 2  # the chunks of 6 tokens, and the decoding steps
    compilation = describe_compilation() | watch_compiled_call(model, partial(call, False))
    assert compilation["compiled_calls"] == 2 + AFTER_CONTEXT - 1
    assert compilation["graphs"] == graphs


def test_a_measurement_after_a_context(bench: Bench) -> None:
    (bench.folder / "b2-s16.safetensors").rename(bench.folder / "b2-s6.safetensors")  # 10 of its 16 tokens are context
    record = bench.measure(context_depth=10, sequence_length=6, prefill_chunk_size=4, max_new_tokens=1)
    assert record.status == OK, record.reason
    assert record.effective["context"] == {"tokens_before": 10, "tokens_after": 16, "new_tokens": 1}
    assert record.effective["prefill_lengths"] == [4, 2]
    assert (record.requested["context_depth"], record.requested["prefill_chunk_size"]) == (10, 4)
    assert record.output["nll_positions"] == [11, 15]
    assert {iteration.new_tokens for iteration in record.iterations} == {(1, 1)}


PROMPTS, NEW_TOKENS = (5, 16, 9, 3, 12), (4, 1, 6, 2, 3)
WORKLOAD = {"request_lengths": "mixed", "min_iterations": 2, "max_iterations": 2, "dtype": "float32"}


def rows_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.zeros(len(PROMPTS), 16, dtype=torch.int64)
    mask = torch.zeros_like(rows)
    for row, length in enumerate(PROMPTS):
        rows[row, 16 - length :] = torch.arange(1, length + 1) + 20 * row
        mask[row, 16 - length :] = 1
    return rows, mask


@pytest.fixture
def workload(bench: Bench) -> Bench:
    """The tiny model with five requests of unequal lengths, of which two run at a time."""
    rows, mask = rows_and_mask()
    lengths = {"new_tokens": torch.tensor(NEW_TOKENS), "prompt_tokens": torch.tensor(PROMPTS)}
    save_batch(bench.folder / "b2-s16.safetensors", rows, attention_mask=mask, **lengths)
    return bench


def with_knobs(bench: Bench, **knobs: object) -> Bench:
    asked = BatchingParams.model_validate(knobs).model_dump()
    return dataclasses.replace(bench, settings=Settings(continuous_batching=asked))


def test_a_batch_is_padded_to_its_own_longest_prompt() -> None:
    rows, mask = rows_and_mask()
    prompt = Prompt(rows, mask, 0, NEW_TOKENS)
    batches = batches_of(prompt, 2)
    assert [tuple(batch.input_ids.shape) for batch in batches] == [(2, 16), (2, 9), (1, 12)]
    assert [batch.new_tokens for batch in batches] == [(4, 1), (6, 2), (3,)]
    assert batches[1].input_ids.tolist() == [list(range(41, 50)), [0] * 6 + [61, 62, 63]]
    assert [len(tokens) for tokens in request_tokens(prompt)] == list(PROMPTS)
    assert longest_row(prompt).input_ids.tolist() == [list(range(21, 37))]


def test_the_row_that_drafts_are_looked_at_on_is_to_get_more_than_one_token() -> None:
    rows, mask = rows_and_mask()
    assert longest_to_decode(Prompt(rows, mask, 0, NEW_TOKENS)).new_tokens == (3,), "the longest is to get one"
    assert longest_to_decode(Prompt(rows, mask, 0, (1,) * 5)).input_ids.shape == (1, 16)


def test_a_changed_frequency_is_found_however_long_the_pieces_are() -> None:
    short, long = (1.0,), (0.5,)
    kept = Passes([4, 4, 4], [0, 4, 8], [short, short, long])
    assert kept.frequencies_changed_at() == 8, "pieces as long as what was there before are no new start"
    assert Passes([8, 12, 1], [0, 0, 12], [short, long, long]).frequencies_changed_at() is None, "all was taken in anew"


def test_a_paged_cache_has_room_for_a_request_of_layers_of_two_kinds() -> None:
    """Five layers of full attention and 29 of sliding windows, as Gemma 3 of 4B: transformers deals out 145 pages."""
    kinds = ["full_attention"] * 5 + ["sliding_attention"] * 29
    model = _model("gemma3_text", layer_types=kinds, num_hidden_layers=34)
    asked = point(continuous_batching=True, batch_size=1, sequence_length=16, max_new_tokens=3)
    prompt = Prompt(ROWS[:1, :16], torch.ones(1, 16, dtype=torch.int64), 0)
    (tokens,) = prepare_generate_batch(model, asked, Settings(), prompt, Cpu())(True).tokens
    assert len(tokens) == 3


def test_both_ways_give_each_request_its_own_tokens(workload: Bench) -> None:
    padded = workload.measure(**WORKLOAD)
    continuous = workload.measure("--continuous_batching", **WORKLOAD)
    for record in (padded, continuous):
        assert record.status == OK, record.reason
        assert record.requested["requests"] == {"prompt_tokens": list(PROMPTS), "new_tokens": list(NEW_TOKENS)}
        assert len(record.output["prompt_top1"]) == 16
        for iteration in record.iterations:
            assert iteration.new_tokens == NEW_TOKENS
            times = iteration.token_seconds
            assert [len(each) for each in times] == (list(NEW_TOKENS) if iteration.observed else [])
            assert all(each[0] > 0 and each[-1] <= iteration.end_to_end_seconds for each in times)
    assert padded.output["prompt_nll"] == pytest.approx(continuous.output["prompt_nll"], abs=1e-4)
    assert padded.output["tokens"] == continuous.output["tokens"]
    assert continuous.effective["cache"] == "PagedAttentionCache"
    assert all(each.end_to_end_seconds <= each.call_seconds for each in continuous.iterations)
    assert padded.effective["batches"] == [
        {"rows": 2, "padded_prompt_tokens": 16, "new_tokens": 4},
        {"rows": 2, "padded_prompt_tokens": 9, "new_tokens": 6},
        {"rows": 1, "padded_prompt_tokens": 12, "new_tokens": 3},
    ]
    _only_two_ran_at_a_time(continuous)


def _only_two_ran_at_a_time(record: Record) -> None:
    for iteration in record.iterations:
        lives = [(times[0], times[-1]) for times in iteration.token_seconds]
        for first, _ in lives:
            assert sum(start <= first <= end for start, end in lives) <= 2
        assert [first for first, _ in lives] == sorted(first for first, _ in lives), "first come, first served"


def test_knobs_are_recorded_as_asked_and_as_in_force(workload: Bench) -> None:
    knobs = {"page_size": 16, "num_blocks": 12, "max_batch_tokens": 64, "scheduler_type": "prefill_first"}
    sharing = with_knobs(workload, **knobs, safety_margin=0.1, allow_block_sharing=True)
    record = sharing.measure("--continuous_batching", **WORKLOAD)
    assert record.status == OK, record.reason
    asked, ran = (which["continuous_batching_config"] for which in (record.requested, record.effective))
    for name, value in {
        **knobs,
        "safety_margin": 0.1,
        "allow_block_sharing": True,
        "max_requests_per_batch": 2,
    }.items():
        assert asked[name] == ran[name] == value
    assert asked["use_cuda_graph"] is None
    assert ran["use_cuda_graph"] == [False, False]


@pytest.mark.parametrize(
    ("knobs", "status", "words"),
    [
        ({"use_cuda_graph": True}, REJECTED, "use_cuda_graph is [False, False], not True"),
        ({"kv_padding_interval_size": 64}, REJECTED, "kv_padding_interval_size is 64, and batches are not padded"),
        ({"max_batch_tokens": 1}, REJECTED, "max_requests_per_batch is 1, not 2"),
        ({"use_async_batching": True}, UNSUPPORTED, "requires a device type in"),
    ],
)
def test_a_knob_that_cannot_take_effect_is_said(
    workload: Bench, knobs: dict[str, object], status: str, words: str
) -> None:
    record = with_knobs(workload, **knobs).measure("--continuous_batching", **WORKLOAD)
    assert record.status == status, record.reason
    assert words in str(record.reason)
    assert "sample" not in [iteration.phase for iteration in record.iterations]


def test_requests_that_arrive_one_by_one_count_from_when_they_were_due(workload: Bench) -> None:
    together = workload.measure("--continuous_batching", **WORKLOAD)
    rate = 5.0
    record = dataclasses.replace(workload, settings=Settings(continuous_batching={}, arrivals={"seed": 3})).measure(
        "--continuous_batching", request_rate=rate, **WORKLOAD
    )
    assert record.status == OK, record.reason
    assert record.requested["request_rate"] == "5.0"
    assert record.output["tokens"] == together.output["tokens"]
    observed = [each for each in record.iterations if each.phase == "sample" and each.observed]
    due = arrival_delays(len(PROMPTS), "5.0", 3)
    assert due[0] == 0
    assert due[-1] == pytest.approx((len(PROMPTS) - 1) / rate)
    for iteration in observed:
        assert iteration.arrival_seconds == pytest.approx(due, abs=0.1)
        first = [times[0] for times in iteration.token_seconds]
        assert all(arrival < at for arrival, at in zip(iteration.arrival_seconds, first, strict=True))
        assert iteration.end_to_end_seconds > due[-1]
    assert all(each.arrival_seconds == () for each in together.iterations)


def test_arrivals_are_a_poisson_process_of_the_rate_asked_for() -> None:
    delays = arrival_delays(2001, "4", 0)
    gaps = [late - early for early, late in pairwise(delays)]
    assert delays[-1] == pytest.approx(2000 / 4)
    assert pstdev(gaps) == pytest.approx(1 / 4, rel=0.1)  # of exponential gaps, as their mean
    assert delays == arrival_delays(2001, "4", 0) != arrival_delays(2001, "4", 1)
    assert arrival_delays(5, "inf", 0) == ()


def test_what_prompts_share_is_found_once_it_is_in_the_cache(bench: Bench) -> None:
    rows = torch.cat([torch.arange(1, 9).repeat(3, 1), torch.arange(100, 124).reshape(3, 8)], dim=1)
    lengths = {"new_tokens": torch.full((3,), 4), "prompt_tokens": torch.full((3,), 16)}
    save_batch(bench.folder / "b1-s16.safetensors", rows, **lengths)
    sharing = with_knobs(bench, page_size=4, allow_block_sharing=True)
    record = sharing.measure("--continuous_batching", **{**WORKLOAD, "batch_size": 1, "max_new_tokens": 4})
    assert record.status == OK, record.reason
    # One at a time: the second and the third find the eight tokens that all begin with.
    assert record.effective["prefix_sharing"] == {"prompt_tokens": 48, "shared_tokens": 16}


def test_prefix_sharing_finds_nothing_of_the_iteration_before(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    asked = point(continuous_batching=True, batch_size=2, sequence_length=16, max_new_tokens=3)
    knobs = BatchingParams(page_size=4, allow_block_sharing=True).model_dump()
    settings = Settings(continuous_batching=knobs)
    configs = generation_config(asked, settings, PROMPT), continuous_batching_config(asked, settings)
    batching = Batching(model, *configs, PROMPT)
    searched: list[int] = []
    outputs = [batching.run((3, 3), observed=True)[1]]
    cache = some(some(batching.manager).batch_processor).cache
    search = cache.search_prefix_match
    cache.search_prefix_match = lambda *asked: searched.append(search(*asked)) or searched[-1]  # type: ignore[method-assign,func-returns-value]
    outputs.append(batching.run((3, 3), observed=True)[1])
    assert searched == [0, 0]
    assert [output.generated_tokens for output in outputs[0]] == [output.generated_tokens for output in outputs[1]]
