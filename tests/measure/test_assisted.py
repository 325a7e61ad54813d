"""Assisted decoding with real models: what drafts is proven, and what comes out is what the model alone chooses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from hfbench.core.point import NONE, PROMPT_LOOKUP
from hfbench.core.record import OK, REJECTED, UNAVAILABLE, UNSUPPORTED, Manifest, Record, Settings
from hfbench.measure.assisted import Assistant, Drafts, first_not_greedy
from hfbench.measure.device import Cpu
from hfbench.measure.prompt import Prompt
from tests.conftest import TINY, save_tokenizer
from tests.measure.conftest import save_batch, save_manifest
from tests.measure.stage_process import Bench

NEW_TOKENS = 24
ROW = torch.arange(1, 17)[None]
LOOKUP = Settings(assisted_decoding={"prompt_lookup_num_tokens": 5, "max_matching_ngram_size": 2})
BY_MODEL = Settings(
    assisted_decoding={
        "num_assistant_tokens": 5,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.0,
    }
)


@pytest.fixture
def one_row(bench: Bench) -> Bench:
    """A prompt of one row, which is all that assisted decoding takes."""
    save_batch(bench.folder / "b1-s16.safetensors", ROW)
    return bench


def measured(bench: Bench, settings: Settings, assistant: str, **axes: object) -> Record:
    axes = {"max_new_tokens": NEW_TOKENS, "batch_size": 1, "dtype": "float32", **axes}
    return replace(bench, settings=settings).measure(assistant=assistant, **axes)


def drafting(bench: Bench, model: Path, **values: Any) -> Bench:
    """The bench with the manifest of a model that drafts, named `draft`."""
    folder = bench.folder / "drafting"
    folder.mkdir()
    save_manifest(folder, model, "LlamaForCausalLM", "llama")
    path = folder / "manifest.json"
    replace(Manifest.load(path), name="draft", **values).save(path)
    return replace(bench, drafting=path)


def save_draft(folder: Path, seed: int = 1, **sizes: Any) -> Path:
    """Write a smaller model of other random weights, with the tokenizer of the tiny one."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(**{**TINY, "num_hidden_layers": 1, **sizes})
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def steps_of(record: Record) -> list[int]:
    """How many tokens came at each time, in the last sample with the token observer."""
    times = [each for each in record.iterations if each.phase == "sample" and each.observed][-1].token_seconds[0]
    return [times.count(at) for at in dict.fromkeys(times)]


def test_looked_up_drafts_give_the_same_tokens_in_fewer_steps(one_row: Bench) -> None:
    alone = measured(one_row, Settings(), NONE)
    record = measured(one_row, LOOKUP, PROMPT_LOOKUP)
    assert (alone.status, record.status) == (OK, OK), record.reason
    assert record.output["tokens"] == alone.output["tokens"]
    assert record.output["path"]["checked"]
    assert record.output["path"]["agrees"]
    assert record.output["path"]["timed_tokens_agree"] is True
    drafts = record.output["drafting"]
    assert drafts["generator"] == "PromptLookupCandidateGenerator"
    assert 0 < drafts["accepted_tokens"] <= drafts["proposed_tokens"]
    assert drafts["steps"] + drafts["accepted_tokens"] == NEW_TOKENS
    assert 0 < drafts["draft_seconds"] < drafts["call_seconds"]
    counts = steps_of(record)
    assert sum(counts) == NEW_TOKENS
    assert len(counts) == drafts["steps"] < NEW_TOKENS
    assert all(each.new_tokens == (NEW_TOKENS,) for each in record.iterations)
    assert record.requested["assisted_decoding"] == LOOKUP.assisted_decoding
    assert record.memory["prefill_peak_bytes"] <= record.memory["peak_bytes"]
    # Without an assistant nothing is said of drafts.
    assert "drafting" not in alone.output
    assert set(steps_of(alone)) == {1}


def test_the_same_model_as_its_own_draft_is_always_right(one_row: Bench, tiny_model: Path) -> None:
    record = measured(drafting(one_row, tiny_model), BY_MODEL, "draft")
    assert record.status == OK, record.reason
    drafts = record.output["drafting"]
    assert drafts["accepted_tokens"] == drafts["proposed_tokens"] == NEW_TOKENS - drafts["steps"]
    assert drafts["draft_passes"] >= drafts["proposed_tokens"]
    assistant = record.effective["assistant"]
    assert assistant["parameters"] == record.effective["parameters"]
    assert assistant["parameter_dtypes"].keys() == {"float32"}
    assert not assistant["has_other_tokenizer"]
    assert assistant["load_seconds"] > 0


def test_a_draft_that_is_mostly_wrong_changes_no_token(one_row: Bench, tmp_path: Path) -> None:
    alone = measured(one_row, Settings(), NONE)
    record = measured(drafting(one_row, save_draft(tmp_path / "other", tie_word_embeddings=False)), BY_MODEL, "draft")
    assert record.status == OK, record.reason
    assert record.output["tokens"] == alone.output["tokens"]
    assert record.output["drafting"]["accepted_tokens"] < record.output["drafting"]["proposed_tokens"]


def test_a_request_for_one_token_is_no_sign_that_nothing_drafts(one_row: Bench, tiny_model: Path) -> None:
    """The longest prompt is to get one token, after which nothing is left to draft."""
    rows, mask = ROW.repeat(2, 1), torch.ones(2, 16, dtype=torch.int64)
    mask[1, :6] = 0
    lengths = {"prompt_tokens": torch.tensor([16, 10]), "new_tokens": torch.tensor([1, NEW_TOKENS])}
    save_batch(one_row.folder / "b1-s16.safetensors", rows, attention_mask=mask, **lengths)
    record = measured(drafting(one_row, tiny_model), BY_MODEL, "draft", request_lengths="mixed")
    assert record.status == OK, record.reason
    assert record.effective["drafting"]["draft_passes"] > 0
    assert {each.new_tokens for each in record.iterations} == {(1, NEW_TOKENS)}


