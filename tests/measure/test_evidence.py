"""Each attention, with each cache, and each way in which experts compute: right against eager, proven by what ran."""

import shutil
from copy import copy
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AttentionMaskInterface,
    AutoModelForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.masking_utils import flex_attention_mask

from hfbench.core.record import OK, UNSUPPORTED, Settings
from hfbench.measure import loading, verification
from hfbench.measure.compiling import describe_compilation, watch_compiled_call
from hfbench.measure.device import Cpu
from hfbench.measure.evidence import watch_functions, watch_operators
from hfbench.measure.experts import (
    AUTO,
    EAGER,
    GROUPED,
    GROUPED_THROUGHOUT,
    check_experts,
    describe_experts,
    experts_argument,
    experts_differences,
    find_experts,
)
from hfbench.measure.failure import NoExpertsError, status_of
from hfbench.measure.generation import generation_config, prepare_generate
from hfbench.measure.loading import load_model, sdpa_backend
from hfbench.measure.prompt import Prompt
from tests.families import family_config, family_model
from tests.measure.conftest import PROMPT, ROWS, save_manifest
from tests.measure.stage_process import Bench
from tests.measure.test_support import point

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without", "ignore:_compile flag on create_block")

CLOSE = 1e-5  # of the logits in float32: as far as another order of the same sums takes them apart, and more
BATCHED = "batched_mm"
# At least one layer of four experts; each lays its weights out, gates or adds in a way of its own.
FAMILIES = (
    *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v3", "gpt_oss", "granitemoe"),
    *("jamba", "phimoe", "aria_text", "nemotron_h"),
)
# What these have beside what they are in the table of families.
CHANGES: dict[str, dict[str, Any]] = {
    "jamba": {"num_experts": 4},
    "doge": {"is_moe": True, "num_experts": 4, "num_experts_per_tok": 2},
}
# Those whose experts have code of their own, and how many modules hold some: one a layer, but the attention of jetmoe
# is a mixture as well, of four modules.
OUTSIDE = {"dbrx": 2, "doge": 2, "jetmoe": 2 + 4, "llama4_text": 2, "longcat_flash": 1}


def on_meta(family: str, **changes: Any) -> PreTrainedModel:
    """A model without weights, as transformers makes it for `auto`."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(family_config(family, **changes))
    return model


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts") / "mixtral"
    family_model("mixtral", "bfloat16").save_pretrained(folder)
    return folder


def loaded(folder: Path, asked: str, dtype: str = "bfloat16") -> PreTrainedModel:
    configuration = point(experts_implementation=asked, dtype=dtype)
    return load_model(folder, configuration, torch.device("cpu"), trust_remote_code=False)[0]


def watched(model: PreTrainedModel, **way: object) -> dict[str, Any]:
    return verification.watch_short_call(model, point(sequence_length=16, **way), Settings(), PROMPT)[0]


def ran_forward(model: PreTrainedModel) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the logits of a forward pass, and by what its experts computed."""
    experts = find_experts(model)
    with torch.no_grad(), watch_operators() as operators, watch_functions(experts.functions) as evidence:
        logits = model(ROWS, use_cache=False).logits
    return logits, describe_experts(experts, evidence.method_calls, operators.experts)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_computes_the_same(family: str) -> None:
    model = family_model(family, **CHANGES.get(family, {}))
    assert model.config._experts_implementation == GROUPED, "what transformers takes for auto"
    reference = None
    for asked in (EAGER, BATCHED, GROUPED):
        model.set_experts_implementation(asked)
        check_experts(asked, model, find_experts(model))
        logits, effective = ran_forward(model)
        assert experts_differences(asked, effective) == []
        assert effective["experts_implementation"] == asked
        assert set(effective["experts_operators"]) == ({GROUPED} if asked == GROUPED else set())
        reference = logits if reference is None else reference
        assert logits.isfinite().all()
        assert (logits - reference).abs().max() < CLOSE
    for other in (AUTO, EAGER, BATCHED):
        assert experts_differences(other, effective) == (
            [] if other == AUTO else [f"the experts computed by {GROUPED}, not {other}"]
        )


