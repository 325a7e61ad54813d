"""Requests of unequal lengths, really run: padded batches of `generate`, and continuous batching, on the tiny model."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hfbench.core.record import OK, REJECTED, UNSUPPORTED, Record, Settings
from hfbench.measure.prompt import Prompt, batches_of, longest_row, request_tokens
from hfbench.params.sections import BatchingParams
from tests.measure.stage_process import Bench

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
    content = {"input_ids": rows, "attention_mask": mask, **lengths}
    save_file(content, bench.folder / "b2-s16.safetensors", metadata={"pad_token_id": "0"})
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
    assert not record.iterations


def test_prefix_sharing_finds_nothing_of_the_iteration_before(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    from hfbench.measure.batching import Batching, continuous_batching_config
    from hfbench.measure.generation import generation_config
    from tests.measure.test_support import point

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    rows = torch.arange(1, 33).reshape(2, 16)
    prompt = Prompt(rows, torch.ones_like(rows), 0)
    asked = point(continuous_batching=True, batch_size=2, sequence_length=16, max_new_tokens=3)
    knobs = BatchingParams(page_size=4, allow_block_sharing=True).model_dump()
    settings = Settings(continuous_batching=knobs)
    batching = Batching(
        model, generation_config(asked, settings, prompt), continuous_batching_config(asked, settings), prompt
    )
    searched: list[int] = []
    outputs = [batching.run((3, 3), observed=True)[1]]
    assert batching.manager is not None
    assert batching.manager.batch_processor is not None
    cache = batching.manager.batch_processor.cache
    search = cache.search_prefix_match
    cache.search_prefix_match = lambda *asked: searched.append(search(*asked)) or searched[-1]  # type: ignore[method-assign,func-returns-value]
    outputs.append(batching.run((3, 3), observed=True)[1])
    assert searched == [0, 0]
    assert [output.generated_tokens for output in outputs[0]] == [output.generated_tokens for output in outputs[1]]