class _Peaks:
    """Notes when memory's peaks of the phases are begun and ended; what they are, this machine's memory decides."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self) -> None:
        self.told.append("begin")

    def end_prefill(self) -> None:
        self.told.append("prefill")

    def take(self, output: Any) -> Any:
        self.told.append("end")
        return output


def test_the_prefill_of_each_request_ends_before_its_second_step(model: Any) -> None:
    prompt, peaks = Prompt(ROW, torch.ones_like(ROW), pad_token_id=0), _Peaks()
    config = GenerationConfig(do_sample=False, max_new_tokens=8, pad_token_id=0, prompt_lookup_num_tokens=3)
    drafts = Drafts(model, Assistant(), Cpu(), cast("Any", peaks))
    for _ in range(2):
        drafts.arguments({}, prompt, 8)
        drafts.take(model.generate(ROW, attention_mask=prompt.attention_mask, generation_config=config))
    assert peaks.told == ["begin", "prefill", "end"] * 2


def test_a_draft_of_another_tokenizer_is_translated(one_row: Bench, tmp_path: Path) -> None:
    draft = save_draft(tmp_path / "other", vocab_size=640)
    alone = measured(one_row, Settings(), NONE)
    record = measured(drafting(one_row, draft), BY_MODEL, "draft")
    assert record.status == OK, record.reason
    assert record.output["tokens"] == alone.output["tokens"]
    assert record.effective["assistant"]["has_other_tokenizer"]
    assert record.output["drafting"]["generator"] == "AssistedCandidateGeneratorDifferentTokenizers"


def test_requests_of_unequal_lengths_are_drafted_for_one_after_the_other(one_row: Bench) -> None:
    mask = torch.ones(2, 16, dtype=torch.int64)
    mask[1, :8] = 0
    wanted = torch.tensor([NEW_TOKENS, 5])
    path = one_row.folder / "b1-s16.safetensors"
    save_batch(path, torch.cat([ROW, ROW + 20]) * mask, attention_mask=mask, new_tokens=wanted)
    record = measured(one_row, LOOKUP, PROMPT_LOOKUP, request_lengths="mixed")
    assert record.status == OK, record.reason
    assert {each.new_tokens for each in record.iterations} == {(NEW_TOKENS, 5)}


def test_another_vocabulary_of_the_same_size_is_refused(one_row: Bench, tmp_path: Path) -> None:
    draft = save_draft(tmp_path / "other")
    content = json.loads((draft / "tokenizer.json").read_text())
    numbers = content["model"]["vocab"]
    numbers["a"], numbers["b"] = numbers["b"], numbers["a"]
    (draft / "tokenizer.json").write_text(json.dumps(content))
    record = measured(drafting(one_row, draft), BY_MODEL, "draft")
    assert record.status == UNSUPPORTED
    assert "another tokenizer than tiny and as many tokens, 600" in str(record.reason)


def test_a_draft_that_knows_less_than_its_tokenizer_is_refused(one_row: Bench, tmp_path: Path) -> None:
    record = measured(drafting(one_row, save_draft(tmp_path / "other", vocab_size=300)), BY_MODEL, "draft")
    assert record.status == UNSUPPORTED
    assert "the tokenizer of draft has 600 tokens, and the model has room for 300" in str(record.reason)


def test_a_draft_that_lacks_weights_is_rejected(one_row: Bench, tmp_path: Path) -> None:
    draft = save_draft(tmp_path / "other", num_hidden_layers=1)
    config = AutoConfig.from_pretrained(draft)
    config.num_hidden_layers = 2
    config.save_pretrained(draft)
    record = measured(drafting(one_row, draft), BY_MODEL, "draft")
    assert record.status == REJECTED
    assert "the assistant: 9 missing keys in the weights" in str(record.reason)


def test_a_draft_that_cannot_be_had_is_unavailable(one_row: Bench, tiny_model: Path) -> None:
    record = measured(drafting(one_row, tiny_model, unavailable="the hub is down"), BY_MODEL, "draft")
    assert (record.status, record.reason) == (UNAVAILABLE, "the hub is down")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def test_a_token_that_greedy_decoding_does_not_choose_is_found(model: Any) -> None:
    prompt = Prompt(ROW, torch.ones_like(ROW), pad_token_id=0)
    config = GenerationConfig(do_sample=False, max_new_tokens=12, pad_token_id=0)
    tokens = model.generate(ROW, attention_mask=prompt.attention_mask, generation_config=config)[0, 16:].tolist()
    assert first_not_greedy(model, prompt, {0: tokens}) is None
    for place in (0, 7, 11):
        wrong = [*tokens]
        wrong[place] = (wrong[place] + 1) % TINY["vocab_size"]
        assert first_not_greedy(model, prompt, {0: wrong}) == place + 1


def test_watching_leaves_the_model_as_it_was(model: Any) -> None:
    prompt = Prompt(ROW, torch.ones_like(ROW), pad_token_id=0)
    config = GenerationConfig(do_sample=False, max_new_tokens=8, pad_token_id=0, prompt_lookup_num_tokens=3)
    drafts = Drafts(model, Assistant(), Cpu())
    drafts.arguments({}, prompt, 8)
    drafts.take(model.generate(ROW, attention_mask=prompt.attention_mask, generation_config=config))
    assert "_get_candidate_generator" not in vars(model)
    before = drafts.describe()
    model.generate(ROW, attention_mask=prompt.attention_mask, generation_config=config)
    assert drafts.describe() == before