@pytest.mark.parametrize(
    ("way", "passes"),
    [
        ({}, 2),
        ({"cache_implementation": "static"}, 2),
        ({"prefill_chunk_size": 6}, 4),
        ({"continuous_batching": True, "batch_size": 2}, 2),  # of as many new tokens, which it chooses itself
        ({"max_new_tokens": 1}, 1),
    ],
)
@pytest.mark.parametrize("asked", [AUTO, EAGER, BATCHED, GROUPED])
def test_what_ran_is_in_the_effective_configuration(
    mixtral: Path, asked: str, way: dict[str, object], passes: int
) -> None:
    effective = watched(loaded(mixtral, asked), **way)
    ran = GROUPED if asked == AUTO else asked
    assert effective["experts_implementation"] == ran
    (function,) = effective["experts_functions"]
    module = "models.mixtral.modeling_mixtral.MixtralExperts" if ran == EAGER else f"integrations.moe.{ran}_experts_"
    assert function == f"transformers.{module}{'.' if ran == EAGER else ''}forward"
    assert effective["experts_functions"][function] == 2 * passes
    assert (effective["experts_modules"], effective["experts_watched"]) == (2, 2)
    assert effective["experts_operators"] == ({GROUPED: 2 * 2 * passes} if ran == GROUPED else {})
    assert experts_differences(asked, effective) == []


def test_experts_that_were_swapped_in_one_layer(mixtral: Path) -> None:
    model = loaded(mixtral, GROUPED)
    experts: Any = find_experts(model).modules[1]
    experts.config = copy(experts.config)
    experts.config._experts_implementation = EAGER
    effective = watched(model)
    assert effective["experts_implementation"] == f"{GROUPED}, {EAGER}"
    assert experts_differences(GROUPED, effective) == [f"the experts computed by {GROUPED}, {EAGER}, not {GROUPED}"]
    assert experts_differences(AUTO, effective) == []


def test_experts_that_something_else_computes(mixtral: Path) -> None:
    model = loaded(mixtral, BATCHED)
    first, second = (layer.mlp for layer in model.model.layers)
    first.experts.forward = lambda states, *_: states  # as a kernel of the hub is put in place of one
    assert experts_differences(BATCHED, watched(model)) == ["1 of 2 modules of experts ran"]
    second.forward = lambda states: states
    effective = watched(model)
    assert effective["experts_implementation"] is None
    (found,) = experts_differences(BATCHED, effective)
    assert found == "none of 2 modules of experts ran: something else computes in their place"


def while_decoding(model: Any) -> str:
    """Return what `generate` has the experts compute by in its decoding steps, on another device than the CPU."""
    with model.to("meta")._optimize_model_for_decode():
        return str(model.get_experts_implementation()[""])


def test_grouped_mm_stays_grouped_mm_while_decoding_on_an_accelerator(mixtral: Path) -> None:
    assert while_decoding(loaded(mixtral, AUTO)) == BATCHED, "what transformers takes for auto"
    assert while_decoding(loaded(mixtral, GROUPED)) == GROUPED_THROUGHOUT
    for asked in (EAGER, BATCHED):
        assert while_decoding(loaded(mixtral, asked)) == asked


def test_a_dense_model_has_no_experts_to_choose_for(tiny_model: Path) -> None:
    assert not [name for name in watched(loaded(tiny_model, AUTO)) if name.startswith("experts")]
    for asked in (EAGER, BATCHED, GROUPED):
        with pytest.raises(NoExpertsError) as told:
            loaded(tiny_model, asked)
        assert str(told.value) == (
            f"experts_implementation is {asked}, and this LlamaForCausalLM has no experts; it runs with auto"
        )
        assert status_of(told.value, "load") == UNSUPPORTED


def test_a_mixture_of_experts_may_be_dense_in_every_layer() -> None:
    model = on_meta("qwen3_moe", mlp_only_layers=[0, 1])
    assert model.config._experts_implementation == GROUPED, "the config does not tell"
    with pytest.raises(NoExpertsError, match="this Qwen3MoeForCausalLM has no experts"):
        check_experts(GROUPED, model, find_experts(model))


