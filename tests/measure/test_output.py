"""What is timed is compared with one plain forward pass: it agrees, and real faults of caches and states are found."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import StaticLayer

from hfbench.core.record import OK, REJECTED, UNSUPPORTED, Settings
from hfbench.measure import output as outputs
from hfbench.measure import plain_pass, verification
from hfbench.measure.device import Cpu
from hfbench.measure.evidence import Operators, watch_operators
from hfbench.measure.failure import NotFiniteError, status_of
from hfbench.measure.output import path_differences, tolerance
from hfbench.measure.plain_pass import check_prompt, first_tokens, reference_of, steps_of
from hfbench.measure.prompt import Prompt, watch_passes
from tests.conftest import some
from tests.families import family_model
from tests.measure import test_support
from tests.measure.conftest import NO_LOADING, save_batch
from tests.measure.stage_process import Bench

STEPS = 6
ROWS = torch.randint(1, 600, (2, 40), generator=torch.Generator().manual_seed(1))
PATHS: dict[str, dict[str, Any]] = {
    "dynamic": {"cache_implementation": "dynamic"},
    "static": {"cache_implementation": "static"},
    "chunks": {"prefill_chunk_size": 16},
    "context": {"context_depth": 24},
    "padded": {"request_lengths": "mixed"},
    "continuous batching": {"continuous_batching": True},
}
pytestmark = pytest.mark.usefixtures("threads_as_asked")


def prompt_of(depth: int = 0, rows: torch.Tensor = ROWS, request_lengths: str = "uniform", **_: Any) -> Prompt:
    mask = torch.ones_like(rows)
    if request_lengths == "mixed":
        mask[1, :11] = 0
        return Prompt(rows, mask, 0, new_tokens=(20, 12))
    return Prompt(rows[:, depth:], mask, 0, context_ids=rows[:, :depth] if depth else None)


def checked(model: PreTrainedModel, rows: torch.Tensor = ROWS, **axes: Any) -> tuple[list[str], dict[str, Any]]:
    """What verification finds, and the comparison of the logits."""
    depth = axes.get("context_depth", 0)
    prompt = prompt_of(depth, rows, axes.get("request_lengths", "uniform"))
    dtype = str(model.dtype).removeprefix("torch.")
    lengths = {"batch_size": len(rows), "sequence_length": rows.shape[1] - depth, "max_new_tokens": 20}
    asked = test_support.point(dtype=dtype, **{"attn_implementation": "eager", **lengths, **axes})
    _, reference = check_prompt(model, prompt, steps_of(model, prompt, 6 * STEPS))
    effective = {**verification.describe_model(model, Cpu()), "loading": NO_LOADING}
    watched, _, path = verification.watch_short_call(model, asked, Settings(), prompt, reference)
    return [*verification.differences(asked, effective | watched), *path_differences(dtype, path)], path


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3_moe"])
def test_each_path_agrees_with_a_plain_forward_pass(name: str, dtype: str, path: str) -> None:
    found, compared = checked(family_model(name, dtype), **PATHS[path])
    assert found == []
    assert compared["agrees"]
    assert compared["rows"] == 2
    assert compared["logits_difference"] < compared["tolerance"] / 2


def test_the_likelihood_of_the_steps_is_that_of_a_hand_made_pass() -> None:
    model = family_model("llama")
    _, compared = checked(model)
    given = ROWS[:, :STEPS]  # each row's own first tokens once more
    log_probabilities = model(torch.cat([ROWS, given], 1)).logits.detach()[:, 39:-1].log_softmax(-1)
    scored = -log_probabilities.gather(2, given[:, :, None]).mean().item()
    assert compared["nll"] == pytest.approx(scored, abs=1e-5)
    assert compared["reference_nll"] == pytest.approx(scored, abs=1e-5)
    assert compared["steps"] == STEPS
    assert compared["top1"] == log_probabilities.argmax(-1).T.flatten().tolist()


@pytest.mark.parametrize(("name", "dtype"), [("llama", "float32"), ("llama", "bfloat16"), ("gpt2", "bfloat16")])
def test_a_static_cache_that_forgets_its_values(monkeypatch: pytest.MonkeyPatch, name: str, dtype: str) -> None:
    kept = StaticLayer.update

    def forget(self: StaticLayer, *arguments: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = kept(self, *arguments, **named)
        return keys, torch.zeros_like(values)

    monkeypatch.setattr(StaticLayer, "update", forget)
    found, compared = checked(family_model(name, dtype), cache_implementation="static")
    assert not compared["agrees"]
    if name == "llama":  # of gpt2, half of a logit is its own token's: flagged in the tables, in bfloat16
        assert found[0].startswith("what is timed computes something else than one plain forward pass")
    assert checked(family_model(name, dtype), cache_implementation="dynamic")[1]["agrees"]


@pytest.mark.parametrize("rows_together", [1, 2, 5])
def test_rows_whose_logits_are_large_go_in_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch, rows_together: int) -> None:
    model, rows = family_model("llama"), torch.randint(1, 600, (7, 12), generator=torch.Generator().manual_seed(2))
    prompt = prompt_of(rows=rows)
    whole = reference_of(model, prompt, rows[:, :STEPS]).logits
    monkeypatch.setattr(plain_pass, "_LOGITS_AT_ONCE", 600 * STEPS * rows_together)
    assert torch.allclose(some(reference_of(model, prompt, rows[:, :STEPS]).logits), some(whole), atol=1e-5)


@pytest.mark.parametrize(("axes", "longest"), [({"depth": 24}, 16 + 8), ({"chunk": 8}, 8 + 8), ({}, 40 + 8)])
def test_a_long_row_goes_in_at_once_only_where_the_measured_call_takes_it_so(
    monkeypatch: pytest.MonkeyPatch, axes: dict[str, int], longest: int
) -> None:
    """What takes little memory as it is measured is not to run out of it when it is checked."""
    monkeypatch.setattr(plain_pass, "_TOKENS_AT_ONCE", 10)
    prompt = replace(prompt_of(axes.get("depth", 0)), prefill_chunk_size=axes.get("chunk", 0))
    model = family_model("llama")
    with watch_passes(model) as passes:
        found, reference = check_prompt(model, prompt, STEPS)
    assert max(passes.lengths) <= longest
    assert found["prompt_nll"] == pytest.approx(
        check_prompt(model, prompt_of(axes.get("depth", 0)), STEPS)[0]["prompt_nll"], abs=1e-4
    )
    assert reference.logits is not None


@pytest.mark.parametrize("path", ["chunks", "context"])
def test_a_state_that_is_forgotten_between_passes(path: str) -> None:
    found, compared = checked(family_model("jamba"), **PATHS[path])
    assert found[0].startswith("what is timed computes something else")
    assert compared["logits_difference"] > 5 * compared["tolerance"]
    assert compared["top1_agreement"] == 1.0  # the tokens of a random model tell nothing
    assert checked(family_model("granitemoehybrid"), **PATHS[path])[0] == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("asked", [{"context_depth": 60}, {"prefill_chunk_size": 60}])
def test_rotary_frequencies_that_change_while_the_cache_is_kept(asked: dict[str, int], dtype: str) -> None:
    switching: dict[str, Any] = {
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64},
            **{"short_factor": [1.0] * 8, "long_factor": [4.0] * 8},
        },
    }
    model = family_model("phi3", dtype, **switching)
    rows = torch.randint(1, 600, (1, 68), generator=torch.Generator().manual_seed(1))
    found, _ = checked(model, rows, **asked)
    assert found[0].startswith("the model changed its rotary frequencies before token 61 and kept what the cache held")
    assert checked(model, rows)[0] == []
    assert checked(model, rows[:, :60])[0] == []  # where it takes in all tokens anew, after the steps that are compared
    assert steps_of(model, prompt_of(rows=rows[:, :60]), 40) == 5


def test_an_encoder_has_no_cache_that_decodes() -> None:
    found, _ = checked(family_model("bert", is_decoder=False))
    assert found
    assert checked(family_model("bert"))[0] == []


def test_a_cache_that_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model("llama")
    monkeypatch.setattr(DynamicCache, "update", lambda _, keys, values, *__, **___: (keys, values))
    (held, computed) = checked(model)[0]
    assert held == "the cache holds 0 tokens after a call that took in 45"
    assert computed.startswith("what is timed computes something else")


def test_attention_outside_of_transformers_interface_has_a_proof_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model("falcon")
    found, compared = checked(model)
    assert (found, compared["agrees"]) == ([], True)
    monkeypatch.setattr(verification, "watch_operators", _without_softmax)
    assert checked(model)[0] == [
        "no attention was seen: neither a function of transformers' interface nor a softmax ran"
    ]
    assert checked(family_model("mamba"))[0] == []  # which has none


@contextmanager
def _without_softmax() -> Iterator[Operators]:
    with watch_operators() as operators:
        yield operators
    operators.softmax = 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("falcon", "FalconForCausalLM computes attention by code of its own, which never writes to the paged cache"),
        ("gptj", "GPTJForCausalLM computes attention by code of its own"),
        ("qwen3_next", r"Qwen3NextForCausalLM has layers that keep a state \(linear_attention\)"),
        ("jamba", r"JambaForCausalLM has layers that keep a state \(linear_attention\)"),
        ("recurrent_gemma", "RecurrentGemmaForCausalLM has layers that keep a state"),
        ("deepseek_v3", "the keys and values of DeepseekV3ForCausalLM have other shapes"),
        ("doge", "DogeForCausalLM computes with tensors of shapes that the packed requests"),
        ("gemma4_text", "the layers of Gemma4ForCausalLM differ in shape"),
        ("stablelm", "was called without a paged attention cache"),
    ],
)
def test_what_continuous_batching_cannot_run_is_unsupported(name: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason) as refusal:
        checked(family_model(name), continuous_batching=True)
    assert status_of(refusal.value, "verify") == UNSUPPORTED


def test_a_paged_cache_that_gives_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    kept = PagedAttentionCache.update

    def scaled(self: PagedAttentionCache, *arguments: Any, **named: Any) -> Any:
        keys, values = kept(self, *arguments, **named)
        return keys, values * 0.99

    monkeypatch.setattr(PagedAttentionCache, "update", scaled)
    found, compared = checked(family_model("llama"), continuous_batching=True)
    assert not compared["agrees"]
    assert found[0].startswith("what is timed computes something else")


def test_logits_that_are_no_numbers_end_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = StaticLayer.update

    def broken(self: StaticLayer, *arguments: Any, **named: Any) -> Any:
        keys, values = kept(self, *arguments, **named)
        return keys, values / 0

    monkeypatch.setattr(StaticLayer, "update", broken)
    with pytest.raises(NotFiniteError, match="are no numbers on the measured path") as raised:
        checked(family_model("llama"), cache_implementation="static")
    assert status_of(raised.value, "verify") == REJECTED


def test_a_long_row_goes_in_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = family_model("llama"), prompt_of(24)
    at_once, reference = check_prompt(model, prompt, STEPS)
    monkeypatch.setattr(plain_pass, "_TOKENS_AT_ONCE", 7)
    monkeypatch.setattr(plain_pass, "_LOGITS_AT_ONCE", 4000)  # six positions of 600 tokens
    monkeypatch.setattr(plain_pass, "_SCORED_AT_ONCE", 1200)
    in_pieces, other = check_prompt(model, prompt, STEPS)
    assert in_pieces["prompt_nll"] == pytest.approx(at_once["prompt_nll"], abs=1e-5)
    assert in_pieces["prompt_top1"] == at_once["prompt_top1"]
    assert (some(reference.logits) - some(other.logits)).abs().max() < 1e-5
    mamba = check_prompt(family_model("mamba"), prompt_of(), STEPS)
    assert mamba[0] == {"prompt_nll": None, "prompt_top1": None}
    assert "hands on no cache" in str(mamba[1].missing)


def test_what_could_not_be_compared_is_not_said_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pass, "_TOKENS_AT_ONCE", 7)
    monkeypatch.setattr(plain_pass, "_LOGITS_AT_ONCE", 4000)
    found, compared = checked(family_model("mamba"))
    assert found == []
    assert compared == {"checked": False, "reason": compared["reason"]}
    assert "hands on no cache" in compared["reason"]


def test_the_reference_of_chosen_tokens_is_that_of_given_ones() -> None:
    model, prompt = family_model("llama"), prompt_of()
    given = check_prompt(model, prompt, STEPS)[1]
    chosen = reference_of(model, prompt, first_tokens(prompt, STEPS))
    assert (some(given.logits) - some(chosen.logits)).abs().max() < 1e-5


def test_rounding_grows_with_the_square_root_of_the_depth() -> None:
    shallow, deep = tolerance(family_model("llama")), tolerance(family_model("llama", num_hidden_layers=8))
    assert deep / shallow == pytest.approx(2)
    assert shallow == pytest.approx(16 * 2**-23 * math.sqrt(2))
    assert tolerance(family_model("llama", "bfloat16")) == pytest.approx(4 * 2**-7 * math.sqrt(2))


@pytest.mark.parametrize("path", ["dynamic", "static", "chunks"])
def test_a_model_that_multiplies_rounding_is_given_as_much_as_it_makes(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setitem(outputs._ROUNDING, torch.float32, 4.0)  # less than this one has on any processor
    model = family_model("gemma4_text")  # its scales make a difference in the first layer thirty times as large
    found, compared = checked(model, **PATHS[path])
    assert found == []
    assert tolerance(model) < compared["logits_difference"] < compared["tolerance"] / 2


def test_the_rounding_of_small_logits_is_that_of_their_likelihood() -> None:
    model = family_model("cohere2")  # which scales its logits to a hundredth, and a likelihood of 1 / 600 stays
    found, compared = checked(model, continuous_batching=True)
    assert found == []
    assert compared["tolerance"] == tolerance(model)


measured = partial(Bench.measure, dtype="float32", attn_implementation="eager")


def test_what_was_compiled_is_compared_compiled(bench: Bench) -> None:
    record = measured(bench, compile_mode="default", max_new_tokens=36)
    assert record.status == OK, record.reason
    assert record.output["path"]["agrees"]
    assert record.output["path"]["rows"] == 2
    assert record.effective["cache_held"] == {"tokens": [21], "expected": 21}
    assert record.effective["compilation"]["compiled_calls"] == 5  # of six tokens, the first is the prefill's


@pytest.mark.parametrize("compile_mode", ["off", "default"])
def test_the_tokens_that_continuous_batching_chose_are_those_that_were_checked(bench: Bench, compile_mode: str) -> None:
    settings = Settings(compile={"backend": "eager", "options": {}})  # which compiles with Dynamo, and so in no time
    record = measured(replace(bench, settings=settings), "--continuous_batching", compile_mode=compile_mode)
    assert record.status == OK, record.reason
    assert record.output["path"]["agrees"]
    assert record.output["path"]["timed_tokens_agree"] is True


def test_attention_that_takes_more_memory_has_a_higher_peak(bench: Bench) -> None:
    """2 rows × 4 heads × 2048² scores in float32 are 128 MiB; SDPA computes them in blocks."""
    rows = torch.arange(2 * 2048).reshape(2, 2048) % 600
    save_batch(bench.folder / "b2-s2048.safetensors", rows)
    prefill = {}
    for attention in ("eager", "sdpa"):
        record = measured(bench, attn_implementation=attention, sequence_length=2048, max_new_tokens=3, max_seconds=200)
        assert record.status == OK, record.reason
        memory = record.memory
        assert memory["peak_bytes"] >= memory["prefill_peak_bytes"] > memory["decode_peak_bytes"]
        prefill[attention] = memory["prefill_peak_bytes"]
    assert prefill["eager"] - prefill["sdpa"] > 2**27