@pytest.mark.parametrize("family", OUTSIDE)
def test_experts_with_code_of_their_own_are_eager(family: str) -> None:
    model = on_meta(family, **CHANGES.get(family, {}))
    experts = find_experts(model)
    assert len(experts.modules) == OUTSIDE[family]
    for asked in (AUTO, EAGER):
        check_experts(asked, model, experts)
    for asked in (BATCHED, GROUPED):
        with pytest.raises(NoExpertsError, match=f"the experts of {type(model).__name__} have code of their own"):
            check_experts(asked, model, experts)


def test_experts_with_code_of_their_own_are_watched() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(family_config("doge", **CHANGES["doge"]), **experts_argument(EAGER)).eval()
    effective = ran_forward(model)[1]
    assert effective == {
        "experts_implementation": EAGER,
        "experts_functions": {"transformers.models.doge.modeling_doge.DogeCDMoE.forward": 2},
        "experts_modules": 2,
        "experts_watched": 2,
        "experts_operators": {},
    }
    assert experts_differences(EAGER, effective) == []


def test_sizes_that_grouped_mm_cannot_take_are_not_supported() -> None:
    model = family_model("mixtral", "bfloat16", intermediate_size=30)
    with pytest.raises(RuntimeError) as told:
        ran_forward(model)
    assert status_of(told.value, "verify") == UNSUPPORTED
    model.set_experts_implementation(BATCHED)
    assert ran_forward(model)[1]["experts_implementation"] == BATCHED


@pytest.mark.parametrize("asked", [AUTO, EAGER, BATCHED, GROUPED])
def test_a_mixture_of_experts_is_measured_as_asked(bench: Bench, mixtral: Path, tiny_model: Path, asked: str) -> None:
    for tokenizer in tiny_model.glob("tokenizer*"):
        shutil.copy(tokenizer, mixtral)
    save_manifest(bench.folder, mixtral, "MixtralForCausalLM", "mixtral")
    record = bench.measure(experts_implementation=asked)
    assert record.status == OK, record.reason
    assert record.requested["experts_implementation"] == asked
    assert record.effective["experts_implementation"] == (GROUPED if asked == AUTO else asked)


def test_a_dense_model_with_experts_is_unsupported(bench: Bench) -> None:
    record = bench.measure(experts_implementation=GROUPED)
    assert (record.status, record.phase) == (UNSUPPORTED, "load")
    assert "this LlamaForCausalLM has no experts" in str(record.reason)


@pytest.mark.usefixtures("nothing_compiled")
def test_grouped_mm_is_a_loop_where_it_is_compiled_in_float32(mixtral: Path) -> None:
    asked = point(sequence_length=16, max_new_tokens=4, dtype="float32", compile_mode="default")
    settings = Settings(compile={"backend": "eager", "options": {}})
    model = loaded(mixtral, GROUPED, dtype="float32")
    call = prepare_generate(model, asked, settings, PROMPT, Cpu())
    call(False)
    compiled = watch_compiled_call(model, partial(call, False))
    assert compiled["compiled_calls"] == 3
    assert compiled["experts_operators"] == {GROUPED: 2 * 2, "grouped_mm_fallback": 2 * 2 * 3}


CLOSE_LOGITS = 1e-4  # of the logits in float32: as far as another order of the same sums takes them apart, and more
STEPS = 8
TOKENS = torch.arange(1, 41).reshape(2, 20)
FORCED = torch.arange(100, 100 + 2 * STEPS).reshape(2, STEPS)
SHAPES = [(1, 0), (2, 0), (2, 5)]  # rows, and tokens of padding before the second one's prompt
CACHES = {"dynamic": "DynamicCache", "static": "StaticCache"}
MINUTES = 600.0  # where other work keeps the cores busy, flex attention takes minutes to compile


class Forced(LogitsProcessor):
    """Makes `generate` take the next token of `FORCED`, whatever the model says."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        done = input_ids.shape[1] - TOKENS.shape[1]
        forced = torch.full_like(scores, float("-inf"))
        return forced.scatter(1, FORCED[: len(scores), done : done + 1], 0.0)  # type: ignore[return-value]


def decoded(folder: Path, shape: tuple[int, int], **asked: object) -> tuple[torch.Tensor, str]:
    """Return the logits (row, step, vocabulary) of a point's own call of `generate`, and its kind of cache."""
    configuration = point(**{"dtype": "float32", "max_new_tokens": STEPS, "batch_size": shape[0], **asked})
    model = load_model(folder, configuration, torch.device("cpu"), trust_remote_code=False)[0]
    rows = TOKENS[: shape[0]]
    mask = torch.ones_like(rows)
    mask[1:, : shape[1]] = 0
    config = generation_config(configuration, Settings(), Prompt(rows, mask, pad_token_id=0))
    config.update(return_dict_in_generate=True, output_logits=True)
    with sdpa_backend(configuration.attn_implementation):
        output: Any = model.generate(  # type: ignore[operator]
            rows, attention_mask=mask, generation_config=config, logits_processor=LogitsProcessorList([Forced()])
        )
    return torch.stack(output.logits, dim=1), type(output.past_key_values).__name__


@cache
def eager(folder: Path, shape: tuple[int, int]) -> torch.Tensor:
    return decoded(folder, shape, attn_implementation="eager")[0]


def assert_like_eager(folder: Path, shape: tuple[int, int], kind: str, **asked: object) -> None:
    logits, kind_seen = decoded(folder, shape, cache_implementation=kind, **asked)
    assert kind_seen == CACHES[kind]
    assert (logits - eager(folder, shape)).abs().max() < CLOSE_LOGITS


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("attention", "kind"),
    [
        ("eager", "static"),
        *((attention, kind) for attention in ("sdpa", "sdpa:math", "sdpa:flash_attention") for kind in CACHES),
    ],
)
def test_attention_decodes_like_eager(tiny_model: Path, attention: str, kind: str, shape: tuple[int, int]) -> None:
    assert_like_eager(tiny_model, shape, kind, attn_implementation=attention)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", CACHES)
def test_masks_of_flex_attention(tiny_model: Path, kind: str, shape: tuple[int, int]) -> None:
    with torch.compiler.set_stance("force_eager"):  # the same masks, without a minute of compiling
        assert_like_eager(tiny_model, shape, kind, attn_implementation="flex_attention")


def test_a_mask_that_reads_the_length_of_the_cache_would_be_noticed(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mask_of_a_live_length(**arguments: Any) -> Any:
        mask = flex_attention_mask(**arguments)
        mask.__class__ = loading.ContiguousBlockMask
        return mask

    monkeypatch.setattr(loading, "static_cache_mask", mask_of_a_live_length)
    with torch.compiler.set_stance("force_eager"), pytest.raises(AssertionError):
        assert_like_eager(tiny_model, (1, 0), "static", attn_implementation="flex_attention")
    monkeypatch.undo()
    loading.register_flex_attention()
    assert AttentionMaskInterface()[loading.FLEX_FOR_STATIC_CACHE] is loading.static_cache_mask


@pytest.mark.usefixtures("nothing_compiled")
def test_compiled_kernels_of_flex_attention(tiny_model: Path) -> None:
    # Its prefill runs what flex attention compiles for itself, and its decoding steps the model's one graph.
    assert_like_eager(tiny_model, (2, 0), "static", attn_implementation="flex_attention", compile_mode="default")
    compilation = describe_compilation()
    assert (compilation["graphs"], compilation["recompiles"], compilation["fell_back"]) == (1, [], [])


def test_compiled_flex_attention_is_measured(bench: Bench) -> None:
    record = bench.measure(attn_implementation="flex_attention", compile_mode="default", timeout_seconds=MINUTES)
    assert record.status == OK, record.reason
    effective = record.effective
    assert effective["attn_implementation"] == record.requested["attn_implementation"] == "flex_attention"
    assert effective["attention_registered_as"] == "hfbench_flex_attention"
    assert list(effective["attention_functions"]) == ["transformers.integrations.flex_attention.flex_attention_forward"]
    assert effective["cache"] == "StaticCache"
    assert effective["cache_layers"] == {"StaticLayer": 2}
    assert effective["compilation"]["graphs"] == 2  # the checks compile flex attention otherwise: all is compiled anew
    assert effective["compilation"]["compiled_calls"] == 1  # a decoding step; the prefill enters flex's own only
